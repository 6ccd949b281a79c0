"""Questions that were not sent: their words, settings and what they go on from are not lost."""

from __future__ import annotations

import re

import httpx
import pytest
from playwright.sync_api import Locator, Page, Route, expect

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


def _ask(page: Page, question: str) -> None:
    _field(page).fill(question)
    page.get_by_role("button", name="Send").click()


def _turn(page: Page, number: int = -1) -> Locator:
    turns = page.get_by_role("feed").get_by_role("article")
    return turns.last if number < 0 else turns.nth(number)


def _answered(turn: Locator, text: str) -> None:
    expect(turn.get_by_role("button", name="Copy the answer")).to_be_visible()
    expect(turn.get_by_label("Answer", exact=True).locator(".blocks")).to_have_text(text)


def _prompt(page: Page) -> Locator:
    return page.get_by_label(re.compile("System prompt"))


def test_one_that_failed_is_written_again_when_another_is_asked(
    page: Page, teller: Storyteller
) -> None:
    teller.tell("One?", "First.")
    teller.tell("Three?", "Third.")
    _ask(page, "One?")
    _answered(_turn(page), "First.")
    _refuse(page)
    _ask(page, "Two?")
    expect(_turn(page)).to_contain_text("Not sent.")
    page.unroute(_RESPONSES)
    _ask(page, "Three?")
    _answered(_turn(page), "Third.")
    expect(_field(page)).to_have_value("Two?")


def test_one_on_its_way_is_not_dropped_for_another(page: Page, teller: Storyteller) -> None:
    teller.tell("One?", "First.")
    teller.tell("Two?", "Second.")
    _ask(page, "One?")
    _answered(_turn(page), "First.")
    page.route(_RESPONSES, _away)
    _ask(page, "Two?")
    expect(_turn(page)).to_contain_text("It is sent by itself")
    _turn(page, 0).get_by_role("button", name="Answer again").click()
    expect(page.get_by_text("Another question is on its way.")).to_be_visible()
    first = _turn(page, 0)
    first.get_by_role("button", name="Edit the question").click()
    first.get_by_label("The question, edited").fill("One and a half?")
    first.get_by_role("button", name="Ask", exact=True).click()
    expect(first.get_by_label("The question, edited")).to_have_value("One and a half?")
    page.unroute(_RESPONSES)
    _answered(_turn(page, 1), "Second.")


def test_the_first_one_is_changed_with_its_settings(page: Page) -> None:
    page.get_by_role("button", name="Settings of this conversation").click()
    _prompt(page).fill("Be a pirate.")
    page.get_by_role("button", name="Close the settings").click()
    page.route(re.compile(r"/v1/(responses|conversations)$"), _away)
    _ask(page, "Who?")
    expect(_turn(page)).to_contain_text("It is sent by itself")
    page.reload()
    page.get_by_role("button", name="Do not send it").click()
    expect(_field(page)).to_have_value("Who?")
    page.get_by_role("button", name="Settings of this conversation").click()
    expect(_prompt(page)).to_have_value("Be a pirate.")


@pytest.mark.parametrize("button", ["Discard", "Change it"])
def test_the_first_one_leaves_no_conversation(page: Page, teller: Storyteller, button: str) -> None:
    teller.tell("Two?", "Second.")
    _refuse(page)
    _ask(page, "One?")
    expect(_turn(page)).to_contain_text("Not sent.")
    history = page.get_by_role("navigation", name="History")
    expect(history.get_by_text("Empty conversation")).to_be_visible()
    page.get_by_role("button", name=button).click()
    expect(history.get_by_text("No conversation yet.")).to_be_visible()
    expect(page).to_have_url(re.compile("/#/$"))
    expect(_field(page)).to_have_value("One?" if button == "Change it" else "")
    page.unroute(_RESPONSES)
    _ask(page, "Two?")
    _answered(_turn(page), "Second.")


def test_one_below_an_answer_is_changed_there(
    page: Page, server: RunningServer, teller: Storyteller
) -> None:
    teller.tell("Hello", "Hi.")
    teller.tell("What did I say?", "Hello.")
    body = {"messages": [{"role": "user", "content": "Hello"}]}
    url = f"http://{server.address}/v1/chat/completions"
    answer = httpx.post(url, json=body, timeout=60).raise_for_status()
    page.goto(f"/#/a/{answer.headers['x-llcuda-generation']}")
    _answered(_turn(page), "Hi.")
    _refuse(page)
    _ask(page, "What did I say")
    page.get_by_role("button", name="Change it").click()
    expect(_field(page)).to_have_value("What did I say")
    page.unroute(_RESPONSES)
    _ask(page, "What did I say?")
    _answered(_turn(page), "Hello.")
    asked = [one["content"] for one in teller.asked[-1]["messages"]]
    assert asked == ["Hello", "Hi.", "What did I say?"]


def test_what_is_written_meanwhile_stays(page: Page) -> None:
    page.route(re.compile(r"/v1/(responses|conversations)$"), _away)
    _ask(page, "One?")
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
    _ask(page, "One?")
    _answered(_turn(page), "First.")
    other = profile.open(page.url)
    _answered(_turn(other), "First.")
    page.route(_RESPONSES, _away)
    _ask(page, "Two?")
    expect(_turn(other)).to_contain_text("It is sent by itself")
    page.close()
    _answered(_turn(other), "Second.")
    assert len(teller.asked) == 2


def test_one_that_another_tab_drops_is_not_sent(
    profile: Profile, page: Page, teller: Storyteller
) -> None:
    teller.tell("One?", "First.")
    _ask(page, "One?")
    _answered(_turn(page), "First.")
    other = profile.open(page.url)
    page.route(_RESPONSES, _away)
    _ask(page, "Two?")
    other.get_by_role("button", name="Do not send it").click()
    expect(_field(other)).to_have_value("Two?")
    expect(page.get_by_role("article")).to_have_count(1)


def test_who_is_elsewhere_hears_of_one_that_failed(page: Page) -> None:
    held: list[Route] = []
    page.route(_RESPONSES, lambda route: held.append(route))
    with page.expect_request(_RESPONSES):
        _ask(page, "One?")
    page.get_by_role("link", name="Settings").click()
    held[0].fulfill(status=429, json=_REFUSED)
    expect(page.get_by_role("alert")).to_contain_text("A question was not sent: not now")
    page.get_by_role("button", name="Show it").click()
    expect(_turn(page)).to_contain_text("One?")
    expect(_turn(page)).to_contain_text("Not sent.")


def test_one_is_sent_whatever_view_the_page_begins_with(page: Page) -> None:
    page.route(_RESPONSES, _away)
    _ask(page, "One?")
    expect(_turn(page)).to_contain_text("It is sent by itself")
    page.goto("/#/settings")
    page.unroute(_RESPONSES)
    with page.expect_response(_RESPONSES) as response:
        page.reload()
    assert response.value.ok
