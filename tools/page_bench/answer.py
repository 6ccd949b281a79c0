"""A long answer while it streams: how smooth the tab stays that shows it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from playwright.sync_api import Browser

from tools.page_bench import frames, texts
from tools.page_bench.rig import CERTAINTY, Rig, opened, profile, rig

#: Parts of the answer that have figures of their own: it may become slower as it grows.
PARTS = 4
TEXTS = {"prose": texts.prose, "code": texts.code}


def measure(
    browser: Browser, kind: str, *, tokens: int, rate: float, say: Callable[[str], None]
) -> dict[str, Any]:
    """Frames of each part of an answer of so many tokens, and the server's CPU per token."""
    with (
        rig(TEXTS[kind](tokens), rate=rate, slots=1) as found,
        profile(browser, [frames.SCRIPT]) as context,
    ):
        conversation, _ = found.begin("Write much", tokens, **CERTAINTY)
        page = opened(context, f"{found.url}/#/c/{conversation}")
        page.locator(".blocks").wait_for()
        whole, parts = frames.Frames(), []
        for number in range(PARTS):
            say(f"an answer of {tokens:,} tokens, {kind}: part {number + 1} of {PARTS}")
            before, made = found.usage(), found.tokens()
            end = tokens * (number + 1) // PARTS
            with frames.watching(page) as seen:
                _until(found, page, end)
            whole.gaps += seen.gaps
            whole.tasks += seen.tasks
            whole.cpu_ms += seen.cpu_ms
            cpu, so_far = found.usage().cpu - before.cpu, found.tokens() - made
            us = round(cpu / max(1, so_far) * 1e6, 1)
            parts.append({**seen.figures(), "server_us_per_token": us})
        length = len(page.locator(".blocks").inner_text())
        elements = page.evaluate("document.querySelectorAll('*').length")
    return {
        "kind": kind,
        "tokens": tokens,
        "rate": rate,
        **whole.figures(),
        "parts": parts,
        "characters_shown": length,
        "elements": elements,
    }


def _until(rig: Rig, page: Any, tokens: int) -> None:
    while rig.tokens() < tokens:
        page.wait_for_timeout(250)
