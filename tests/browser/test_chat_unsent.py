"""Questions that were not sent: their words, settings and what they go on from are not lost."""

from __future__ import annotations

import re

import httpx
import pytest
from playwright.sync_api import Locator, Page, Route, expect

from tests.support.browser.chat import answered, asks, turn_of
from tests.support.browser.profiles import Profile, Profiles
from tests.support.processes import RunningServer
from tests.support.upstream.storyteller import Storyteller

_RESPONSES = re.compile(r"/v1/responses$")
_REFUSED = {"error": {"message": "not now", "code": "rate_limit_exceeded"}}


@pytest.fixture
def profile(profiles: Profiles, server: RunningServer) -> Profile:
    found = profiles.new(server)
    found.watch.expect("429|Failed to (load|fetch)|ERR_FAILED")
    return found


@pytest.fixture
def page(profile: Profile) -> Page:
    """A new chat."""
    return profile.open()


def _refuse(page: Page) -> None:
    """The server takes no question, for now."""
    page.route(_RESPONSES, lambda route: route.fulfill(status=429, json=_REFUSED))


def _away(route: Route) -> None:
    route.abort()


def _field(page: Page) -> Locator:
    return page.get_by_label("Your question")


def _prompt(page: Page) -> Locator:
    return page.get_by_label(re.compile("System prompt"))


def test_one_that_failed_is_written_again_when_another_is_asked(
    page: Page, teller: Storyteller
) -> None:
    teller.tell("One?", "First.")
    teller.tell("Three?", "Third.")
    asks(page, "One?")
    answered(turn_of(page), "First.")
    _refuse(page)
    asks(page, "Two?")
    expect(turn_of(page)).to_contain_text("Not sent.")
    page.unroute(_RESPONSES)
    asks(page, "Three?")
    answered(turn_of(page), "Third.")
    expect(_field(page)).to_have_value("Two?")


def test_one_on_its_way_is_not_dropped_for_another(page: Page, teller: Storyteller) -> None:
    teller.tell("One?", "First.")
    teller.tell("Two?", "Second.")
    asks(page, "One?")
    answered(turn_of(page), "First.")
    page.route(_RESPONSES, _away)
    asks(page, "Two?")
    expect(turn_of(page)).to_contain_text("It is sent by itself")
    turn_of(page, 0).get_by_role("button", name="Answer again").click()
    expect(page.get_by_text("Another question is on its way.")).to_be_visible()
    first = turn_of(page, 0)
    first.get_by_role("button", name="Edit the question").click()
    first.get_by_label("The question, edited").fill("One and a half?")
    first.get_by_role("button", name="Ask", exact=True).click()
    expect(first.get_by_label("The question, edited")).to_have_value("One and a half?")
    page.unroute(_RESPONSES)
    answered(turn_of(page, 1), "Second.")


def test_the_first_one_is_changed_with_its_settings(page: Page) -> None:
    page.get_by_role("button", name="Settings of this conversation").click()
    _prompt(page).fill("Be a pirate.")
    page.get_by_role("button", name="Close the settings").click()
    page.route(re.compile(r"/v1/(responses|conversations)$"), _away)
    asks(page, "Who?")
    expect(turn_of(page)).to_contain_text("It is sent by itself")
    page.reload()
    page.get_by_role("button", name="Do not send it").click()
    expect(_field(page)).to_have_value("Who?")
    page.get_by_role("button", name="Settings of this conversation").click()
    expect(_prompt(page)).to_have_value("Be a pirate.")


@pytest.mark.parametrize("button", ["Discard", "Change it"])
def test_the_first_one_leaves_no_conversation(page: Page, teller: Storyteller, button: str) -> None:
    teller.tell("Two?", "Second.")
    _refuse(page)
    asks(page, "One?")
    expect(turn_of(page)).to_contain_text("Not sent.")
    history = page.get_by_role("navigation", name="History")
    expect(history.get_by_text("Empty conversation")).to_be_visible()
    page.get_by_role("button", name=button).click()
    expect(history.get_by_text("No conversation yet.")).to_be_visible()
    expect(page).to_have_url(re.compile("/#/$"))
    expect(_field(page)).to_have_value("One?" if button == "Change it" else "")
    page.unroute(_RESPONSES)
    asks(page, "Two?")
    answered(turn_of(page), "Second.")


def test_one_below_an_answer_is_changed_there(
    page: Page, server: RunningServer, teller: Storyteller
) -> None:
    teller.tell("Hello", "Hi.")
    teller.tell("What did I say?", "Hello.")
    body = {"messages": [{"role": "user", "content": "Hello"}]}
    url = f"http://{server.address}/v1/chat/completions"
    answer = httpx.post(url, json=body, timeout=60).raise_for_status()
    page.goto(f"/#/a/{answer.headers['x-llcuda-generation']}")
    answered(turn_of(page), "Hi.")
    _refuse(page)
    asks(page, "What did I say")
    page.get_by_role("button", name="Change it").click()
    expect(_field(page)).to_have_value("What did I say")
    page.unroute(_RESPONSES)
    asks(page, "What did I say?")
    answered(turn_of(page), "Hello.")
    asked = [one["content"] for one in teller.asked[-1]["messages"]]
    assert asked == ["Hello", "Hi.", "What did I say?"]


def test_what_is_written_meanwhile_stays(page: Page) -> None:
    page.route(re.compile(r"/v1/(responses|conversations)$"), _away)
    asks(page, "One?")
    page.get_by_role("button", name="New chat").click()
    _field(page).fill("Two?")
    page.go_back()
    page.get_by_role("button", name="Do not send it").click()
    expect(_field(page)).to_have_value("One?\n\nTwo?")


def test_another_tab_sends_what_a_closed_one_had_to(
    profile: Profile, page: Page, teller: Storyteller
) -> None:
    teller.tell("One?", "First.")
    teller.tell("Two?", "Second.")
    asks(page, "One?")
    answered(turn_of(page), "First.")
    other = profile.open(page.url)
    answered(turn_of(other), "First.")
    page.route(_RESPONSES, _away)
    asks(page, "Two?")
    expect(turn_of(other)).to_contain_text("It is sent by itself")
    page.close()
    answered(turn_of(other), "Second.")
    assert len(teller.asked) == 2


def test_one_that_another_tab_drops_is_not_sent(
    profile: Profile, page: Page, teller: Storyteller
) -> None:
    teller.tell("One?", "First.")
    asks(page, "One?")
    answered(turn_of(page), "First.")
    other = profile.open(page.url)
    page.route(_RESPONSES, _away)
    asks(page, "Two?")
    other.get_by_role("button", name="Do not send it").click()
    expect(_field(other)).to_have_value("Two?")
    expect(page.get_by_role("article")).to_have_count(1)


def test_what_is_over_before_the_server_is_heard_is_not_shown_as_empty(
    page: Page, server: RunningServer, teller: Storyteller
) -> None:
    teller.tell("One?", "First.")
    held: list[Route] = []
    let_go = False

    def hold(route: Route) -> None:
        if let_go:
            route.continue_()
        else:
            held.append(route)

    def answer_is_lost(route: Route) -> None:
        sent = route.fetch().json()
        url = f"http://{server.address}/v1/responses/{sent['id']}"
        while httpx.get(url).json()["status"] != "completed":
            page.wait_for_timeout(20)
        route.abort()

    page.route(_RESPONSES, answer_is_lost, times=1)
    page.route(re.compile("/v1/conversations/.*/responses"), hold)
    chat = asks(page, "One?")
    # The end has been told, and how the answer is stored has not: it is read from the stream.
    chat.sees("First.")
    expect(chat.answer).to_have_attribute("aria-busy", "true")
    let_go = True
    for route in held:
        route.continue_()
    chat.sees_the_end()
    answered(turn_of(page), "First.")


def test_who_is_elsewhere_hears_of_one_that_failed(page: Page) -> None:
    held: list[Route] = []
    page.route(_RESPONSES, lambda route: held.append(route))
    with page.expect_request(_RESPONSES):
        asks(page, "One?")
    page.get_by_role("link", name="Settings").click()
    held[0].fulfill(status=429, json=_REFUSED)
    expect(page.get_by_role("alert")).to_contain_text("A question was not sent: not now")
    page.get_by_role("button", name="Show it").click()
    expect(turn_of(page)).to_contain_text("One?")
    expect(turn_of(page)).to_contain_text("Not sent.")


def test_one_is_sent_whatever_view_the_page_begins_with(page: Page) -> None:
    page.route(_RESPONSES, _away)
    asks(page, "One?")
    expect(turn_of(page)).to_contain_text("It is sent by itself")
    page.goto("/#/settings")
    page.unroute(_RESPONSES)
    with page.expect_response(_RESPONSES) as response:
        page.reload()
    assert response.value.ok
