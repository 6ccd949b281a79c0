"""The page's modules without a server: a test imports what it tests, and calls it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Route

FOLDER = Path(__file__).resolve().parents[3] / "llcuda_net/page"
#: Runs the body of an async function of `given`, and returns what that returns.
Run = Callable[[str, Any], Any]


@contextmanager
def modules(browser: Browser, under: str = "js/chat") -> Iterator[Run]:
    """A page of its own, until the block ends.

    Args:
        under: the folder of the modules that `load` imports by their names.
    """
    context = browser.new_context(locale="en-GB")
    context.route("**/*", _serve)
    page = context.new_page()
    page.goto("http://127.0.0.1:9/")

    def run(body: str, given: Any = None) -> Any:
        load = f"const load = (name) => import(`/page/{under}/${{name}}.js`);"
        return page.evaluate(f"async (given) => {{ {load} {body} }}", given)

    try:
        yield run
    finally:
        context.close()


def _serve(route: Route) -> None:
    path = route.request.url.partition("/page/")[2]
    if path:
        route.fulfill(body=(FOLDER / path).read_bytes(), content_type="text/javascript")
    else:
        route.fulfill(body="<!doctype html>", content_type="text/html")
