"""Schemas that cannot be kept are refused; answers are held to the whole schema."""

from __future__ import annotations

from typing import Any

import pytest

from llcuda_net.upstream.constraints.checks import as_sent
from llcuda_net.upstream.constraints.json_schema import SchemaError, broken_by, check

UNIQUE = {"type": "array", "items": {"type": "integer"}, "uniqueItems": True}


@pytest.mark.parametrize(
    "schema",
    [
        {},
        UNIQUE,  # what the engine does not know is checked in the answer
        {"oneOf": [{"type": "integer"}, {"type": "string"}]},
        {"not": {"type": "string"}},
        {"if": {"type": "string"}, "then": {"maxLength": 2}},
        {"type": "string", "format": "password"},
        {"type": "number", "minimum": 5, "multipleOf": 0.5},
        {"type": "object", "properties": {"a": {"$ref": "#"}}},
        {"$ref": "#/$defs/a", "$defs": {"a": {"type": "integer"}}},
        {"$schema": "http://json-schema.org/draft-07/schema#", "items": [{"type": "integer"}]},
        {"x-guidance": {"whitespace_flexible": False}, "type": "integer"},
    ],
)
def test_schemas_that_can_be_kept(schema: dict[str, Any]) -> None:
    check(as_sent(schema))


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ({"type": "strin"}, r"wrong at \['type'\]"),
        ({"$ref": "#/definitions/nope"}, "/definitions/nope"),
        ({"$ref": "http://127.0.0.1:9/x.json"}, "only into the schema itself"),
        ({"$ref": "file:///etc/passwd"}, "only into the schema itself"),
        ({"$schema": "http://example.invalid/x"}, "meta-schema"),
        ({"$ref": "#"}, "no answer is of it"),
        ({"enum": []}, "cannot be compiled"),
        ({"type": "array", "minItems": 3, "maxItems": 2}, "cannot be compiled"),
        ({"allOf": [{"type": "integer"}, {"type": "string"}]}, "cannot be compiled"),
        ({"type": "string", "pattern": "^(?=a)a"}, "look-around and back-references"),
        ({"type": "string", "pattern": "(a*)\\1"}, "look-around and back-references"),
        ({"type": "string", "pattern": "("}, "pattern"),
        ({"x-guidance": {"nope": 1}}, "unknown field"),
    ],
)
def test_schemas_that_cannot_be_kept(schema: dict[str, Any], why: str) -> None:
    with pytest.raises(SchemaError, match=why):
        check(as_sent(schema))


@pytest.mark.parametrize(
    ("schema", "text", "why"),
    [
        (UNIQUE, "[1, 2]\n", None),
        (UNIQUE, "[1, 1]", "non-unique"),
        (UNIQUE, '[1, "a"]', r"at \[1\]: the value is not of type"),
        (UNIQUE, "97. In this case", "not JSON"),
        (UNIQUE, "[1", "not JSON"),
        (UNIQUE, "", "not JSON"),
        ({"type": "number"}, "NaN", "no number of JSON"),
        ({"type": "number", "minimum": 5}, "[1E+2017292]", "number that is too large"),
        ({"type": "array"}, "[" * 100_000, "nested too deeply"),
        ({"type": "integer", "multipleOf": 7}, "97482850484311801606642900000", "not a multiple"),
        ({"type": "string", "format": "date"}, '"2026-02-31"', "date"),
        ({"type": "string", "format": "password"}, '"x"', None),
        ({"type": "string", "pattern": "^(a+)+$"}, '"' + "a" * 60 + 'b"', "does not match"),
        ({"not": {"type": "string"}}, '"a"', "is not allowed"),
        ({}, '{"a": 1}', None),
    ],
)
def test_an_answer_is_held_to_the_whole_schema(
    schema: dict[str, Any], text: str, why: str | None
) -> None:
    found = broken_by(schema, text, cut=False)
    if why is None:
        assert found is None
    else:
        with pytest.raises(AssertionError, match=why):
            raise AssertionError(found)


def test_an_answer_is_not_quoted() -> None:
    found = broken_by(
        {"type": "object", "properties": {"a": {"const": 5}}}, '{"a": 123454321}', cut=False
    )
    assert found is not None
    assert "123454321" not in found


@pytest.mark.parametrize(
    ("schema", "text", "begins"),
    [
        (UNIQUE, "", True),
        (UNIQUE, "[1, 2", True),
        (UNIQUE, "97.", False),
        (UNIQUE, "{", False),
        ({"type": ["integer", "null"]}, "nu", True),
        ({"type": "integer"}, "12.5", True),
        ({"type": "number"}, "97.\n\nIn this case", False),
        ({"anyOf": []}, "tru", True),
        ({}, "hello", False),
        # What nothing but space can follow is a whole answer, wherever it was cut.
        (UNIQUE, "[1, 1]", False),
        (UNIQUE, "[1, 2]", True),
        ({"type": "integer", "minimum": 5}, "1", True),
        ({"type": "integer", "minimum": 5}, "1 ", False),
        ({"type": "number"}, "1E+2017292", True),
    ],
)
def test_what_was_cut_begins_a_document(schema: dict[str, Any], text: str, begins: bool) -> None:
    assert (broken_by(schema, text, cut=True) is None) is begins
