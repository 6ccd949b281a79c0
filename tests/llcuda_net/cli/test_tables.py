"""Text for terminals: no control characters, and no wider than the terminal."""

from __future__ import annotations

import pytest

from llcuda_net.cli import tables
from llcuda_net.cli.tables import fit, table, width
from llcuda_net.util.terminal import harmless, one_line


def test_cells_are_harmless_and_fit() -> None:
    assert harmless("a\x1b[1m\tb\nc\x9b\u202e") == "a\\x1b[1m\tb\nc\\u009b\\u202e"
    assert one_line("a\r\nb\tc\x00") == "a  b c\\x00"
    assert (width("日本e\u0301"), width("abc")) == (5, 3)
    assert (fit("日本語", 6), fit("日本語", 5), fit("abc", 2)) == ("日本語", "日本…", "a…")


def test_columns_are_aligned_whatever_the_width_of_characters(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = [("日本", "1", "short"), ("abc", "1,200", "a longer cell"), ("e\u0301", "", "x")]
    assert [*table(("name", "n", "text"), rows, right=frozenset({1}))] == [
        "name      n  text",
        "日本      1  short",
        "abc   1,200  a longer cell",
        "e\u0301            x",
    ]
    monkeypatch.setattr(tables, "columns", lambda: 16)
    assert [*table(("name", "n", "text"), rows, right=frozenset({1}))][2] == "abc   1,200  a …"


def test_later_rows_are_fitted_to_the_columns_of_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "_FIRST", 1)
    assert [*table(("a", "b"), [("12", "x"), ("1234", "y")])] == ["a   b", "12  x", "1…  y"]
