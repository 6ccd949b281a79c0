"""The tables of docs/http-api.md have the fields that the bodies have."""

from __future__ import annotations

import re

import pytest

from llcuda_net.server.http.llama.rerank import RerankBody
from llcuda_net.server.http.llama.tokens import TokenizeBody
from tests.support.documented import lines_of


@pytest.mark.parametrize(("name", "body"), [("tokenize", TokenizeBody), ("rerank", RerankBody)])
def test_the_table_has_the_fields_of_the_body(name: str, body: type) -> None:
    table = "\n".join(lines_of(name))
    assert re.findall(r"^\| `(\w+)` \|", table, re.M) == list(body.__struct_fields__)  # type: ignore[attr-defined]
