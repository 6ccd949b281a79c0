"""A person finds, renames, pins, saves and deletes what was said before."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from playwright.sync_api import expect

from llcuda_net import sync
from tests.support.browser.chat import Chat
from tests.support.browser.profiles import Profiles
from tests.support.processes import RunningServer, running_server, wait_until
from tests.support.upstream.storyteller import Storyteller

TALKS = {
    "What do bees eat?": "Nectar, and *pollen* of many flowers.",
    "Who paints clouds?": "Constable painted skies by the hundred.",
    "How deep is the sea?": "On average, 3,688 metres.",
}


@pytest.fixture
def chat(profiles: Profiles, teller: Storyteller, server: RunningServer) -> Chat:
    """One with three conversations in its history."""
    for question, answer in TALKS.items():
        teller.tell(question, answer)
    chat = Chat(profiles.new(server).open())
    for question in TALKS:
        chat.new()
        chat.ask(question)
        chat.sees_the_end()
    return chat


def _search(chat: Chat, words: str) -> None:
    chat.page.get_by_role("searchbox", name=re.compile("Search the history")).fill(words)


def _titles(chat: Chat) -> list[str]:
    rows = chat.page.get_by_role("list", name="Conversations").get_by_role("link")
    return [one.split("\n")[0] for one in rows.all_inner_texts()]


def test_the_newest_is_first_and_opens(chat: Chat) -> None:
    expect(chat.page.get_by_role("list", name="Conversations").get_by_role("link")).to_have_count(3)
    assert _titles(chat) == list(TALKS)[::-1]
    chat.go_back_to(re.compile("bees"))
    chat.sees("Nectar, and pollen")
    chat.page.go_back()
    chat.sees("3,688 metres")
    # What was asked last is first.
    chat.go_back_to(re.compile("bees"))
    chat.sees("Nectar, and pollen")
    chat.ask("Anything else?")
    chat.sees("I do not know.", answers=2)
    expect(
        chat.page.get_by_role("list", name="Conversations").get_by_role("link").first
    ).to_contain_text("bees")


def test_words_are_found_and_marked(chat: Chat) -> None:
    _search(chat, "flowers pollen")
    found = chat.page.get_by_role("region", name="By words")
    expect(found.get_by_role("link")).to_have_count(1)
    expect(found.locator("mark")).to_have_text(["pollen", "flowers"])
    found.get_by_role("link").click()
    chat.sees("Nectar, and pollen")
    _search(chat, "zebra")
    expect(found).to_contain_text("Nothing found.")
    _search(chat, "clo")  # a word that is being written
    expect(found.get_by_role("link")).to_have_count(1)
    _search(chat, "clouds AND (")
    expect(chat.page.locator("body")).to_contain_text("clouds")
    chat.page.keyboard.press("Escape")
    expect(found).to_have_count(0)


def test_it_is_renamed_pinned_and_both_last(chat: Chat) -> None:
    chat.choose("Actions for What do bees eat?", "Rename")
    box = chat.page.get_by_role("textbox", name="Title")
    expect(box).to_have_value("What do bees eat?")
    box.fill("Of bees")
    box.press("Enter")
    expect(chat.history.get_by_role("link", name=re.compile("Of bees"))).to_be_visible()
    chat.choose("Actions for Of bees", "Pin")
    rows = chat.page.get_by_role("list", name="Conversations").get_by_role("link")
    expect(rows.first).to_contain_text("Of bees")
    chat.page.reload()
    expect(rows).to_have_count(3)
    assert _titles(chat) == ["Of bees", "How deep is the sea?", "Who paints clouds?"]
    chat.choose("Actions for Of bees", "Unpin")
    expect(rows.last).to_contain_text("Of bees")
    # Nothing is renamed by Escape.
    chat.choose("Actions for Of bees", "Rename")
    box.fill("Of wasps")
    box.press("Escape")
    expect(rows.last).to_contain_text("Of bees")


@pytest.mark.parametrize("form", ["Markdown", "JSON"])
def test_it_is_saved(chat: Chat, form: str, tmp_path: Path) -> None:
    with chat.page.expect_download() as begun:
        chat.choose("Actions for What do bees eat?", f"Export as {form}")
    saved = tmp_path / begun.value.suggested_filename
    begun.value.save_as(saved)
    assert saved.suffix == (".md" if form == "Markdown" else ".json")
    text = saved.read_text(encoding="utf-8")
    assert "What do bees eat?" in text
    assert TALKS["What do bees eat?"] in text
    if form == "JSON":
        json.loads(text)


def test_it_is_deleted(chat: Chat) -> None:
    chat.choose("Actions for How deep is the sea?", "Delete")
    question = chat.page.get_by_role("dialog")
    question.get_by_role("button", name="Cancel").click()
    chat.sees("3,688 metres")
    chat.choose("Actions for How deep is the sea?", "Delete")
    question.get_by_role("button", name="Delete").click()
    expect(chat.page.get_by_role("list", name="Conversations").get_by_role("link")).to_have_count(2)
    expect(chat.page.locator("body")).not_to_contain_text("3,688 metres")
    chat.page.reload()
    expect(chat.page.get_by_role("list", name="Conversations").get_by_role("link")).to_have_count(2)
    _search(chat, "metres")
    expect(chat.page.get_by_role("region", name="By words")).to_contain_text("Nothing found.")


def test_all_answers_are_listed_by_their_state(chat: Chat, teller: Storyteller) -> None:
    teller.refuse("Fail, please", 500, "no")
    chat.new()
    chat.ask("Fail, please")
    expect(chat.page.get_by_role("button", name="Try again")).to_be_visible()
    chat.history.get_by_role("button", name="All answers").click()
    rows = chat.page.get_by_role("list", name="All answers").get_by_role("link")
    expect(rows).to_have_count(4)
    chat.page.get_by_label("Filter by state").select_option("Done")
    expect(rows).to_have_count(3)
    chat.page.get_by_label("Filter by state").select_option("Failed")
    expect(rows).to_have_count(1)
    expect(rows).to_contain_text("Fail, please")


def test_what_is_meant_is_found(profiles: Profiles) -> None:
    """With the built-in model, which has vectors for meanings."""
    with running_server(LLCUDA_ANALYSIS="true") as server:
        chat = Chat(profiles.new(server).open())
        chat.ask("What is a slot?")
        chat.sees_the_end()
        meant = chat.page.get_by_role("region", name="By meaning")
        with sync.connect(server.address) as client:
            analysed = client.status
            wait_until(lambda: analysed()["analysis"]["indexed"] == 1, "it is analysed")
        _search(chat, "parallel sequences of a server")
        meant.get_by_role("link").first.click()
        expect(chat.questions).to_contain_text("What is a slot?")
