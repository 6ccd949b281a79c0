"""What the tabs of one profile cost the server, beside plain readers of the same answers.

In turns: answers that nobody reads, answers each with a reader of its event stream, and answers
each with a tab. What the first ones cost is the answers' own; what the others cost beyond that is
reading. CPU is that of the server's process and its children, by their own clocks.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from playwright.sync_api import Browser, Page

from tools.overhead.stats import spread
from tools.page_bench import texts
from tools.page_bench.readers import readers
from tools.page_bench.rig import CERTAINTY, BenchError, Rig, opened, profile, rig

#: Ways to read, in the order of the first repeat.
WAYS = ("nobody", "readers", "tabs")
#: Tokens of an answer: more than it can get.
_ENDLESS = 7500

Answers = list[tuple[str, str]]
#: Begins the answers, and gives their conversations and responses; and waits so many seconds.
Begin = Callable[[], Answers]
Wait = Callable[[float], None]


@contextmanager
def _nobody(rig: Rig, browser: Browser, count: int, begin: Begin) -> Iterator[Wait]:
    begin()
    yield time.sleep


@contextmanager
def _readers(rig: Rig, browser: Browser, count: int, begin: Begin) -> Iterator[Wait]:
    ids = [response.removeprefix("resp_") for _, response in begin()]
    paths = [f"/v1/generations/{id_}/events" for id_ in ids]
    with readers(rig.server.address, paths) as found:
        yield found.read


@contextmanager
def _tabs(rig: Rig, browser: Browser, count: int, begin: Begin) -> Iterator[Wait]:
    # Small ones: the server is measured, and to paint so many takes more than two cores have.
    with profile(browser, size=(480, 360)) as context:
        pages = [opened(context, rig.url) for _ in range(count)]
        answers = begin()
        for page, (conversation, _) in zip(pages, answers, strict=True):
            page.evaluate("(hash) => { location.hash = hash }", f"#/c/{conversation}")
        for page in pages:
            page.locator(".blocks", has_text="journal").last.wait_for()
        sizes = [_characters(page) for page in pages]
        # Playwright must be asked, or its own events pile up.
        yield lambda seconds: pages[0].wait_for_timeout(1000 * seconds)
        for page, size, (_, response) in zip(pages, sizes, answers, strict=True):
            if rig.ask("GET", f"/v1/responses/{response}")["status"] != "in_progress":
                raise BenchError("an answer ended while it was measured: use fewer tabs")
            if _characters(page) <= size:
                raise BenchError(f"the tab of {response} stands still")


def _characters(page: Page) -> int:
    return len(page.locator(".blocks").last.inner_text())


_READING = {"nobody": _nobody, "readers": _readers, "tabs": _tabs}


def measure(
    browser: Browser,
    *,
    tabs: int,
    rate: float,
    seconds: float,
    warmup: float,
    repeats: int,
    certainty: bool,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """CPU per token of each way, and the ratio of tabs to readers, repeat by repeat.

    Args:
        certainty: the answers are asked with log-probabilities, as the page does by default.
    """
    asked = CERTAINTY if certainty else {}
    runs: list[dict[str, Any]] = []
    with rig(texts.prose(2000), rate=rate, slots=tabs) as found:
        for repeat in range(-1, repeats):  # the first one warms up
            first = repeat % len(WAYS)
            for way in (*WAYS[first:], *WAYS[:first]):
                say(f"tabs: {way}, repeat {repeat + 1} of {repeats}")
                figures = _run(found, browser, way, tabs, seconds, warmup, asked)
                if repeat >= 0:
                    runs.append({"way": way, "repeat": repeat, **figures})
    by = {way: [run for run in runs if run["way"] == way] for way in WAYS}

    def ratio(over: str, under: str, less: str | None = None) -> Any:
        values = []
        for number in range(repeats):
            a, b = by[over][number]["us_per_token"], by[under][number]["us_per_token"]
            base = by[less][number]["us_per_token"] if less else 0.0
            values.append((a - base) / (b - base))
        of = spread(values)
        return None if of is None else of.as_dict()

    return {
        "certainty": certainty,
        "tabs": tabs,
        "rate": rate,
        "seconds": seconds,
        "warmup": warmup,
        "repeats": repeats,
        "runs": runs,
        "us_per_token": {
            way: of.as_dict()
            for way in WAYS
            if (of := spread(run["us_per_token"] for run in by[way]))
        },
        "tabs_to_readers": ratio("tabs", "readers"),
        "tabs_to_readers_of_reading_alone": ratio("tabs", "readers", "nobody"),
    }


def _run(
    rig: Rig,
    browser: Browser,
    way: str,
    count: int,
    seconds: float,
    warmup: float,
    asked: dict[str, Any],
) -> dict[str, Any]:
    answers: Answers = []

    def begin() -> Answers:
        answers.extend(rig.begin(f"Question {one}", _ENDLESS, **asked) for one in range(count))
        return answers

    try:
        with _READING[way](rig, browser, count, begin) as wait:
            wait(warmup)
            began, before, made = time.monotonic(), rig.usage(), rig.tokens()
            wait(seconds)
            after, now_made, lasted = rig.usage(), rig.tokens(), time.monotonic() - began
    finally:
        for _, response in answers:
            rig.stop(response)
    tokens = now_made - made
    return {
        "tokens": tokens,
        "tokens_per_s": round(tokens / lasted, 1),
        "us_per_token": round((after.cpu - before.cpu) / tokens * 1e6, 2),
        "main_us_per_token": round((after.main_cpu - before.main_cpu) / tokens * 1e6, 2),
        "wakeups_per_token": round(after.wakeups(before) / tokens, 3),
    }
