"""The process that checks: what takes too much ends it, and not the server."""

from __future__ import annotations

import time
from typing import Any

import pytest

from llcuda_net.errors import InvalidRequest, UpstreamError
from llcuda_net.upstream.constraints.checks import Checks, OtherProcess, as_sent
from llcuda_net.upstream.constraints.matcher import TooComplexError

#: Each of its 24 steps leads to the next one twice.
EXPLODES: dict[str, Any] = {
    "$ref": "#/$defs/a0",
    "$defs": {
        **{f"a{i}": {"anyOf": [{"$ref": f"#/$defs/a{i + 1}"}] * 2} for i in range(24)},
        "a24": {"type": "string"},
    },
}


async def test_what_takes_too_much_ends_in_an_error_and_the_next_is_answered() -> None:
    checks = Checks()
    with pytest.raises(UpstreamError, match="too complex"):
        await checks.verify({"json_schema": EXPLODES}, "1", cut=False)
    await checks.check({"grammar": 'root ::= "a"'})
    with pytest.raises(InvalidRequest, match=r"^grammar has a repetition \{3,2\}"):
        await checks.check({"grammar": 'root ::= "a"{3,2}'})
    with pytest.raises(InvalidRequest, match=r"^json_schema is wrong"):
        await checks.check({"json_schema": {"type": "strin"}})
    with pytest.raises(UpstreamError, match=r"JSON schema: .*non-unique"):
        schema = {"type": "array", "uniqueItems": True}
        await checks.verify({"json_schema": schema}, "[1, 1]", cut=False)


async def test_what_has_no_constraint_starts_nothing() -> None:
    async def run(*_: object) -> None:
        raise AssertionError

    checks = Checks(run)
    await checks.check({"temperature": 0})
    await checks.verify({}, "anything", cut=False)


@pytest.mark.parametrize(
    ("schema", "sent"),
    [
        ({}, {}),
        ({"a": 1}, {"a": 1, "x-guidance": {"lenient": True}}),
        ({"x-guidance": {"b": 1}}, {"x-guidance": {"b": 1, "lenient": True}}),
        ({"x-guidance": 5}, {"x-guidance": {"lenient": True}}),
    ],
)
def test_what_is_sent(schema: dict[str, Any], sent: dict[str, Any]) -> None:
    before = repr(schema)
    assert as_sent(schema) == sent
    assert repr(schema) == before


async def test_only_what_computes_too_long_is_too_complex() -> None:
    """How long a check takes on a busy machine says nothing of what it checks."""
    process = OtherProcess(seconds=0.2, patience=300)
    assert await process.run(_wait, 0.5) is None
    with pytest.raises(TooComplexError):
        await process.run(_compute)
    assert await process.run(_wait, 0.0) is None


async def test_what_never_ends_is_given_up() -> None:
    process = OtherProcess(patience=0.2)
    with pytest.raises(TooComplexError):
        await process.run(_wait, 1000.0)
    assert await OtherProcess().run(_wait, 0.0) is None


def _wait(seconds: float) -> None:
    time.sleep(seconds)


def _compute() -> None:
    while time.process_time() < 30:
        pass
