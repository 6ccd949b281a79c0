"""A model that writes what it likes changes nothing outside of its message."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from tests.browser.hostile.collection import ANSWERS
from tests.support.browser.chat import Chat
from tests.support.browser.profiles import Profiles
from tests.support.browser.unharmed import GUARD, differences, outside, overflow_when_narrow
from tests.support.processes import PATIENCE, RunningServer, running_server, wait_until
from tests.support.upstream.storyteller import Hold, Storyteller, storyteller

END = "the end of it"
#: What harmless answers say, with which all others are compared.
PLAIN = ("Plain words.", "More of them, as plain.", "And the last ones.")
#: Hostile answers of one conversation.
TURNS = 14
#: Pieces of an answer, at most.
PIECES = 120


@pytest.fixture(scope="module")
def teller() -> Iterator[Storyteller]:
    with storyteller() as found:
        yield found


@pytest.fixture(scope="module")
def server(teller: Storyteller) -> Iterator[RunningServer]:
    with running_server("--upstream", teller.url) as found:
        yield found


def cut(text: str, seed: int) -> list[str]:
    """A text in pieces of any length: within tags, marks, escapes and characters that combine."""
    chance = random.Random(seed)
    longest = max(1, 2 * len(text) // PIECES)
    found, at = [], 0
    while at < len(text):
        length = chance.randint(1, longest)
        found.append(text[at : at + length])
        at += length
    return found


def settled(page: Page, before: dict[str, object], what: str) -> None:
    """Fails unless all outside is soon as it was."""
    try:
        wait_until(lambda: not differences(before, outside(page)), what, PATIENCE / 10)
    except AssertionError:
        changed = "\n".join(differences(before, outside(page)))
        raise AssertionError(f"{what}:\n{changed}") from None


@pytest.mark.parametrize("kind", ANSWERS)
def test_nothing_outside_the_message_changes(
    profiles: Profiles, teller: Storyteller, server: RunningServer, kind: str
) -> None:
    profile = profiles.new(server)
    profile.context.add_init_script(GUARD)
    page = profile.open()
    chat = Chat(page)
    texts = ANSWERS[kind]
    for first in range(0, len(texts), TURNS):
        chat.new()
        # By then all that a conversation may have is there.
        for number, text in enumerate((*PLAIN, *texts[first : first + TURNS]), 1):
            hold = Hold()
            parts = cut(text, number)
            middle = len(parts) // 2 + 1
            question = f"{kind} {first} {number}"
            teller.tell(question, *parts[:middle], hold, *parts[middle:], f"\n\n{END}")
            what = f"{question}: {text[:200]!r}"
            chat.ask(question)
            expect(chat.answers).to_have_count(number)
            if number == len(PLAIN):
                chat.sees(PLAIN[-1][:8])
                while_it_runs = outside(page)
            elif number > len(PLAIN):
                settled(page, while_it_runs, f"in the middle of {what}")
            hold.set()
            chat.sees_the_end()
            chat.sees(END)
            if number == len(PLAIN):
                expect(page.locator("section.running")).to_be_hidden()  # soon after its end
                after_it = outside(page)
            elif number > len(PLAIN):
                settled(page, after_it, what)
                assert overflow_when_narrow(page) is None, what
            profile.watch.check()
        page.reload()
        expect(chat.answers).to_have_count(number)
        chat.sees(END)
        settled(page, after_it, f"after a reload, {kind} from {first} on")
        assert overflow_when_narrow(page) is None, what
    assert page.evaluate("window.pwned") is None
