"""Charts are well-formed, follow the page's theme, and show what they are given."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from llcuda_net.bench.report import plots
from llcuda_net.bench.report.plots import Axis, Figure, Mark, Series

SVG = "{http://www.w3.org/2000/svg}"


def texts(figure: Figure | None) -> list[str]:
    assert figure is not None
    found = ElementTree.fromstring(figure.svg)
    return ["".join(each.itertext()).strip() for each in found.iter(f"{SVG}text")]


def test_a_chart_has_its_labels_in_the_colours_of_the_page() -> None:
    series = [
        Series("measured", [(1.0, 5.0), (2.0, 6.0)], "both", 0, [(4.0, 6.0), None]),
        Series("law", [(1.0, 5.0), (2.0, 7.0)], "dashed", 1),
        Series("left out", []),
    ]
    figure = plots.chart("t", series, Axis("across"), Axis("up"), [Mark(1.5, "knee")], caption="c")
    found = texts(figure)
    assert {"across", "up", "measured", "law", "knee"} <= set(found)
    assert "left out" not in found
    assert figure is not None
    assert "var(--c0)" in figure.svg
    assert "var(--c1)" in figure.svg
    assert "var(--fg)" in figure.svg
    assert "#2563eb" not in figure.svg
    assert ' id="axes_1"' not in figure.svg  # which the next figure would have, too


def test_scales_have_round_labels() -> None:
    shares = Series("s", [(0.0, 1.0), (0.995, 100.0)])
    found = texts(plots.chart("t", [shares], Axis("x", "nines", 0.0), Axis("y", "log")))
    assert {"p0", "p50", "p90", "p99", "1", "10", "100"} <= set(found)
    assert "p99.9" not in found
    own = Series("s", [(1.0, 1000.0), (4.0, 2000.0)])
    axis = Axis("x", "log", 1.0, 4.0, [1.0, 2.0, 4.0])
    found = texts(plots.chart("t", [own], axis, Axis("y")))
    assert {"1", "2", "4", "2,000"} <= set(found)
    a, b, c = plots.spread_out([0.9, 0.99, 0.999])
    assert b - a == pytest.approx(c - b)


def test_one_point_can_be_drawn_and_none_is_nothing() -> None:
    for scale in ("linear", "log"):
        axis = Axis("x", scale)
        assert plots.chart("t", [Series("s", [(3.0, 3.0)], "both")], axis, Axis("y", scale))
    assert plots.chart("t", [Series("s", [])], Axis("x"), Axis("y")) is None
    assert plots.bars("t", [("a", 0.0)], "ms") is None


def test_bars_name_their_values() -> None:
    found = texts(plots.bars("t", [("queue", 1.0), ("prompt", 3.25)], "ms"))
    assert {"queue", "1.00 ms", "prompt", "3.25 ms"} <= set(found)


def test_thinning_keeps_both_ends() -> None:
    points = [(float(i), 0.0) for i in range(10_000)]
    found = plots.thin(points, 100)
    assert (len(found), found[0], found[-1]) == (100, points[0], points[-1])


def test_the_names_of_all_laws_leave_a_chart_its_width() -> None:
    """A legend that is wider than the chart squeezes it: the last tick was at half of the width."""
    points = [(1.0, 1.0), (4.0, 2.0)]
    names = ("ideal", "measured", "Amdahl", "Gustafson", "universal")
    series = [Series(name, points, "dashed", i) for i, name in enumerate(names)]
    across = Axis("ranks", "linear", 1.0, 4.0, [1.0, 4.0])
    figure = plots.chart("Speedup", series, across, Axis("y"))
    assert figure is not None
    svg = ElementTree.fromstring(figure.svg)
    width = float(svg.attrib["viewBox"].split()[2])
    places = {}
    for text in svg.iter(f"{SVG}text"):
        moved = re.search(r"translate\(([\d.]+)", text.get("transform", ""))
        at = moved[1] if moved else text.get("x", "nan")
        places["".join(text.itertext()).strip()] = float(at)
    assert places["4"] > 0.9 * width, places
    assert places["universal"] < 0.9 * width
