"""A constraint is kept or refused, whatever the upstream makes of it: here it ignores all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llcuda_net.upstream.interface import TOOL_CALL, Channel, Properties
from llcuda_protocol import Done, Error, ErrorCode, Generate, Tokens
from tests.support.server.durable_server import keeping, stored
from tests.support.server.memory_server import CREDIT, FakeUpstream, ask, ready, serving

UNIQUE = {"type": "array", "items": {"type": "integer"}, "uniqueItems": True}
LETTERS = 'root ::= "a" (" " [a-z])*'


@pytest.mark.parametrize(
    ("answer", "params", "what"),
    [
        ("free text", {"json_schema": UNIQUE}, "JSON schema: it is not JSON"),
        ("[1, 1]", {"json_schema": UNIQUE}, "non-unique"),
        ("A b", {"grammar": LETTERS}, "grammar: it has something"),
        ("a b c", {"grammar": LETTERS + ' "!"'}, "grammar: it ends too early"),
        # Cut by the limit, and yet free text.
        ("97. In this case", {"json_schema": {"type": "number"}, "n_predict": 3}, "begin"),
        ("A b c d", {"grammar": LETTERS, "n_predict": 2}, "grammar: it has something"),
    ],
)
async def test_an_answer_that_breaks_its_constraint_ends_with_an_error(
    tmp_path: Path, answer: str, params: dict[str, Any], what: str
) -> None:
    async with keeping(tmp_path, FakeUpstream()) as (_, listener):
        peer = await ready(listener)
        await peer.send(ask(answer, params=params))
        pieces: list[str] = []
        while not isinstance(event := await peer.next(), Done | Error):
            pieces += event.pieces if isinstance(event, Tokens) else []
        assert isinstance(event, Error)
        error = event
        assert (error.code, error.retry) == (ErrorCode.UPSTREAM_ERROR, False)
        assert what in error.message
    (result,) = stored(tmp_path)
    assert (result.state, result.log.pieces) == ("failed", pieces)
    assert pieces
    assert answer.startswith("".join(pieces))
    assert result.error is not None
    assert result.error["message"] == error.message


@pytest.mark.parametrize(
    ("answer", "params", "reason"),
    [
        ("[1, 2]", {"json_schema": UNIQUE}, "stop"),
        ("[1, 2, 3]", {"json_schema": UNIQUE, "n_predict": 2}, "length"),
        ("a b c", {"grammar": LETTERS}, "stop"),
        ("a b c !", {"grammar": LETTERS + ' " !"', "n_predict": 3}, "length"),
    ],
)
async def test_an_answer_that_keeps_it_is_done(
    autojump_clock: object, answer: str, params: dict[str, Any], reason: str
) -> None:
    async with serving(FakeUpstream()) as (_, listener):
        peer = await ready(listener)
        await peer.send(ask(answer, params=params))
        _, done = await peer.until(Done)
        assert done.reason == reason


@pytest.mark.parametrize(
    "params",
    [
        {"json_schema": {"$ref": "#/definitions/nope"}},
        {"json_schema": {"type": "strin"}},
        {"json_schema": {"$ref": "http://127.0.0.1:9/x"}},
        {"grammar": ""},
        {"grammar": 'root ::= "a"{3,2}'},
        {"grammar": 'root ::= "a"\0'},
        {"grammar": "%llguidance {}\nstart: /a/"},
    ],
)
async def test_what_cannot_be_kept_reaches_no_upstream(
    autojump_clock: object, params: dict[str, Any]
) -> None:
    upstream = FakeUpstream()
    async with serving(upstream) as (_, listener):
        peer = await ready(listener)
        await peer.send(ask("a b", params=params))
        pieces, error = await peer.until(Error)
        assert (pieces, error.code, error.retry) == ([], ErrorCode.INVALID_REQUEST, False)
        assert error.message.startswith(next(iter(params)))
        # Its slot is free again.
        await peer.send(ask("a b", 2))
        await peer.until(Done, 2)
    assert len(upstream.calls) == 1


async def test_the_engine_is_told_to_leave_out_what_it_does_not_know(
    autojump_clock: object,
) -> None:
    upstream = FakeUpstream()
    async with serving(upstream) as (_, listener):
        peer = await ready(listener)
        await peer.send(ask("[1]", params={"json_schema": UNIQUE}))
        await peer.until(Done)
    assert upstream.calls[0]["json_schema"] == {**UNIQUE, "x-guidance": {"lenient": True}}


@pytest.mark.parametrize(
    ("arguments", "strict", "fails"),
    [('{"z": 1}', True, False), ('{"z": 2}', True, True), ('{"z": 2}', False, False)],
)
async def test_the_calls_of_a_strict_tool_keep_its_schema(
    tmp_path: Path, arguments: str, strict: bool, fails: bool
) -> None:
    schema = {"type": "object", "properties": {"z": {"const": 1}}}
    function = {"name": "now", "parameters": schema, "strict": strict}
    tools = [{"type": "function", "function": function}]
    upstream = FakeUpstream()
    call = Channel(TOOL_CALL, 0, "a", "now")
    upstream.answer = [("Well: ", None), (arguments[:3], call), (arguments[3:], call)]
    hello = [{"role": "user", "content": "Hello"}]
    async with keeping(tmp_path, upstream) as (_, listener):
        peer = await ready(listener)
        await peer.send(Generate(1, CREDIT, messages=hello, chat={"tools": tools}, channels=True))
        while not isinstance(event := await peer.next(), Done | Error):
            pass
    assert isinstance(event, Error) == fails
    if isinstance(event, Error):
        assert event.code == ErrorCode.UPSTREAM_ERROR
        assert "the call of the tool 'now' does not keep its schema" in event.message


TOOL = {"type": "function", "function": {"name": "now"}}
HELLO = [{"role": "user", "content": "Hello"}]


@pytest.mark.parametrize("choice", ["required", "auto"])
async def test_a_call_that_was_wanted_and_does_not_come_is_an_error(
    tmp_path: Path, choice: str
) -> None:
    upstream = FakeUpstream()
    upstream.answer = [("It is ", None), ("noon.", None)]
    chat = {"tools": [TOOL], "tool_choice": choice}
    async with keeping(tmp_path, upstream) as (_, listener):
        peer = await ready(listener)
        await peer.send(Generate(1, CREDIT, messages=HELLO, chat=chat))
        _, event = await peer.until(Done if choice == "auto" else Error)
    if isinstance(event, Error):
        assert event.code == ErrorCode.UPSTREAM_ERROR
        assert "calls no tool" in event.message


async def test_tools_reach_no_model_that_would_not_see_them(autojump_clock: object) -> None:
    upstream = FakeUpstream()
    upstream.properties = Properties("fake", 2, 512, True, "test", tools=False)
    async with serving(upstream) as (_, listener):
        peer = await ready(listener)
        await peer.send(Generate(1, CREDIT, messages=HELLO, chat={"tools": [TOOL]}))
        pieces, error = await peer.until(Error)
    assert (pieces, error.code, upstream.calls) == ([], ErrorCode.UNSUPPORTED, [])
    assert "knows no tools" in error.message
