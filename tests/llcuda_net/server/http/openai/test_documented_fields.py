"""The tables of docs/api-chats.md and api-responses.md say what the code does with each field.

`python -m tests.llcuda_net.server.http.openai.test_documented_fields` writes them anew.
"""

from __future__ import annotations

import pytest

from llcuda_net.server.http.completions import body as completions
from llcuda_net.server.http.errors import CODES
from llcuda_net.server.http.openai.chat import OPTIONS
from llcuda_net.server.http.openai.chat_body import SAMPLING
from llcuda_net.server.http.openai.embeddings import EmbeddingsBody
from llcuda_net.server.http.openai.fields import CHAT, SUPPORTED
from llcuda_net.server.http.responses import body as response_body
from llcuda_net.server.http.responses import fields as responses
from tests.support.documented import fields_of, lines_of, rows, write

_EMBEDDINGS = {
    "input": "a text, a list of texts, token ids, or a list of lists of token ids; at most 2048",
    "model": "as of a chat",
    "encoding_format": "float or base64 (float32, little-endian)",
    "dimensions": "those that the model has; others are refused",
}


def tables() -> dict[str, list[str]]:
    """Each table by the comment above it, as lines of Markdown."""
    chat = fields_of(SUPPORTED, SAMPLING, CHAT)
    items = fields_of(responses.SUPPORTED, response_body.OWN, responses.RULES)
    texts = [(f"`{name}`", "supported", note) for name, note in completions.SUPPORTED.items()]
    own = ", ".join(f"`{name}`" for name in completions.OWN)
    texts.append((own, "supported", "as of llama-server's `/completion`"))
    texts.append(("any other", "as of a chat", ""))
    assert list(_EMBEDDINGS) == list(EmbeddingsBody.__struct_fields__)
    return {
        "chat": ["| field | | |", "|---|---|---|", *rows(chat)],
        "responses": ["| field | | |", "|---|---|---|", *rows(items)],
        "completions": ["| field | | |", "|---|---|---|", *rows(texts)],
        "embeddings": [
            "| field | |",
            "|---|---|",
            *rows((f"`{name}`", note) for name, note in _EMBEDDINGS.items()),
        ],
        "headers": [
            "| header | |",
            "|---|---|",
            *rows((f"`{name}`", note) for name, note in OPTIONS.items()),
        ],
        "errors": [
            "| our code | status | `type` | `code` |",
            "|---|---|---|---|",
            *rows((f"`{k}`", str(s), f"`{t}`", f"`{c}`") for k, (s, t, c) in CODES.items()),
        ],
    }


@pytest.mark.parametrize("name", tables())
def test_the_table_is_as_the_code(name: str) -> None:
    assert lines_of(name) == tables()[name]


if __name__ == "__main__":
    write(tables())
