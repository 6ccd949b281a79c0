"""Figures for people have no exponent, and the digits that they say."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llcuda_net.util.numbers import plain, probability, three_digits

PACKAGE = Path(__file__).resolve().parents[3] / "llcuda_net"
#: Where figures of measurements and jobs are written.
WRITERS = ("bench", "batch", "cli/bench", "cli/batch", "util/numbers.py")


@pytest.mark.parametrize(
    ("value", "text", "short"),
    [
        (0, "0.00", "0"),
        (0.00001234, "0.0000123", "0.00001234"),
        (0.5, "0.500", "0.5"),
        (9.999, "10.0", "9.999"),
        (99.96, "100", "99.96"),
        (999.4, "999", "999.4"),
        (999.6, "1,000", "999.6"),
        (-999.6, "-1,000", "-999.6"),
        (1234.5, "1,234", "1234.5"),
        (1e7, "10,000,000", "10000000"),
        (-1e-20, "0.00", "0"),
        (float("nan"), "nan", "nan"),
    ],
)
def test_figures(value: float, text: str, short: str) -> None:
    assert three_digits(value) == text
    assert plain(value) == short


@given(st.floats(-1e12, 1e12))
def test_there_is_never_an_exponent(value: float) -> None:
    for text in (three_digits(value), plain(value), plain(value, 2)):
        assert re.fullmatch(r"-?[\d,]+(\.\d+)?", text)
        assert float(text.replace(",", "")) == pytest.approx(value, rel=0.06, abs=1e-11)


def test_probabilities() -> None:
    assert probability(0.0321) == "0.032"
    assert probability(3e-9) == "< 0.0001"


def exponents(source: str) -> Iterator[str]:
    """The formats of a module that may write an exponent."""
    tree = ast.parse(source)
    read = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "float"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.FormattedValue) and node.format_spec and id(node) not in read:
            spec = ast.unparse(node.format_spec)
            yield from [f"{node.lineno}: {spec}"] * bool(re.search(r"[eEgG]['\"]$", spec))
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from (
                f"{node.lineno}: {f}" for f in re.findall(r"\{[^{}]*:[^{}]*[gGeE]\}", node.value)
            )


def test_no_report_writes_an_exponent() -> None:
    found = []
    for name in WRITERS:
        path = PACKAGE / name
        for file in [path] if path.is_file() else sorted(path.rglob("*.py")):
            found += [f"{file}:{each}" for each in exponents(file.read_text("utf-8"))]
    assert found == []


def test_the_search_finds_them() -> None:
    assert len(list(exponents("f'{x:.3g} ms'; '{:g}'.format(x); f'{x:>{n}.4g}'"))) == 3
    assert list(exponents("float(f'{x:.3g}'); f'{x:.1f}'; '{name}'")) == []
