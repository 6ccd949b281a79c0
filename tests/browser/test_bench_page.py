"""The page of a measurement, as a browser shows it: on a screen, on a phone, light and dark."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, ViewportSize

from llcuda_net.bench.report import latency_page, throughput_page
from llcuda_net.bench.report.parts.overlay import overlay
from llcuda_net.bench.statistics import compare
from tests.support import bench_documents
from tests.support.browser.profiles import PHONE

SCREEN: ViewportSize = {"width": 1200, "height": 900}
#: Pixels: the least that text in a chart may measure from its ascenders to its descenders.
_READABLE = 9.0

_SHAPE = """() => ({
  over: document.documentElement.scrollWidth - document.documentElement.clientWidth,
  wide: [...document.querySelectorAll("main *")]
    .filter((e) => !e.closest("svg") && !e.closest(".scroll > *"))
    .filter((e) => e.getBoundingClientRect().right > innerWidth + 0.5)
    .map((e) => e.tagName + " " + e.className),
  charts: [...document.querySelectorAll("svg")].map((svg) => ({
    name: svg.getAttribute("aria-label"),
    width: svg.getBoundingClientRect().width,
    height: svg.getBoundingClientRect().height,
    drawn: [...svg.querySelectorAll("path, use")].filter((e) => {
      const box = e.getBoundingClientRect();
      const style = getComputedStyle(e);
      const seen = [style.stroke, style.fill].some((colour) => colour !== "none");
      return seen && box.width + box.height > 0;
    }).length,
    outside: [...svg.querySelectorAll("text")].filter((e) => {
      const box = e.getBoundingClientRect(), own = svg.getBoundingClientRect();
      return box.left < own.left - 1 || box.right > own.right + 1;
    }).map((e) => e.textContent),
    text: Math.min(...[...svg.querySelectorAll("text")]
      .map((e) => e.getBoundingClientRect()).map((box) => Math.max(box.height, 0)).filter(Boolean)),
  })),
  tables: [...document.querySelectorAll("table")].filter((e) => !e.closest(".scroll")).length,
})"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A page of each kind, with everything that it may have."""
    folder = tmp_path_factory.mktemp("pages")
    old, new = bench_documents.throughput(rounds=3), bench_documents.throughput(2, rounds=3)
    old["problems"] = ["the client could not keep up: " + "a long line without an end, " * 8]
    changes = compare.compare(old["repetitions"], new["repetitions"])
    told = {"obstacles": ["x" * 90], "changes": [change.as_dict() for change in changes]}
    made = {
        "throughput": throughput_page.page(old),
        "latency": latency_page.page(bench_documents.latency()),
        "overlay": overlay([old, new], ["a-rather-long-name-of-a-file.json", "b.json"], [told]),
    }
    for name, text in made.items():
        (folder / f"{name}.html").write_text(text, "utf-8")
    return {name: folder / f"{name}.html" for name in made}


@pytest.mark.parametrize("kind", ["throughput", "latency", "overlay"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [SCREEN, PHONE], ids=["screen", "phone"])
def test_a_page_fits_and_loads_nothing(
    browser: Browser, pages: dict[str, Path], kind: str, scheme: Any, size: ViewportSize
) -> None:
    address = pages[kind].as_uri()
    said: list[str] = []
    asked: list[str] = []
    page = browser.new_page(viewport=size, color_scheme=scheme)
    try:
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address)
        found = page.evaluate(_SHAPE)
    finally:
        page.close()
    assert said == []
    assert asked == [address]
    assert found["over"] <= 0
    assert found["wide"] == []
    assert found["tables"] == 0  # each scrolls in a box of its own
    assert len(found["charts"]) >= 6
    for chart in found["charts"]:
        assert chart["name"], chart
        assert chart["drawn"] >= 8, chart  # lines and dots, beside its axes
        assert chart["width"] >= 300, chart
        assert chart["height"] >= 60, chart
        assert chart["outside"] == [], chart
        assert chart["text"] >= _READABLE, chart
