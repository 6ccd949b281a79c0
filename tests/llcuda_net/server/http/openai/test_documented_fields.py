"""The tables of docs/clients.md say what the code does with each field.

`python -m tests.llcuda_net.server.http.openai.test_documented_fields` writes them anew.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from llcuda_net.server.http.completions import body as completions
from llcuda_net.server.http.errors import CODES
from llcuda_net.server.http.openai.chat import OPTIONS
from llcuda_net.server.http.openai.chat_body import SAMPLING
from llcuda_net.server.http.openai.embeddings import EmbeddingsBody
from llcuda_net.server.http.openai.fields import IGNORED, INSTEAD, NEUTRAL, SUPPORTED

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


def tables() -> dict[str, list[str]]:
    """Each table by the comment above it, as lines of Markdown."""
    chat = [(f"`{name}`", "supported", note) for name, note in SUPPORTED.items()]
    own = ", ".join(f"`{name}`" for name in SAMPLING)
    chat.append((own, "supported", "as of llama-server's `/completion`"))
    chat += [(f"`{name}`", "ignored", note) for name, note in IGNORED.items()]
    for name, values in NEUTRAL.items():
        shown = ", ".join(dict.fromkeys(_value(v) for v in values if not isinstance(v, float)))
        what = f"ignored where {shown}, else refused" if shown else "refused"
        chat.append((f"`{name}`", what, INSTEAD.get(name, "")))
    chat += [
        (f"`{name}`", "refused", note) for name, note in INSTEAD.items() if name not in NEUTRAL
    ]
    chat.append(("any other", "refused", "the message names the nearest one"))
    texts = [(f"`{name}`", "supported", note) for name, note in completions.SUPPORTED.items()]
    own = ", ".join(f"`{name}`" for name in completions.OWN)
    texts.append((own, "supported", "as of llama-server's `/completion`"))
    texts.append(("any other", "as of a chat", ""))
    assert list(_EMBEDDINGS) == list(EmbeddingsBody.__struct_fields__)
    return {
        "chat": ["| field | | |", "|---|---|---|", *_rows(chat)],
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
