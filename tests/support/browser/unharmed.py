"""Whether anything of a page but an answer's own element is another one than before."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from playwright.sync_api import Page

from tests.support.browser.profiles import DESKTOP, NARROW

#: A script for each page.
GUARD = Path(__file__).with_name("guard.js").read_text(encoding="utf-8")

#: What is outside of answers: elements with their attributes, and where the fixed parts are. Equal
#: elements side by side, as in a list, count once.
_OUTSIDE = """
() => {
  const known = new Set(["class", "role", "hidden", "disabled", "aria-label"]);
  function shape(element) {
    if (element.matches('[aria-label="Answer"]')) return "answer";
    const named = [...element.attributes].filter(({ name, value }) =>
      known.has(name) && !/\\d/.test(value));
    const own = element.localName + named.map(({ name, value }) => `[${name}=${value}]`).join("");
    const inner = [...element.children].map(shape);
    const kept = inner.filter((one, at) => one !== inner[at - 1]);
    return kept.length ? `${own}(${kept.join(" ")})` : own;
  }
  const place = (selector) => {
    const found = document.querySelector(selector)?.getBoundingClientRect();
    return found ? [found.left, found.width, found.right].map(Math.round) : null;
  };
  return {
    shape: shape(document.documentElement),
    places: ["nav", "main", "form.composer", "header"].map(place),
    title: document.title,
    where: location.pathname,
    globals: Object.getOwnPropertyNames(window).sort().join(" "),
    named: document.querySelectorAll(".blocks [id], .blocks [name]").length,
    sheets: document.styleSheets.length,
    frames: window.length,
    wider: document.scrollingElement.scrollWidth > innerWidth,
    scrolled: [scrollX, document.body.scrollLeft, document.documentElement.scrollLeft],
    background: getComputedStyle(document.body).backgroundColor,
    direction: getComputedStyle(document.body).direction,
  };
}
"""


def outside(page: Page) -> dict[str, Any]:
    """All that an answer must not change, by name."""
    found: dict[str, Any] = page.evaluate(_OUTSIDE)
    return found


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What changed, a line each."""
    return [
        f"{name}: {json.dumps(before[name])} became {json.dumps(after[name])}"
        for name in before
        if before[name] != after[name]
    ]


def overflow_when_narrow(page: Page) -> str | None:
    """What is wider than a small phone; None: nothing is."""
    page.set_viewport_size(NARROW)
    try:
        wide: str | None = page.evaluate(
            """() => document.scrollingElement.scrollWidth > innerWidth
                ? `${document.scrollingElement.scrollWidth} pixels of ${innerWidth}` : null"""
        )
    finally:
        page.set_viewport_size(DESKTOP)
    return wide
