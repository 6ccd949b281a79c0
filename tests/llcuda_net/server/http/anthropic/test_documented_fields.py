"""The tables of Anthropic's API in docs/api-anthropic.md say what the code does.

`python -m tests.llcuda_net.server.http.anthropic.test_documented_fields` writes them anew.
"""

from __future__ import annotations

import msgspec
import pytest

from llcuda_net.config.users import ANONYMOUS
from llcuda_net.server.http.anthropic.blocks import MEMBERS
from llcuda_net.server.http.anthropic.body import LOW_BUDGET, MEDIUM_BUDGET
from llcuda_net.server.http.anthropic.errors import anthropic_error
from llcuda_net.server.http.anthropic.fields import (
    BLOCKS,
    RULES,
    SAMPLING,
    SUPPORTED,
)
from llcuda_net.server.http.errors import CODES, HttpError
from llcuda_net.server.http.request import Headers, HttpRequest
from tests.support.documented import DOCUMENTS, fields_of, lines_of, rows, write


def _errors() -> list[str]:
    """One line per status and type, with the codes that have them."""
    request = HttpRequest("POST", "/", {}, Headers(), b"", ANONYMOUS, "req")
    found: dict[tuple[int, str], list[str]] = {}
    for status, _, code in CODES.values():
        answer = anthropic_error(HttpError(status, "", code=code), request)
        type_ = msgspec.json.decode(answer.body)["error"]["type"]
        found.setdefault((answer.status, type_), []).append(f"`{code}`")
    return rows((str(status), f"`{t}`", ", ".join(c)) for (status, t), c in sorted(found.items()))


def tables() -> dict[str, list[str]]:
    """Each table by the comment above it, as lines of Markdown."""
    return {
        "messages": [
            "| field | | |",
            "|---|---|---|",
            *rows(fields_of(SUPPORTED, SAMPLING, RULES)),
        ],
        "blocks": [
            "| block | |",
            "|---|---|",
            *rows((f"`{name}`", note) for name, note in BLOCKS.items()),
        ],
        "anthropic errors": [
            "| status | `type` | `details.error_code` |",
            "|---|---|---|",
            *_errors(),
        ],
    }


@pytest.mark.parametrize("name", tables())
def test_the_table_is_as_the_code(name: str) -> None:
    assert lines_of(name) == tables()[name]


def test_every_kind_of_block_is_in_it() -> None:
    assert list(BLOCKS) == list(MEMBERS)


def test_budgets_are_those_of_the_code() -> None:
    text = (DOCUMENTS / "api-anthropic.md").read_text(encoding="utf-8")
    assert f"up to {LOW_BUDGET} is `low`, up to {MEDIUM_BUDGET} `medium`" in " ".join(text.split())


if __name__ == "__main__":
    write(tables())
