"""The first paint, and what is transferred for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from playwright.sync_api import Browser, BrowserContext, Page

from tools.overhead.stats import spread
from tools.page_bench import texts
from tools.page_bench.rig import opened, profile, rig

_LOOK = """() => {
  const [navigation] = performance.getEntriesByType("navigation");
  const files = [navigation, ...performance.getEntriesByType("resource")
    .filter((one) => new URL(one.name).pathname.startsWith("/page/"))];
  const paint = performance.getEntriesByName("first-contentful-paint")[0];
  return {
    paint: paint ? paint.startTime : null,
    transferred: files.reduce((sum, one) => sum + one.transferSize, 0),
    decoded: files.reduce((sum, one) => sum + one.decodedBodySize, 0),
    files: files.length,
  };
}"""


def measure(browser: Browser, *, repeats: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Milliseconds until the first paint and until one can write, with and without a cache."""
    cold: list[dict[str, Any]] = []
    warm: list[dict[str, Any]] = []
    with rig(texts.prose(100), rate=50, slots=1) as found:
        for repeat in range(-1, repeats):  # the first one warms up the browser
            say(f"first paint: {repeat + 1} of {repeats}")
            with profile(browser) as context:
                figures = [_load(context, found.url), _load(context, found.url)]
            if repeat >= 0:
                cold.append(figures[0])
                warm.append(figures[1])
    return {"repeats": repeats, "cold": _summary(cold), "warm": _summary(warm)}


def _load(context: BrowserContext, url: str) -> dict[str, Any]:
    page = opened(context, url)
    box = page.get_by_role("textbox", name="Your question")
    box.wait_for()
    ready = _now(page)
    page.wait_for_function("performance.getEntriesByName('first-contentful-paint').length > 0")
    figures: dict[str, Any] = page.evaluate(_LOOK)
    page.close()
    return {**figures, "ready": ready}


def _now(page: Page) -> float:
    found: float = page.evaluate("performance.now()")
    return found


def _summary(loads: list[dict[str, Any]]) -> dict[str, Any]:
    times = {}
    for name in ("paint", "ready"):
        found = spread(one[name] for one in loads)
        times[f"{name}_ms"] = None if found is None else found.as_dict()
    last = loads[-1]
    return {**times, **{name: last[name] for name in ("transferred", "decoded", "files")}}
