"""CSV that strict readers take, and that spreadsheets do not run."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llcuda_net.util.csv_lines import Cell, csv_line, harmless_cell
from llcuda_net.util.terminal import harmless

CELLS = st.lists(st.text(st.characters(exclude_categories=["Cs"])) | st.none(), min_size=1)


def strict_records(text: str) -> list[list[str | None]]:
    """RFC 4180 to the letter, any line break ending a record; a cell without quotes may be none."""
    records: list[list[str | None]] = [[]]
    at = 0
    while at < len(text):
        if text[at] == '"':
            cell = ""
            at += 1
            while text[at] != '"' or text[at + 1 : at + 2] == '"':
                cell += text[at]
                at += 2 if text[at] == '"' else 1
            records[-1].append(cell)
            at += 1
        else:
            end = at
            while text[end] not in ",\r\n":
                assert text[end] not in '"\0', "a quote or a NUL outside quotes"
                end += 1
            records[-1].append(text[at:end] or None)
            at = end
        assert text[at] in ",\n", f"{text[at]!r} after a cell"
        if text[at] == "\n":
            records.append([])
        at += 1
    assert records.pop() == []
    return records


@given(st.lists(CELLS, min_size=1))
@example([["a\rb", "\r", None, ""], ["\0", "\n\r\n", '"', ","]])
@example([[" a", "a\t", "\x0b\x85\u2028", "\ufeff"]])
def test_raw_cells_come_back_as_they_were(rows: list[list[str | None]]) -> None:
    text = "".join(csv_line(row, raw=True) for row in rows)
    assert strict_records(text) == rows
    # A line without anything has no cell, to Python's reader.
    read = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    assert read == [[cell or "" for cell in row] if row != [None] else [] for row in rows]


@given(CELLS)
def test_harmless_cells_come_back_too(cells: list[str | None]) -> None:
    (read,) = strict_records(csv_line(cells))
    expected = [None if cell is None else harmless_cell(cell) for cell in cells]
    assert read == expected
    assert all(
        cell is old is None or (cell is not None and cell.removeprefix("'") == harmless(old or ""))
        for cell, old in zip(read, cells, strict=True)
        if not (old or "").startswith("'")
    )


@pytest.mark.parametrize(
    "begin",
    ["=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20", "\ufe66"],
)
@pytest.mark.parametrize("before", ["", " ", "\u00a0", "\0", "\ufeff", "\u200b", "\x1b"])
def test_what_a_spreadsheet_would_run_is_made_harmless(before: str, begin: str) -> None:
    text = f"{before}{begin}cmd|' /C calc'!A0"
    if not before or begin not in "\t\r\n":
        assert harmless_cell(text) == f"'{harmless(text)}"
    assert strict_records(csv_line([text], raw=True)) == [[text]]


def test_other_cells_stay_as_they_are() -> None:
    cells: list[Cell] = ["a=b", "'quoted'", "1-2", "", None, -1, 2.5, -1e-9, True, "日本", "x@y"]
    assert csv_line(cells) == "a=b,'quoted',1-2,\"\",,-1,2.5,-1e-09,true,日本,x@y\n"
