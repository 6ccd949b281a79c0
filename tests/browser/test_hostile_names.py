"""What is no answer is not trusted, either: questions, names, titles, errors, calls of tools."""

from __future__ import annotations

import re

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.browser.hostile.collection import SHORT
from tests.support.browser.chat import Chat
from tests.support.browser.profiles import PHONE, Profile, Profiles
from tests.support.browser.unharmed import GUARD, overflow_when_narrow
from tests.support.processes import PATIENCE, RunningServer, running_server, wait_until
from tests.support.upstream.storyteller import Call, Storyteller, Thought, storyteller


@pytest.fixture
def profile(profiles: Profiles, server: RunningServer) -> Profile:
    found = profiles.new(server)
    found.context.add_init_script(GUARD)
    return found


def unharmed(page: Page, what: str) -> None:
    """Fails where something ran, or the page has become too wide."""
    assert page.evaluate("window.pwned") is None, what
    assert overflow_when_narrow(page) is None, what


def test_questions(profile: Profile, teller: Storyteller) -> None:
    chat = Chat(profile.open())
    for text in SHORT:
        chat.new()
        chat.ask(text)
        chat.sees_the_end()
        shown = chat.questions.locator(".words")
        expect(shown).to_have_text(text)
        unharmed(chat.page, text)
        chat.button("Edit the question").click()
        expect(chat.page.get_by_role("textbox", name="The question, edited")).to_have_value(text)
        unharmed(chat.page, text)
        chat.page.reload()
        expect(shown).to_have_text(text)
        unharmed(chat.page, text)


def test_reasoning_and_calls_of_tools(profile: Profile, teller: Storyteller) -> None:
    chat = Chat(profile.open())
    for number, text in enumerate(SHORT):
        teller.tell(f"Think {number}", Thought(text), Call(text[:100], f'{{"{number}": 1, {text}'))
        chat.new()
        chat.ask(f"Think {number}")
        chat.sees_the_end()
        chat.sees(f'"{number}"')
        chat.answer.get_by_text("Thought", exact=True).click()
        unharmed(chat.page, text)


def test_errors_of_the_upstream(profile: Profile, teller: Storyteller) -> None:
    chat = Chat(profile.open())
    for number, text in enumerate(SHORT):
        teller.refuse(f"Fail {number}", 400, f"no. {number} {text}")
        chat.new()
        chat.ask(f"Fail {number}")
        expect(chat.page.get_by_text(f"no. {number}").first).to_be_visible()
        unharmed(chat.page, text)


def test_titles(profile: Profile) -> None:
    conversations = f"{profile.origin}/v1/conversations"
    for text in SHORT:
        httpx.post(conversations, json={"title": text[:200]}, timeout=PATIENCE).raise_for_status()
    chat = Chat(profile.open())
    rows = chat.page.get_by_role("list", name="Conversations").get_by_role("link")
    expect(rows).to_have_count(len(SHORT))
    unharmed(chat.page, "a list of titles")
    for number in range(len(SHORT)):
        rows.nth(number).click()
        expect(chat.question_box).to_be_visible()
        actions = chat.history.get_by_role("button", name=re.compile("^Actions for"))
        actions.nth(number).click()
        chat.page.get_by_role("menuitem", name="Delete").click()
        dialog = chat.page.get_by_role("dialog")
        expect(dialog).to_be_visible()
        unharmed(chat.page, SHORT[-1 - number])
        dialog.get_by_role("button", name="Cancel").click()


def test_what_a_search_marks(profile: Profile, teller: Storyteller) -> None:
    chat = Chat(profile.open())
    for number, text in enumerate(SHORT):
        teller.tell(f"Say {number}", f"before {text} marker {text} behind")
        chat.new()
        chat.ask(f"Say {number}")
        chat.sees_the_end()
    path = f"{profile.origin}/v1/generations?q=marker&limit=100"
    # The index follows what is stored.
    wait_until(lambda: len(httpx.get(path).json()["data"]) == len(SHORT), "the index has them")
    search = chat.page.get_by_role("searchbox", name=re.compile("Search the history"))
    search.fill("marker")
    found = chat.page.get_by_role("region", name="By words")
    expect(found.get_by_role("link")).to_have_count(len(SHORT))
    expect(found.locator("mark")).to_have_text(["marker"] * len(SHORT))
    unharmed(chat.page, "what is found")
    for text in SHORT:
        search.fill(text)
        expect(chat.page.get_by_text("Searching…")).to_have_count(0)
        unharmed(chat.page, text)


@pytest.mark.parametrize("text", SHORT, ids=range(len(SHORT)))
def test_names_of_models(profiles: Profiles, text: str) -> None:
    with (
        storyteller(f"m {text}"[:200]) as teller,
        running_server("--upstream", teller.url) as server,
    ):
        profile = profiles.new(server)
        profile.context.add_init_script(GUARD)
        chat = Chat(profile.open())
        chat.ask("Who are you?")
        chat.sees("I do not know.")
        chat.sees_the_end()
        unharmed(chat.page, text)
        chat.page.get_by_role("button", name=re.compile("^Model: m ")).click()
        expect(chat.page.get_by_role("option")).to_have_count(1)
        unharmed(chat.page, text)
        chat.page.keyboard.press("Escape")
        chat.page.goto("/#/server")
        expect(chat.page.locator("main").get_by_text(re.compile("^m ")).first).to_be_visible()
        unharmed(chat.page, text)
        phone = profiles.new(server, PHONE).open("/#/server")
        expect(phone.locator("main").get_by_text(re.compile("^m ")).first).to_be_visible()
        unharmed(phone, text)
