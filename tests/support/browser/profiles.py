"""Chromium, and profiles in it: each with cookies and storage of its own, and watched."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

from playwright.sync_api import Browser, Page, ViewportSize, expect, sync_playwright

from tests.support.browser.watch import Watch
from tests.support.processes import PATIENCE, RunningServer
from tools.install_browser import browser

Scheme = Literal["light", "dark"]

DESKTOP: ViewportSize = {"width": 1280, "height": 800}
PHONE: ViewportSize = {"width": 390, "height": 844}
NARROW: ViewportSize = {"width": 320, "height": 640}
#: Milliseconds: a bound for hangs, not a measurement. Who writes a test may want to wait less.
_PATIENCE = float(os.environ.get("LLCUDA_TEST_PATIENCE", PATIENCE)) * 1000


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser that nobody sees, until the block ends."""
    options = ["--no-sandbox"] if os.geteuid() == 0 else []
    expect.set_options(timeout=_PATIENCE)
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=browser(), args=options)
        try:
            yield found
        finally:
            found.close()


class Profile:
    """A profile of a browser, of one person.

    Attributes:
        origin: of the server.
        watch: of all its pages.
    """

    def __init__(self, stack: ExitStack, chromium: Browser, address: str, **options: Any) -> None:
        self.origin = f"http://{address}"
        self.context = chromium.new_context(base_url=self.origin, **options)
        stack.callback(self.context.close)
        self.context.set_default_timeout(_PATIENCE)
        self.watch = Watch(self.context, self.origin)

    def open(self, path: str = "/") -> Page:
        """A new tab."""
        page = self.context.new_page()
        page.goto(path)
        return page


class Profiles:
    """Makes profiles; what went wrong in one of them is told at the end."""

    def __init__(self, chromium: Browser) -> None:
        self._chromium = chromium
        self._stack = ExitStack()
        self._made: list[Profile] = []

    def new(
        self,
        server: RunningServer,
        size: ViewportSize = DESKTOP,
        scheme: Scheme = "light",
        **options: Any,
    ) -> Profile:
        """A profile with nothing in it."""
        if size["width"] < 600:
            options = {"has_touch": True, "is_mobile": True, **options}
        options = {"locale": "en-GB", "viewport": size, "color_scheme": scheme, **options}
        profile = Profile(self._stack, self._chromium, server.address, **options)
        self._made.append(profile)
        return profile

    def close(self) -> None:
        """Close all."""
        self._stack.close()

    def check(self) -> None:
        """Fails where something went wrong in one."""
        for profile in self._made:
            profile.watch.check()
