"""Pages are self-contained, their charts well-formed, and what is drawn is where it should be."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from llcuda_net.bench.report import document, page, plots
from llcuda_net.bench.report.cells import estimate, grid, number
from llcuda_net.bench.report.plots import Axis, Mark, Series

SVG = "{http://www.w3.org/2000/svg}"


def drawing(text: str) -> ElementTree.Element:
    (found,) = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    return ElementTree.fromstring(found)


@pytest.mark.parametrize("scale", ["linear", "log", "nines"])
def test_points_lie_in_order_inside_the_drawing(scale: str) -> None:
    points = [(0.1, 1.0), (0.5, 10.0), (0.99, 100.0)]
    text = plots.chart("t", [Series("s", points, "both")], Axis("x", scale), Axis("y", "log"))
    circles = drawing(text).findall(f"{SVG}circle")
    places = [(float(c.attrib["cx"]), float(c.attrib["cy"])) for c in circles]
    assert len(places) == 3
    assert [x for x, _ in places] == sorted(x for x, _ in places)
    assert [y for _, y in places] == sorted((y for _, y in places), reverse=True)
    for x, y in places:
        assert 0 <= x <= plots.WIDTH
        assert 0 <= y <= plots.HEIGHT


def test_equal_steps_of_a_scale_are_equally_far_apart() -> None:
    for scale, xs in (("log", [1, 10, 100]), ("nines", [0.9, 0.99, 0.999]), ("linear", [1, 2, 3])):
        series = [Series("s", [(x, 1.0) for x in xs], "dots")]
        circles = drawing(plots.chart("t", series, Axis("x", scale), Axis("y"))).iter(
            f"{SVG}circle"
        )
        a, b, c = (float(circle.attrib["cx"]) for circle in circles)
        assert b - a == pytest.approx(c - b, abs=0.2)


def test_intervals_and_marks_are_drawn() -> None:
    series = Series("s", [(1.0, 5.0), (2.0, 6.0)], "both", 0, [(4.0, 6.0), None])
    text = plots.chart("t", [series], Axis("x"), Axis("y"), [Mark(1.5, "knee")])
    paths = [path.attrib["class"] for path in drawing(text).iter(f"{SVG}path")]
    assert sum("whisker" in name for name in paths) == 1
    assert "mark" in paths
    assert "knee" in text


def test_nothing_to_draw_is_nothing() -> None:
    assert plots.chart("t", [Series("s", [])], Axis("x"), Axis("y")) == ""
    assert plots.bars("t", [("a", 0.0)], "ms") == ""
    assert page.section("head") == ""


def test_one_point_can_be_drawn() -> None:
    for scale in ("linear", "log"):
        axis = Axis("x", scale)
        drawing(plots.chart("t", [Series("s", [(3.0, 3.0)], "both")], axis, Axis("y", scale)))


def test_bars_have_the_widths_of_their_values() -> None:
    found = drawing(plots.bars("t", [("a", 1.0), ("b", 3.0)], "ms"))
    widths = [float(rect.attrib["width"]) for rect in found.iter(f"{SVG}rect")]
    assert widths == pytest.approx([plots.WIDTH / 4, plots.WIDTH * 3 / 4])


def test_thinning_keeps_both_ends() -> None:
    points = [(float(i), 0.0) for i in range(10_000)]
    found = plots.thin(points, 100)
    assert (len(found), found[0], found[-1]) == (100, points[0], points[-1])


class Links(HTMLParser):
    """Every address that a browser would load, and whether tags are closed."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in ("script", "link", "img", "iframe")
        self.loaded += [str(value) for name, value in attrs if name in ("src", "href")]
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
    text = page.page(
        nasty,
        found,
        [page.section(nasty, chart, page.table([nasty], [[nasty]]), text=nasty),
         page.cards([(nasty, nasty, nasty)])],
    )  # fmt: skip
    links = Links()
    links.feed(text)
    assert links.loaded == []
    assert links.open == []
    assert "url(" not in text
    assert "@import" not in text
    assert "INVALID" in text


def test_figures_are_written_as_far_as_they_are_known() -> None:
    assert number(1234.5) == "1,234"
    assert number(0.012345) == "0.0123"
    assert estimate(None) == "-"
    assert estimate({"value": 2.0, "low": None, "high": None}, " ms") == "2.00 ms"
    assert estimate({"value": 2.0, "low": 1.0, "high": 3.0}) == "2.00 (1.00 to 3.00)"
    assert list(grid(["a", "bb"], [["ccc", "1"]])) == ["a    bb", "ccc   1"]
