"""Pages are self-contained and escape everything."""

from __future__ import annotations

import re
from html.parser import HTMLParser

from llcuda_net.bench.report import document, page, plots
from llcuda_net.bench.report.cells import estimate, grid, interval, server
from llcuda_net.bench.report.page import Section
from llcuda_net.bench.report.plots import Axis, Series


class Links(HTMLParser):
    """Every address that a browser would load, and whether tags are closed."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in ("script", "link", "img", "iframe")
        self.loaded += [
            str(value)
            for name, value in attrs
            if name in ("src", "href", "xlink:href") and not str(value).startswith("#")
        ]
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_a_page_loads_nothing_and_escapes_everything() -> None:
    nasty = '<script>alert("x")</script>'
    found = document.begin(nasty, [nasty], 1, {nasty: nasty})
    found["problems"] = [nasty]
    found["cautions"] = [nasty]
    chart = plots.chart(
        nasty, [Series(nasty, [(1.0, 1.0)])], Axis(nasty), Axis(nasty), caption=nasty
    )
    sections = [Section(nasty, nasty, [chart, None], [([nasty], [[f"1 ({nasty})"]])])]
    text = page.page(nasty, found, [(nasty, nasty, nasty)], sections)
    links = Links()
    links.feed(text)
    assert links.loaded == []
    assert links.open == []
    assert not re.search(r"url\((?!#)", text)  # but for what is in the drawing itself
    assert "@import" not in text
    assert "INVALID" in text
    assert "<svg" in text


def test_a_section_without_anything_is_left_out() -> None:
    found = document.begin("t", [], 1, {})
    text = page.page("t", found, [], [Section("gone", "x", [None]), Section("there", alone=True)])
    assert "gone" not in text
    assert "<h2>there</h2>" in text


def test_figures_are_written_as_far_as_they_are_known() -> None:
    assert estimate(None) == "-"
    assert estimate({"value": 2.0, "low": None, "high": None}, " ms") == "2.00 ms"
    assert estimate({"value": 2.0, "low": 1.0, "high": 3.0}) == "2.00 (1.00 to 3.00)"
    assert interval({"value": 2.0, "low": 1.0, "high": 3.0}) == "1.00 to 3.00"
    assert list(grid(["a", "bb"], [["ccc", "1"]])) == ["a    bb", "ccc   1"]
    assert list(grid([], [[], []])) == []  # nothing is known
    about = {"version": "v", "model": "m", "slots": 4}
    assert server(about) == "v, m, 4 slots"
    assert server({**about, "slots": None}) == "v, m"
