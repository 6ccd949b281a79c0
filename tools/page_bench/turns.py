"""A long conversation: how soon it is open, and how smoothly it scrolls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from playwright.sync_api import Browser, Page

from tools.overhead.stats import spread
from tools.page_bench import frames, texts
from tools.page_bench.rig import CERTAINTY, Rig, opened, profile, rig

#: Tokens of an answer.
TOKENS = 250
#: Pixels of a turn of the wheel, and milliseconds between two.
WHEEL, PAUSE = 600, 30
#: Turns of the wheel, at most.
_MOST_WHEELS = 4000


def measure(
    browser: Browser, *, turns: int, repeats: int, say: Callable[[str], None]
) -> dict[str, Any]:
    """Times to open it, and frames while it is scrolled up to its first turn."""
    with rig(texts.prose(TOKENS), rate=0, slots=1) as found:
        conversation = filled(found, turns, say)
        address = f"{found.url}/#/c/{conversation}"
        opening = []
        for repeat in range(repeats):
            say(f"{turns} turns: opened {repeat} of {repeats} times")
            with profile(browser) as context:
                opening.append(_open(opened(context, address), turns))
        say(f"{turns} turns: scrolling up")
        with profile(browser, [frames.SCRIPT]) as context:
            page = opened(context, address)
            _open(page, turns)
            with frames.watching(page) as seen:
                wheels = _scroll_up(page)
            shown = page.get_by_text(_question(0), exact=True).count()
            elements = page.evaluate("document.querySelectorAll('*').length")
    time = spread(opening)
    return {
        "turns": turns,
        "tokens_per_turn": TOKENS,
        "repeats": repeats,
        "open_ms": None if time is None else time.as_dict(),
        "scrolling": seen.figures(),
        "wheels": wheels,
        "reached_the_first_turn": shown > 0,
        "elements": elements,
    }


def filled(rig: Rig, turns: int, say: Callable[[str], None]) -> str:
    """A conversation of so many turns."""
    conversation = rig.conversation()
    for turn in range(turns):
        if turn % 20 == 0:
            say(f"{turns} turns: {turn} asked")
        rig.respond(_question(turn), TOKENS, conversation=conversation, **CERTAINTY)
    return conversation


def _question(turn: int) -> str:
    return f"This is question number {turn}."


def _open(page: Page, turns: int) -> float:
    """Milliseconds from the navigation until the last answer is on the screen."""
    page.get_by_text(_question(turns - 1), exact=True).last.wait_for()
    page.locator(".blocks").last.wait_for()
    found: float = page.evaluate(
        "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
    )
    return round(found, 1)


def _scroll_up(page: Page) -> int:
    """Turn the wheel until nothing moves any more; how often."""
    page.mouse.move(800, 300)
    still = wheels = 0
    while still < 20 and wheels < _MOST_WHEELS:
        page.mouse.wheel(0, -WHEEL)
        page.wait_for_timeout(PAUSE)
        wheels += 1
        top = page.evaluate(_TOP)
        still = still + 1 if top == 0 else 0
    return wheels


#: How far that is scrolled which the mouse is over.
_TOP = """() => {
  let one = document.elementFromPoint(800, 300);
  const scrolls = () => /auto|scroll/.test(getComputedStyle(one).overflowY);
  while (one && !(one.scrollHeight > one.clientHeight && scrolls())) one = one.parentElement;
  return one ? one.scrollTop : 0;
}"""
