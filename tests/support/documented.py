"""Tables of a document that are made of the code, between marks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

CLIENTS = Path(__file__).parents[2] / "docs" / "clients.md"
_END = "<!-- end of table -->"


def rows(cells: Iterable[tuple[str, ...]]) -> list[str]:
    """The lines of a table."""
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in cells]


def lines_of(name: str, document: Path = CLIENTS) -> list[str]:
    """The lines of a table in a document."""
    _, found, rest = document.read_text(encoding="utf-8").partition(_begin(name))
    assert found, f"{document.name} has no table {name}"
    return rest.partition(_END)[0].strip().splitlines()


def write(tables: Mapping[str, list[str]], document: Path = CLIENTS) -> None:
    """Put tables into a document, where their marks are."""
    text = document.read_text(encoding="utf-8")
    for name, lines in tables.items():
        begin = _begin(name)
        before, found, rest = text.partition(begin)
        assert found, f"{document.name} has no table {name}"
        after = rest.partition(_END)[2]
        text = before + "\n".join([begin, "", *lines, "", _END]) + after
    document.write_text(text, encoding="utf-8")


def _begin(name: str) -> str:
    return f"<!-- table: {name} -->"
