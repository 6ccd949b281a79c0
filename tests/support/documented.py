"""Tables of the documents that are made of the code, between marks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from llcuda_net.server.http.openai.fields import FieldRules

DOCUMENTS = Path(__file__).parents[2] / "docs"
_END = "<!-- end of table -->"


def rows(cells: Iterable[tuple[str, ...]]) -> list[str]:
    """The lines of a table."""
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in cells]


def lines_of(name: str) -> list[str]:
    """The lines of a table, in the document that has it."""
    rest = _document(name).read_text(encoding="utf-8").partition(_begin(name))[2]
    return rest.partition(_END)[0].strip().splitlines()


def write(tables: Mapping[str, list[str]]) -> None:
    """Put tables into the documents, where their marks are."""
    for name, lines in tables.items():
        document, begin = _document(name), _begin(name)
        before, _, rest = document.read_text(encoding="utf-8").partition(begin)
        after = rest.partition(_END)[2]
        text = before + "\n".join([begin, "", *lines, "", _END]) + after
        document.write_text(text, encoding="utf-8")


def _document(name: str) -> Path:
    """The one with a table of this name."""
    pages = sorted(DOCUMENTS.glob("*.md"))
    found = [page for page in pages if _begin(name) in page.read_text(encoding="utf-8")]
    assert len(found) == 1, f"the table {name} is in {len(found)} documents"
    return found[0]


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
