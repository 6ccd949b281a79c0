"""How large a JSON schema may be, before anything native reads it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

#: The greatest count in a JSON schema, which llama.cpp writes out as so many rules.
MAX_SCHEMA_COUNT = 10_000
#: Levels of a JSON schema: what reads it does so recursively, and gives up soon after.
MAX_SCHEMA_DEPTH = 100
#: The greatest of which every llama-server can make a grammar for a tool: some refuse 2,000.
MAX_TOOL_COUNT = 1_999
_SCHEMA_COUNTS = ("minItems", "maxItems", "minLength", "maxLength")
#: Members of a schema whose own members are names, and those that are no schemas but values.
_NAMED = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_VALUES = ("const", "enum", "default", "examples")


def schema_fault(value: Any, *, counts: bool = True) -> str | None:
    """Why a value cannot be a JSON schema of use; None where it may be one.

    Args:
        counts: those above MAX_SCHEMA_COUNT are faults.
    """
    if type(value) is not dict:
        return "must be a JSON object"
    if _depth(value) > MAX_SCHEMA_DEPTH:
        return f"must be at most {MAX_SCHEMA_DEPTH} levels deep"
    if not counts:
        return None
    for name, count in _members(value):
        if name in _SCHEMA_COUNTS and type(count) in (int, float) and count > MAX_SCHEMA_COUNT:
            return f"must have {name} of at most {MAX_SCHEMA_COUNT}"
    return None


def without_large_counts(schema: Any) -> Any:
    """A copy of a schema without the counts above MAX_TOOL_COUNT: it allows more."""
    if type(schema) is list:
        return [without_large_counts(one) for one in schema]
    if type(schema) is not dict:
        return schema
    found = {}
    for name, value in schema.items():
        if name in _SCHEMA_COUNTS and type(value) in (int, float) and value > MAX_TOOL_COUNT:
            continue
        if name in _NAMED and type(value) is dict:
            found[name] = {key: without_large_counts(one) for key, one in value.items()}
        else:
            found[name] = value if name in _VALUES else without_large_counts(value)
    return found


def _depth(value: Any) -> int:
    """How many levels of a JSON value there are, and at most one more than may be."""
    level, depth = [value], 0
    while level and depth <= MAX_SCHEMA_DEPTH:
        depth += 1
        level = [
            inner
            for outer in level
            if type(outer) in (dict, list)
            for inner in (outer.values() if type(outer) is dict else outer)
        ]
    return depth


def _members(value: Any) -> Iterator[tuple[str, Any]]:
    """Every member of the objects in a JSON value, at any depth."""
    rest = [value]
    while rest:
        found = rest.pop()
        if type(found) is dict:
            yield from found.items()
            rest += found.values()
        elif type(found) is list:
            rest += found
