"""How sure the model was, word by word."""

from __future__ import annotations

import re

from playwright.sync_api import expect

from tests.support.browser.chat import Chat
from tests.support.browser.profiles import Profiles
from tests.support.processes import RunningServer
from tests.support.upstream.storyteller import Storyteller, Word

SAID = (
    Word("The"),
    Word(" capital", 0.9, [(" city", 0.05)]),
    Word(" is"),
    Word(" Bern", 0.3, [(" Zurich", 0.25), (" Geneva", 0.2)]),
    Word("."),
)


def test_unsure_words_are_shaded_with_what_else_they_might_have_been(
    profiles: Profiles, teller: Storyteller, server: RunningServer
) -> None:
    teller.tell("Which city?", *SAID)
    profile = profiles.new(server)
    page = profile.open("/#/settings")
    page.get_by_role("checkbox", name=re.compile("how sure", re.IGNORECASE)).check()
    page.goto("/#/")
    chat = Chat(page)
    chat.ask("Which city?")
    chat.sees_the_end()
    chat.button("How sure the model was").click()
    bern = chat.answer.get_by_role("note", name=re.compile("^Bern"))
    expect(bern).to_be_visible()
    sure = chat.answer.get_by_role("note", name=re.compile("^The"))
    shade = "element => getComputedStyle(element).backgroundColor"
    assert bern.evaluate(shade) != sure.evaluate(shade)
    bern.hover()
    chat.sees("30 %")
    chat.sees("Zurich")
    chat.sees("Geneva")
    # And by keyboard: on from the first word, to the next unsure one.
    sure.focus()
    page.keyboard.press("ArrowRight")
    expect(chat.answer.get_by_role("note", name=re.compile("^capital"))).to_be_focused()
    chat.sees("city")
    page.keyboard.press("ArrowDown")
    expect(bern).to_be_focused()
    chat.sees("Zurich")
    chat.button("How sure the model was").click()
    expect(bern).to_have_count(0)
    chat.sees("The capital is Bern.")
