"""The tables of docs/clients.md have the fields that the bodies have."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from llcuda_net.server.http.llama.rerank import RerankBody
from llcuda_net.server.http.llama.tokens import TokenizeBody

DOCUMENT = Path(__file__).parents[5] / "docs" / "clients.md"


@pytest.mark.parametrize(("name", "body"), [("tokenize", TokenizeBody), ("rerank", RerankBody)])
def test_the_table_has_the_fields_of_the_body(name: str, body: type) -> None:
    _, found, rest = DOCUMENT.read_text(encoding="utf-8").partition(f"<!-- table: {name} -->")
    assert found, f"docs/clients.md has no table {name}"
    table = rest.partition("<!-- end of table -->")[0]
    assert re.findall(r"^\| `(\w+)` \|", table, re.M) == list(body.__struct_fields__)  # type: ignore[attr-defined]
