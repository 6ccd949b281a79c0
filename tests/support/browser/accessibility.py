"""axe-core on a page."""

from __future__ import annotations

from functools import cache
from typing import Any

from playwright.sync_api import Page

from tools.install_browser import axe

_RUN = """
async () => {
  const found = await axe.run(document, {resultTypes: ["violations"]});
  return found.violations.map((one) => [
    one.impact, one.id, one.help,
    one.nodes.map((node) => `${node.target.join(" ")}: ${node.failureSummary}`),
  ]);
}
"""


def violations(page: Page) -> list[str]:
    """What axe-core finds wrong with a page as it is now, a line each with the elements below."""
    if not page.evaluate("typeof axe !== 'undefined'"):
        page.evaluate(f"{_script()}; undefined")
    found: list[Any] = page.evaluate(_RUN)
    return [
        "\n  ".join([f"{impact} {name}: {help_}", *(node.replace("\n", " ") for node in nodes)])
        for impact, name, help_, nodes in found
    ]


_script = cache(axe)
