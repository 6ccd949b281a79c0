"""Tables of a document that are made of the code, between marks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from llcuda_net.server.http.openai.fields import FieldRules

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


def fields_of(
    supported: Mapping[str, str], sampling: Iterable[str], rules: FieldRules
) -> list[tuple[str, ...]]:
    """The rows of a table of all fields of a body.

    Args:
        supported: those that are followed, with what is to know of each.
        sampling: those that go to llama-server as they are.
        rules: of the others.
    """
    found: list[tuple[str, ...]] = [
        (f"`{name}`", "supported", note) for name, note in supported.items()
    ]
    own = ", ".join(f"`{name}`" for name in sampling)
    found.append((own, "supported", "as of llama-server's `/completion`"))
    found += [(f"`{name}`", "ignored", note) for name, note in rules.ignored.items()]
    for name, values in rules.neutral.items():
        shown = ", ".join(dict.fromkeys(_value(v) for v in values if not isinstance(v, float)))
        what = f"ignored where {shown}, else refused" if shown else "refused"
        found.append((f"`{name}`", what, rules.instead.get(name, "")))
    found += [
        (f"`{name}`", "refused", note)
        for name, note in rules.instead.items()
        if name not in rules.neutral
    ]
    found.append(("any other", "refused", "the message names the nearest one"))
    return found


def _value(value: object) -> str:
    words = {True: "true", False: "false"} if isinstance(value, bool) else {}
    shown = words.get(value, str(value).replace("'", '"')) if words else str(value)  # type: ignore[call-overload]
    return f"`{shown}`".replace("'", '"')


def _begin(name: str) -> str:
    return f"<!-- table: {name} -->"
