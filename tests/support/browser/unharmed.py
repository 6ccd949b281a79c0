"""Whether anything of a page but an answer's own element is another one than before."""

from __future__ import annotations

import difflib
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
  const known = new Set(["class", "role", "hidden", "disabled"]);
  function shape(element, depth = 0) {
    const indent = " ".repeat(depth);
    if (element.matches('[role=group][aria-label="Answer"]')) return `${indent}answer`;
    const named = [...element.attributes].filter(({ name, value }) =>
      known.has(name));
    const attributes = named.map(({ name, value }) => `[${name}=${value}]`).join("");
    const own = `${indent}${element.localName}${attributes}`;
    if (element.hidden) return own;
    const inner = [...element.children].map((child) => shape(child, depth + 1));
    return [own, ...inner.filter((one, at) => one !== inner[at - 1])].join("\\n");
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
    changed = [name for name in before if before[name] != after[name] and name != "shape"]
    lines = [f"{one}: {json.dumps(before[one])} became {json.dumps(after[one])}" for one in changed]
    was, now = (one["shape"].split("\n") for one in (before, after))
    return lines + list(difflib.unified_diff(was, now, lineterm="", n=1))


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
