"""The chat as a person uses it: ask, read, stop, ask again, edit, go on, look at what it was."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import FilePayload, Locator, Page, expect

from tests.support.browser.accessibility import violations
from tests.support.browser.chat import answered, asks, turn_of
from tests.support.browser.profiles import NARROW, Profile, Profiles
from tests.support.processes import RunningServer, running_server
from tests.support.upstream.storyteller import (
    Call,
    Hold,
    Part,
    Storyteller,
    Thought,
    Word,
    storyteller,
    words,
)

#: A PNG of one point.
_DOT = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d494441"
    "54789c63f8cfc0f01f00050001ff89993d1d0000000049454e44ae426082"
)


@pytest.fixture
def profile(profiles: Profiles, server: RunningServer) -> Profile:
    return profiles.new(server)


@pytest.fixture
def page(profile: Profile) -> Page:
    """A new chat."""
    return profile.open()


def _asked(teller: Storyteller) -> list[str]:
    """What the model read at last, a text a message."""
    return [str(one["content"]) for one in teller.asked[-1]["messages"]]


def test_an_answer_comes_as_it_is_written(page: Page, teller: Storyteller) -> None:
    thought, begun = Hold(), Hold()
    thinks: list[Part] = [Thought("Hm, "), Thought("slots."), thought]
    says: list[Part] = [*words("A **slot** is one"), begun]
    rest = words(" sequence.\n\n```python\nslot()\n```\n")
    teller.tell("What is a slot?", *thinks, *says, *rest)
    asks(page, "What is a slot?")
    expect(page.get_by_label("Your question")).to_have_value("")
    turn = turn_of(page)
    expect(turn).to_contain_text("What is a slot?")
    expect(turn.get_by_text("Thinking…")).to_be_visible()
    expect(page.get_by_role("button", name="Stop the answer")).to_be_visible()
    thought.set()
    expect(turn.get_by_text("Thought", exact=True)).to_be_visible()
    expect(turn.get_by_text("A slot is one")).to_be_visible()
    begun.set()
    expect(turn.locator("strong")).to_have_text("slot")
    expect(turn.get_by_role("button", name="Copy the code")).to_be_visible()
    expect(turn.get_by_text(re.compile("tokens · "))).to_be_visible()
    turn.get_by_text("Thought", exact=True).click()
    expect(turn.get_by_text("Hm, slots.")).to_be_visible()
    assert re.search(r"#/c/conv_\w+$", page.url)
    assert violations(page) == []
    page.reload()
    expect(turn_of(page).get_by_text("A slot is one sequence.")).to_be_visible()


def test_a_question_goes_on_from_the_answers_before(page: Page, teller: Storyteller) -> None:
    teller.tell("One?", "First.")
    teller.tell("Two?", "Second.")
    asks(page, "One?")
    answered(turn_of(page), "First.")
    asks(page, "Two?")
    answered(turn_of(page), "Second.")
    assert _asked(teller) == ["One?", "First.", "Two?"]


def test_an_answer_is_stopped(page: Page, teller: Storyteller) -> None:
    teller.tell("Count", "one, two", Hold(), "three")
    asks(page, "Count")
    expect(turn_of(page)).to_contain_text("one, two")
    page.keyboard.press("Escape")
    expect(turn_of(page)).to_contain_text("Stopped before its end.")
    expect(page.get_by_role("button", name="Send")).to_be_visible()


def test_versions_of_an_answer(page: Page, teller: Storyteller) -> None:
    teller.tell("Name one", "Ann")
    teller.tell("Name one", "Bob")
    teller.tell("Why?", "So.")
    asks(page, "Name one")
    answered(turn_of(page), "Ann")
    page.get_by_role("button", name="Answer again").click()
    answered(turn_of(page), "Bob")
    expect(turn_of(page)).to_contain_text("2/2")
    page.get_by_role("button", name="Versions side by side").click()
    columns = page.get_by_role("dialog").get_by_role("region", name="The version on the")
    expect(columns.nth(0)).to_contain_text("Ann")
    expect(columns.nth(1)).to_contain_text("Bob")
    assert violations(page) == []
    page.keyboard.press("Escape")
    # What is asked now goes on from the version that is shown, though it is not the newest one.
    page.get_by_role("button", name="Earlier version of the answer").click()
    answered(turn_of(page), "Ann")
    asks(page, "Why?")
    answered(turn_of(page), "So.")
    assert _asked(teller) == ["Name one", "Ann", "Why?"]
    page.get_by_role("button", name="Later version of the answer").click()
    answered(turn_of(page), "Bob")
    expect(page.get_by_role("article")).to_have_count(1)


def test_a_question_is_edited(page: Page, teller: Storyteller) -> None:
    teller.tell("How many?", "Four.")
    teller.tell("How large?", "Large.")
    asks(page, "How many?")
    answered(turn_of(page), "Four.")
    page.get_by_role("button", name="Edit the question").click()
    field = page.get_by_label("The question, edited")
    expect(field).to_be_focused()
    field.fill("How large?")
    page.get_by_role("button", name="Ask", exact=True).click()
    answered(turn_of(page), "Large.")
    expect(turn_of(page)).not_to_contain_text("How many?")
    page.get_by_role("button", name="Earlier version of the question").click()
    answered(turn_of(page), "Four.")
    assert _asked(teller) == ["How large?"]


def test_settings_hold_from_then_on(page: Page, teller: Storyteller) -> None:
    page.get_by_role("button", name="Settings of this conversation").click()
    page.get_by_label(re.compile("System prompt")).fill("Be brief.")
    page.get_by_role("textbox", name=re.compile("temperature")).fill("0,5")
    page.get_by_label(re.compile("top_k")).fill("many")
    expect(page.get_by_text("This must be a whole number.")).to_be_visible()
    page.get_by_label(re.compile("top_k")).fill("")
    assert violations(page) == []
    page.keyboard.press("Escape")
    for question in ("One?", "Two?"):
        asks(page, question)
        answered(turn_of(page), "I do not know.")
        assert _asked(teller)[0] == "Be brief."
        assert teller.asked[-1]["temperature"] == 0.5
    page.reload()
    asks(page, "Three?")
    expect(page.get_by_role("article")).to_have_count(3)
    answered(turn_of(page), "I do not know.")
    assert teller.asked[-1]["temperature"] == 0.5


def test_how_sure_it_was(page: Page, teller: Storyteller) -> None:
    paris = Word(" Paris", 0.4, [(" Lyon", 0.35), (" Nice", 0.2)])
    teller.tell("Where?", Word("In", 0.99), paris, Word(".", 0.95))
    asks(page, "Where?")
    answered(turn_of(page), "In Paris.")
    page.get_by_role("button", name="How sure the model was").click()
    word = page.get_by_label(re.compile("Paris.: 40 % unsure; instead: ␣Lyon 35 %"))
    expect(word).to_have_class("level-2")
    page.get_by_label(re.compile("^In: 99 % sure")).focus()
    page.keyboard.press("ArrowRight")
    expect(word).to_be_focused()
    expect(page.get_by_text("Nice")).to_be_visible()
    assert violations(page) == []
    page.get_by_role("button", name="How sure the model was").click()
    answered(turn_of(page), "In Paris.")


def test_images_go_with_a_question(page: Page, teller: Storyteller) -> None:
    teller.tell("What is it?", "A dot.")
    files = page.locator("input[type=file]")
    files.set_input_files({"name": "note.txt", "mimeType": "text/plain", "buffer": b"x"})
    expect(page.get_by_text("note.txt is not an image")).to_be_visible()
    dot: FilePayload = {"name": "dot.png", "mimeType": "image/png", "buffer": _DOT}
    files.set_input_files([dot, dot])
    expect(page.get_by_role("button", name="Remove dot.png")).to_have_count(2)
    page.get_by_role("button", name="Remove dot.png").first.click()
    asks(page, "What is it?")
    answered(turn_of(page), "A dot.")
    (message,) = teller.asked[-1]["messages"]
    assert [part["type"] for part in message["content"]] == ["image_url", "text"]
    expect(turn_of(page).get_by_role("img", name="Image 1")).to_be_visible()


def test_a_draft_is_kept(page: Page) -> None:
    page.get_by_label("Your question").fill("Half a quest")
    page.reload()
    expect(page.get_by_label("Your question")).to_have_value("Half a quest")


def test_a_failed_answer_is_asked_again(page: Page, teller: Storyteller) -> None:
    teller.refuse("Well?", 400, "no such thing")
    teller.tell("Well?", "Well.")
    asks(page, "Well?")
    expect(turn_of(page)).to_contain_text("no such thing")
    page.get_by_role("button", name="Try again").click()
    answered(turn_of(page), "Well.")
    expect(page.get_by_role("article")).to_have_count(1)


def test_tool_calls_are_shown(page: Page, server: RunningServer, teller: Storyteller) -> None:
    teller.tell("Weather?", "Let me see. ", Call("weather", '{"city":"<b>Paris</b>"}'))
    tool = {"type": "function", "name": "weather", "parameters": {"type": "object"}}
    body = {"input": "Weather?", "tools": [tool]}
    answer = _post(server, "/v1/responses", body)
    page.goto(f"/#/a/{answer['id']}")
    turn = turn_of(page)
    expect(turn).to_contain_text("weather")
    expect(turn.locator(".tool-call code")).to_have_text('{ "city": "<b>Paris</b>" }')


def _post(server: RunningServer, path: str, body: dict[str, Any]) -> Any:
    answer = httpx.post(f"http://{server.address}{path}", json=body, timeout=60)
    return answer.raise_for_status().json()


def test_an_answer_of_another_api_is_read_stopped_and_gone_on_from(
    page: Page, server: RunningServer, teller: Storyteller
) -> None:
    teller.tell("Tell", "Once upon", Hold(), " a time")
    teller.tell("And then?", "The end.")
    body = {"input": "Tell", "background": True, "instructions": "Be brief."}
    begun = _post(server, "/v1/responses", body)
    generation = begun["llcuda"]["generation"]
    page.goto(f"/#/a/{generation}")
    expect(turn_of(page)).to_contain_text("Once upon")
    page.get_by_role("button", name="Stop the answer").click()
    expect(turn_of(page)).to_contain_text("Stopped before its end.")
    assert violations(page) == []
    asks(page, "And then?")
    answered(turn_of(page), "The end.")
    assert re.search(r"#/c/conv_\w+$", page.url)
    expect(page.get_by_role("article")).to_have_count(2)
    assert _asked(teller)[-3:] == ["Tell", "Once upon", "And then?"]


def test_an_answer_that_is_loaded_at_the_second_try_can_be_asked_again(
    page: Page, profile: Profile, server: RunningServer, teller: Storyteller
) -> None:
    """And one that is deleted elsewhere is gone here, too."""
    profile.watch.expect("429")
    teller.tell("Again?", "Yes.")
    generation = _post(server, "/v1/responses", {"input": "Again?"})["llcuda"]["generation"]
    path = f"/v1/generations/{generation}"
    page.route(f"**{path}?*", lambda route: route.fulfill(status=429, json={}), times=1)
    page.goto(f"/#/a/{generation}")
    page.get_by_role("button", name="Try again").click()
    answered(turn_of(page), "Yes.")
    expect(page.get_by_role("button", name="Answer again", exact=True)).to_be_visible()
    expect(page.get_by_label("Your question")).to_be_visible()
    httpx.delete(f"http://{server.address}{path}").raise_for_status()
    expect(page.get_by_text("This answer is not there any more")).to_be_visible()
    expect(page.get_by_role("main").get_by_text(re.compile(r"Again\?|Yes\."))).to_have_count(0)
    expect(page.get_by_label("Your question")).to_have_count(0)


@pytest.fixture
def long(server: RunningServer) -> str:
    """A conversation of 50 turns."""
    conversation = _post(server, "/v1/conversations", {})["id"]
    for number in range(50):
        body = {"conversation": conversation, "input": f"Question {number}."}
        _post(server, "/v1/responses", body)
    return str(conversation)


def _question(page: Page, number: int) -> Locator:
    return page.get_by_role("feed").get_by_text(f"Question {number}.", exact=True)


def test_older_turns_come_as_one_scrolls_up(page: Page, long: str) -> None:
    page.goto(f"/#/c/{long}")
    expect(_question(page, 49)).to_be_in_viewport()
    first = _question(page, 0)
    feed = page.get_by_role("region", name="Conversation")
    expect(first).to_have_count(0)
    while not first.count():
        feed.evaluate("(element) => element.scrollBy(0, -2000)")
        page.wait_for_function("new Promise((done) => requestAnimationFrame(() => done(true)))")
    feed.evaluate("(element) => element.scrollTo(0, 0)")
    expect(first).to_be_in_viewport()
    expect(page.get_by_role("article")).to_have_count(50)
    page.get_by_role("button", name="Go to the end").click()
    expect(_question(page, 49)).to_be_in_viewport()


#: The question that is read, and where on the screen it stands, once all that is seen has its size.
_READ = """async (element) => {
    for (let frame = 0; frame < 3; frame++)
        await new Promise((done) => requestAnimationFrame(done));
    const { top } = element.getBoundingClientRect();
    const read = [...element.querySelectorAll("article")]
        .find((one) => one.getBoundingClientRect().top > top);
    return [read.innerText, Math.round(read.getBoundingClientRect().top)];
}"""


def test_one_who_reads_above_is_not_moved(page: Page, long: str, teller: Storyteller) -> None:
    hold = Hold()
    teller.tell("More?", "Yes. ", hold, *words("and more\n\n" * 40))
    page.goto(f"/#/c/{long}")
    expect(page.get_by_role("article")).not_to_have_count(0)
    asks(page, "More?")
    expect(page.get_by_text("Yes.")).to_be_in_viewport()
    feed = page.get_by_role("region", name="Conversation")
    feed.evaluate("(element) => element.scrollBy(0, -1500)")
    expect(page.get_by_role("button", name="Go to the end")).to_be_visible()
    before = feed.evaluate(_READ)
    hold.set()
    expect(turn_of(page).get_by_role("button", name="Copy the answer")).to_have_count(1)
    text, top = feed.evaluate(_READ)
    # Heights are fractions of pixels, and a place is rounded.
    assert (text, abs(top - before[1]) <= 1) == (before[0], True)


def test_a_search_opens_the_answer(page: Page, long: str, server: RunningServer) -> None:
    items = httpx.get(f"http://{server.address}/v1/generations?limit=50&order=asc").json()["data"]
    page.goto(f"/#/c/{long}?answer=resp_{items[3]['id']}")
    expect(_question(page, 3)).to_be_in_viewport()


def test_a_conversation_that_is_none(page: Page, profile: Profile) -> None:
    profile.watch.expect("404")
    for name in ("conv_none", "constructor"):
        page.goto(f"/#/c/{name}")
        expect(page.get_by_text("This conversation is not there any more")).to_be_visible()


def test_what_is_asked_while_the_server_is_away_is_asked_once(
    profiles: Profiles, teller: Storyteller, tmp_path: Path
) -> None:
    arguments = ["--upstream", teller.url, "--data-dir", str(tmp_path / "data")]
    teller.tell("Still there?", "Yes.")
    with running_server(*arguments) as first:
        profile = profiles.new(first)
        profile.watch.expect("ERR_CONNECTION|Failed to (load|fetch)|503")
        page = profile.open()
        page.get_by_label("Your question").fill("Still there?")
        first.stop(9)
        page.keyboard.press("Enter")
        expect(page.get_by_text("It is sent by itself")).to_be_visible()
    with running_server("--port", str(first.port), *arguments):
        answered(turn_of(page), "Yes.")
    assert len(teller.asked) == 1


@pytest.fixture
def other() -> Iterator[Storyteller]:
    """An upstream of another model."""
    with storyteller("other") as found:
        yield found


def test_another_model_answers(
    profiles: Profiles, teller: Storyteller, other: Storyteller, tmp_path: Path
) -> None:
    teller.tell("Who?", "I.")
    other.tell("Who?", "Me.")
    upstreams = ["--upstream", teller.url, "--upstream", other.url]
    with running_server(*upstreams, "--data-dir", str(tmp_path / "data")) as server:
        page = profiles.new(server, NARROW).open()
        asks(page, "Who?")
        answered(turn_of(page), "I.")
        page.get_by_role("button", name="More").click()
        page.get_by_role("menuitem", name="Answer again by another model…").click()
        page.get_by_role("option", name=re.compile("other")).click()
        answered(turn_of(page), "Me.")
        expect(page.get_by_role("button", name=re.compile("Model: other"))).to_be_visible()
        page.get_by_role("button", name="Versions side by side").click()
        columns = page.get_by_role("dialog").get_by_role("region", name="The version on the")
        expect(columns.nth(0)).to_contain_text("I.")
        expect(columns.nth(1)).to_contain_text("Me.")
        assert violations(page) == []


def test_a_chat_of_another_api_is_gone_on_from_with_all_of_it(
    page: Page, server: RunningServer, teller: Storyteller
) -> None:
    teller.tell("And?", "Four.")
    teller.tell("Sure?", "Yes.")
    said = [("user", "Hello"), ("assistant", "<b>Hi</b>"), ("user", "And?")]
    messages = [{"role": role, "content": text} for role, text in said]
    answer = httpx.post(
        f"http://{server.address}/v1/chat/completions", json={"messages": messages}, timeout=60
    )
    page.goto(f"/#/a/{answer.headers['x-llcuda-generation']}")
    expect(page.get_by_text("<b>Hi</b>")).to_be_visible()
    answered(turn_of(page), "Four.")
    asks(page, "Sure?")
    answered(turn_of(page), "Yes.")
    assert _asked(teller) == ["Hello", "<b>Hi</b>", "And?", "Four.", "Sure?"]
    expect(page.get_by_role("article")).to_have_text(
        [re.compile(text) for text in ("Hello", "<b>Hi</b>", "And[?].*Four", "Sure[?].*Yes")]
    )
