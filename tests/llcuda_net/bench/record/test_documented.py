"""The schema is published, and the page that describes it is made of it.

`python -m tests.llcuda_net.bench.record.test_documented` writes both.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema_rs

from llcuda_net.bench.record import schema
from tests.support.documented import DOCUMENTS

PAGE = DOCUMENTS / "benchmarks" / "record.md"
PUBLISHED = DOCUMENTS / "benchmarks" / "record.schema.json"
_BEGIN, _END = "<!-- made of the schema -->", "<!-- end of what is made of the schema -->"
#: What the tables of the three measurements are called.
_THEIRS = "What `{}` adds"


def test_the_schema_is_one_and_is_published() -> None:
    jsonschema_rs.meta.validate(schema.schema())
    assert schema.schema()["$id"] == schema.ID
    assert PUBLISHED.read_bytes() == _source().read_bytes()


def test_every_member_is_described() -> None:
    for name, properties in _tables():
        for member, one in properties.items():
            assert described(one), f"{member} of {name}"


def test_the_page_is_what_the_schema_says() -> None:
    text = PAGE.read_text("utf-8")
    made = text.partition(_BEGIN)[2].partition(_END)[0].strip()
    assert made == "\n".join(page()).strip(), "run python -m " + __name__


def described(one: dict[str, Any]) -> str:
    """What a member is; that of the definition where it has no words of its own."""
    if "description" in one:
        return str(one["description"])
    if "$ref" in one:
        return described(_definition(one["$ref"]))
    return ""


def page() -> Iterator[str]:
    """The lines of the page between its marks."""
    for name, properties in _tables():
        yield from (f"### {name}", "", "| member | type | what it is |", "|---|---|---|")
        for member, one in properties.items():
            told = described(one).replace("|", "\\|")
            yield f"| `{member}` | {kind(one)} | {told} |"
        yield ""


def _tables() -> Iterator[tuple[str, dict[str, Any]]]:
    """Each object of the schema: its name, and its members."""
    whole = schema.schema()
    yield "The document", whole["properties"]
    yield from _inner(whole["properties"])
    for branch in whole["allOf"]:
        name = branch["if"]["properties"]["measurement"]["const"]
        properties = branch["then"]["properties"]
        yield _THEIRS.format(name), properties
        yield from _inner(properties)
    for name, one in whole["$defs"].items():
        if properties := _members(one):
            yield f"`{name}`", properties
            yield from _inner(properties)


def _inner(properties: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Objects that have no name of their own, after their parent."""
    for name, one in properties.items():
        if members := _members(one):
            yield f"`{name}`", members
            yield from _inner(members)


def _members(one: dict[str, Any]) -> dict[str, Any]:
    for each in (one, *one.get("anyOf", ()), one.get("items", {})):
        if isinstance(each, dict) and "properties" in each:
            found: dict[str, Any] = each["properties"]
            return found
    return {}


def kind(one: dict[str, Any]) -> str:
    """A member's type in words."""
    if "$ref" in one:
        return f"`{one['$ref'].rpartition('/')[2]}`"
    if "const" in one:
        return f"`{one['const']}`"
    if "enum" in one:
        return ", ".join(f"`{each}`" for each in one["enum"])
    if "anyOf" in one:
        return " or ".join(kind(each) for each in one["anyOf"])
    types = one["type"] if isinstance(one["type"], list) else [one["type"]]
    if types == ["array"]:
        return f"list of {kind(one['items'])}" if one["items"] else "list"
    if types == ["object"] and isinstance(one.get("additionalProperties"), dict):
        return f"map of {kind(one['additionalProperties'])}"
    return " or ".join(types)


def _definition(name: str) -> dict[str, Any]:
    found: dict[str, Any] = schema.schema()["$defs"][name.rpartition("/")[2]]
    return found


def _source() -> Path:
    with resources.as_file(resources.files(schema.__name__.rpartition(".")[0])) as folder:
        return folder / "schema.json"


if __name__ == "__main__":
    PUBLISHED.write_bytes(_source().read_bytes())
    before, _, rest = PAGE.read_text("utf-8").partition(_BEGIN)
    after = rest.partition(_END)[2]
    PAGE.write_text("\n".join([f"{before}{_BEGIN}", "", *page(), _END]) + after, "utf-8")
