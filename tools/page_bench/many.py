"""A history of any length: its lists, how smoothly they scroll, how soon a search has found."""

from __future__ import annotations

import time
import urllib.parse
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import trio
from playwright.sync_api import Browser, Page

from llcuda_net.storage.objects import conversations
from llcuda_net.storage.objects.database import Objects
from tools.growth import store
from tools.growth.texts import vocabulary
from tools.overhead.stats import spread
from tools.page_bench import frames, texts
from tools.page_bench.rig import PAGE_PATIENCE, Rig, opened, profile, rig

#: Conversations of one transaction of the filling.
_BATCH = 5000
#: Turns of the wheel while a list is scrolled, its pixels, and milliseconds between two.
_WHEELS, _WHEEL, _PAUSE = 300, 900, 20
#: What is searched: a common word, a rarer one, two, and the beginning of words.
_SEARCHES = ("the", "time", "time other", "ther*")
_LISTS = {"conversations": "Conversations", "answers": "All answers"}


def fill(folder: Path, count: int, say: Callable[[str], None]) -> None:
    """Bring a data directory to so many results and conversations; what is there stays."""
    store.fill(folder, count, 1, say)
    trio.run(_fill_conversations, folder, count, say)


async def _fill_conversations(folder: Path, count: int, say: Callable[[str], None]) -> None:
    objects = Objects(folder)
    await objects.open()
    try:
        words = vocabulary()

        def titles(first: int) -> Iterator[str]:
            for number in range(first, count):
                some = (words[(number * step) % len(words)] for step in (1, 7919, 104_729))
                yield f"{' '.join(some)} {number}"

        there = await objects.read(_counted)
        rest = titles(there)
        while batch := list(islice(rest, _BATCH)):

            def add(db: Any, batch: list[str] = batch) -> None:
                for title in batch:
                    conversations.create(db, "", title=title)

            await objects.write(add)
            there += len(batch)
            say(f"filling: {there:,} of {count:,} conversations")
    finally:
        await objects.aclose()


def _counted(db: Any) -> int:
    found: int = db.execute("SELECT count(*) FROM conversations").get
    return found


def measure(
    browser: Browser, folder: Path, *, count: int, repeats: int, say: Callable[[str], None]
) -> dict[str, Any]:
    """Times over HTTP and in the page, and frames while both lists are scrolled."""
    with rig(texts.prose(100), rate=50, slots=1, data=folder) as found:
        say(f"{count:,} entries: over HTTP")
        over_http = _over_http(found, repeats)
        say(f"{count:,} entries: opening the page")
        with profile(browser, [frames.SCRIPT]) as context:
            page = opened(context, found.url)
            scrolled = {}
            for name, label in _LISTS.items():
                say(f"{count:,} entries: scrolling the {name}")
                page.get_by_role("button", name=label, exact=True).click()
                scrolled[name] = _scroll(page, label)
            say(f"{count:,} entries: searching")
            searched = {words: _search(page, words, repeats) for words in _SEARCHES}
    return {
        "entries": count,
        "repeats": repeats,
        "http_ms": over_http,
        "scrolling": scrolled,
        "search_in_the_page_ms": searched,
    }


def _over_http(rig: Rig, repeats: int) -> dict[str, Any]:
    deep = {name: _deep(rig, path) for name, path in _PATHS.items()}
    asked = {
        **{f"{name}, first page": f"{path}?limit=100" for name, path in _PATHS.items()},
        **{f"{name}, page 50": f"{_PATHS[name]}?limit=100&after={deep[name]}" for name in _PATHS},
        **{f"words: {one}": f"/v1/generations?limit=50&q={_quoted(one)}" for one in _SEARCHES},
        **{
            f"titles: {one}": f"/v1/conversations?limit=20&q={_quoted(one)}"
            for one in ("time", "none")
        },
    }
    out = {}
    for name, path in asked.items():
        times = []
        for _ in range(repeats):
            began = time.perf_counter()
            rig.ask("GET", path)
            times.append(round((time.perf_counter() - began) * 1e3, 2))
        found = spread(times)
        out[name] = None if found is None else found.as_dict()
    return out


_PATHS = {"conversations": "/v1/conversations", "answers": "/v1/generations"}


def _deep(rig: Rig, path: str) -> str:
    """The last entry of the fiftieth page, or of the last one."""
    after = ""
    for _ in range(50):
        found = rig.ask("GET", f"{path}?limit=100{after and f'&after={after}'}")
        after = found["last_id"] or after
        if not found["has_more"]:
            break
    return after


def _quoted(words: str) -> str:
    return urllib.parse.quote(words)


def _scroll(page: Page, label: str) -> dict[str, Any]:
    rows = page.get_by_role("list", name=label)
    rows.locator("li").first.wait_for()
    page.mouse.move(150, 500)
    with frames.watching(page) as seen:
        for _ in range(_WHEELS):
            page.mouse.wheel(0, _WHEEL)
            page.wait_for_timeout(_PAUSE)
    deepest = rows.locator("li").last.get_attribute("aria-posinset")
    return {**seen.figures(), "reached": int(deepest or 0), "rows": rows.locator("li").count()}


def _search(page: Page, words: str, repeats: int) -> Any:
    """From the last key until what was found by words is seen, the wait for more keys included."""
    times = []
    box = page.get_by_role("searchbox")
    for _ in range(repeats):
        began = time.perf_counter()
        box.fill(words)
        page.locator(".results section[aria-label='By words'] li").first.wait_for(
            timeout=PAGE_PATIENCE
        )
        times.append(round((time.perf_counter() - began) * 1e3, 1))
        box.fill("")
        page.locator(".results").wait_for(state="hidden")
    found = spread(times)
    return None if found is None else found.as_dict()
