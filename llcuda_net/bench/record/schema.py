"""Whether a document is as `schema.json` says (JSON Schema 2020-12)."""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from typing import Any

import jsonschema_rs

#: What documents name as their schema, and the schema as its own identifier.
ID = "urn:llcuda:record:2"
#: Lines about one document.
_MOST = 20
_WIDTH = 200


@cache
def schema() -> dict[str, Any]:
    """The schema, as it is published."""
    text = (resources.files(__package__) / "schema.json").read_text("utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


@cache
def _validator() -> jsonschema_rs.Draft202012Validator:
    return jsonschema_rs.Draft202012Validator(schema())


def faults(document: Any) -> list[str]:
    """Where a document is not as the schema says: one line each, the first ones."""
    found = []
    for error in _validator().iter_errors(document):
        where = "/".join(map(str, error.instance_path)) or "the document"
        text = " ".join(error.message.split())
        if len(text) > _WIDTH:  # it quotes the whole value
            text = f"…{text[-_WIDTH:]}"
        found.append(f"{where}: {text}")
        if len(found) == _MOST:
            break
    return found
