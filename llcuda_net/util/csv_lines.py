"""Lines of CSV, for programs that are strict and for spreadsheets that run what they read.

Cells are quoted as in RFC 4180, and more often than it asks: each text that holds a quote, a comma,
a NUL or a line break of any kind (Python's own writer leaves out the bare carriage return), that
begins or ends with a space, or that is empty: so only what is missing is an empty cell without
quotes. Numbers are as they are.

A spreadsheet takes a cell that begins with = + - @ for a formula, and runs it: it may start
programs, and send other cells elsewhere. So such a text, of others' writing, gets an apostrophe in
front of it, as OWASP advises, unless the caller wants it raw. CSV is also looked at with `less` and
`cut`: control characters are visible escapes, with the same exception.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from llcuda_net.util.terminal import harmless

#: What may be in a cell; None leaves it empty.
Cell = str | int | float | bool | None

_QUOTED = re.compile('[",\r\n\x0b\x0c\x1c-\x1e\x85\u2028\u2029\x00]|^\\s|\\s$|^$')
#: What a spreadsheet may skip before the character that it looks at.
_SKIPPED = re.compile("[\\s\x00-\x1f\x7f-\x9f\xad\u200b-\u200f\u2060-\u2064\ufeff]*")
#: These begin a formula; full-width and small forms are the same to some.
_FORMULA = frozenset("=+-@")


def csv_line(cells: Iterable[Cell], *, raw: bool = False) -> str:
    """A line, ended by a newline.

    Args:
        raw: leave texts that a spreadsheet or a terminal would run as they are.
    """
    return ",".join(_cell(cell, raw) for cell in cells) + "\n"


def harmless_cell(text: str) -> str:
    """The text: what a terminal obeys is visible escapes, a formula has an apostrophe before it."""
    if not text:
        return text
    shown = harmless(text)
    at = _SKIPPED.match(text)
    first = text[at.end() : at.end() + 1] if at else ""
    if text[0] in "\t\r\n" or unicodedata.normalize("NFKC", first)[:1] in _FORMULA:
        return "'" + shown
    return shown


def _cell(cell: Cell, raw: bool) -> str:
    if cell is None:
        return ""
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if not isinstance(cell, str):
        return str(cell)
    text = cell if raw else harmless_cell(cell)
    return '"' + text.replace('"', '""') + '"' if _QUOTED.search(text) else text
