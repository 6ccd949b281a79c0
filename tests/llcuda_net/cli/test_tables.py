"""Text for terminals: no control characters, and no wider than the terminal."""

from __future__ import annotations

import pytest

from llcuda_net.cli import tables
from llcuda_net.cli.tables import figures, fit, id_cell, table, width
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
        "NAME      N  TEXT",
        "日本      1  short",
        "abc   1,200  a longer cell",
        "e\u0301            x",
    ]
    monkeypatch.setattr(tables, "columns", lambda _: 16)
    assert [*table(("name", "n", "text"), rows, right=frozenset({1}))][2] == "abc   1,200  a …"


def test_later_rows_are_fitted_to_the_columns_of_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "_FIRST", 1)
    rows = [("12", "x"), ("1234", "y")]
    # A program gets them whole.
    assert [*table(("a", "b"), rows)] == ["A   B", "12  x", "1234  y"]
    monkeypatch.setattr(tables, "columns", lambda _: 40)
    assert [*table(("a", "b"), rows)] == ["A   B", "12  x", "1…  y"]


def test_a_narrow_terminal_takes_from_text_and_leaves_ids_and_numbers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    heads = ("ID", "MODEL", "TOKENS", "PROMPT")
    rows = [("0192f3a4-b5c6", "a model of a long name", "1,200", "a question of many words")]
    monkeypatch.setattr(tables, "columns", lambda _: 50)
    lines = [*table(heads, rows, right=frozenset({2}))]
    assert lines == [
        "ID             MODEL              TOKENS  PROMPT",
        "0192f3a4-b5c6  a model of a lon…   1,200  a quest…",
    ]
    assert max(map(len, lines)) <= 50
    monkeypatch.setattr(tables, "columns", lambda _: 200)
    assert [*table(heads, rows)][1].endswith("a question of many words")


def test_an_id_is_whole_for_a_program_and_where_there_is_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = "01a22df1-5844-7036-bab3-b5c198766daa"
    assert id_cell(whole) == whole
    for room, shown in ((80, "01a22df1-5844-7036"), (120, whole)):
        monkeypatch.setattr(tables, "columns", lambda room=room: room)
        assert id_cell(whole) == shown


def test_figures_that_do_not_fit_beside_each_other_stand_below(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    heads = ["ms", "mean", "p50 (95 % interval)", "p99"]
    rows = [["TTFT", "12.3", "11.9 (11.2 to 12.8)", "40"], ["TPOT", "1", "-", "2"]]
    assert [*figures(heads, rows)] == [
        "ms    mean  p50 (95 % interval)  p99",
        "TTFT  12.3  11.9 (11.2 to 12.8)   40",
        "TPOT     1                    -    2",
    ]
    monkeypatch.setattr(tables, "columns", lambda _: 32)
    assert [*figures(heads, rows)] == [
        "ms    mean  p50 (95 % interval)",
        "TTFT  12.3  11.9 (11.2 to 12.8)",
        "TPOT     1                    -",
        "",
        "ms    p99",
        "TTFT   40",
        "TPOT    2",
    ]
    assert [*figures([], [])] == []
