"""The tables of docs/clients.md say what the code does with each field.

`python -m tests.llcuda_net.server.http.openai.test_documented_fields` writes them anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

from llcuda_net.server.http.completions import body as completions
from llcuda_net.server.http.errors import CODES
from llcuda_net.server.http.openai.chat import OPTIONS
from llcuda_net.server.http.openai.chat_body import SAMPLING
from llcuda_net.server.http.openai.embeddings import EmbeddingsBody
from llcuda_net.server.http.openai.fields import CHAT, SUPPORTED, FieldRules
from llcuda_net.server.http.responses import body as response_body
from llcuda_net.server.http.responses import fields as responses

DOCUMENT = Path(__file__).parents[5] / "docs" / "clients.md"
_EMBEDDINGS = {
    "input": "a text, a list of texts, token ids, or a list of lists of token ids; at most 2048",
    "model": "as of a chat",
    "encoding_format": "float or base64 (float32, little-endian)",
    "dimensions": "those that the model has; others are refused",
}


def _rows(cells: Iterable[tuple[str, ...]]) -> list[str]:
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in cells]


def _value(value: object) -> str:
    words = {True: "true", False: "false"} if isinstance(value, bool) else {}
    shown = words.get(value, str(value).replace("'", '"')) if words else str(value)  # type: ignore[call-overload]
    return f"`{shown}`".replace("'", '"')


def _fields(
    supported: Mapping[str, str], sampling: Iterable[str], rules: FieldRules
) -> list[tuple[str, ...]]:
    """The rows of a table of all fields of a body."""
    rows: list[tuple[str, ...]] = [
        (f"`{name}`", "supported", note) for name, note in supported.items()
    ]
    own = ", ".join(f"`{name}`" for name in sampling)
    rows.append((own, "supported", "as of llama-server's `/completion`"))
    rows += [(f"`{name}`", "ignored", note) for name, note in rules.ignored.items()]
    for name, values in rules.neutral.items():
        shown = ", ".join(dict.fromkeys(_value(v) for v in values if not isinstance(v, float)))
        what = f"ignored where {shown}, else refused" if shown else "refused"
        rows.append((f"`{name}`", what, rules.instead.get(name, "")))
    rows += [
        (f"`{name}`", "refused", note)
        for name, note in rules.instead.items()
        if name not in rules.neutral
    ]
    rows.append(("any other", "refused", "the message names the nearest one"))
    return rows


def tables() -> dict[str, list[str]]:
    """Each table by the comment above it, as lines of Markdown."""
    chat = _fields(SUPPORTED, SAMPLING, CHAT)
    items = _fields(responses.SUPPORTED, response_body.OWN, responses.RULES)
    texts = [(f"`{name}`", "supported", note) for name, note in completions.SUPPORTED.items()]
    own = ", ".join(f"`{name}`" for name in completions.OWN)
    texts.append((own, "supported", "as of llama-server's `/completion`"))
    texts.append(("any other", "as of a chat", ""))
    assert list(_EMBEDDINGS) == list(EmbeddingsBody.__struct_fields__)
    return {
        "chat": ["| field | | |", "|---|---|---|", *_rows(chat)],
        "responses": ["| field | | |", "|---|---|---|", *_rows(items)],
        "completions": ["| field | | |", "|---|---|---|", *_rows(texts)],
        "embeddings": [
            "| field | |",
            "|---|---|",
            *_rows((f"`{name}`", note) for name, note in _EMBEDDINGS.items()),
        ],
        "headers": [
            "| header | |",
            "|---|---|",
            *_rows((f"`{name}`", note) for name, note in OPTIONS.items()),
        ],
        "errors": [
            "| our code | status | `type` | `code` |",
            "|---|---|---|---|",
            *_rows((f"`{k}`", str(s), f"`{t}`", f"`{c}`") for k, (s, t, c) in CODES.items()),
        ],
    }


def _marks(name: str) -> tuple[str, str]:
    return f"<!-- table: {name} -->", "<!-- end of table -->"


@pytest.mark.parametrize("name", tables())
def test_the_table_is_as_the_code(name: str) -> None:
    begin, end = _marks(name)
    _, found, rest = DOCUMENT.read_text(encoding="utf-8").partition(begin)
    assert found, f"docs/clients.md has no table {name}"
    assert rest.partition(end)[0].strip().splitlines() == tables()[name]


def write() -> None:
    """Put the tables into the document."""
    text = DOCUMENT.read_text(encoding="utf-8")
    for name, lines in tables().items():
        begin, end = _marks(name)
        before, _, rest = text.partition(begin)
        after = rest.partition(end)[2]
        text = before + "\n".join([begin, "", *lines, "", end]) + after
    DOCUMENT.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write()
