"""The chat of a real llama-server, the built-in engine: tools, reasoning, and what we rely on."""

from __future__ import annotations

import json
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
import trio

from llcuda_net.errors import InvalidRequest, Unsupported
from llcuda_net.upstream.engine.options import EngineOptions
from llcuda_net.upstream.interface import REASONING, TOOL_CALL, CompletionEvent
from llcuda_net.upstream.llama.client import LlamaServer
from tests.support.upstream.chat_model import (
    CALL_AT_ONCE,
    END_REASONING_SOON,
    tool,
    write_chat_model,
)
from tests.support.upstream.engine import running_engine

PATIENCE = 300.0
WEATHER = tool("weather", city=["Rome", 'the "city"'], days=[1, 2])
NOW = tool("now", zone=["UTC"])
HELLO: list[dict[str, Any]] = [{"role": "user", "content": "Hello"}]
NO_REASONING = {"reasoning_effort": "none"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_chat_model(tmp_path_factory.mktemp("models") / "chat.gguf")


def engine(model: Path) -> AbstractAsyncContextManager[LlamaServer]:
    return running_engine(EngineOptions(model, ctx=512, slots=2, threads=1))


async def chat(
    server: LlamaServer,
    options: dict[str, Any],
    messages: list[dict[str, Any]] | None = None,
    **params: Any,
) -> tuple[list[CompletionEvent], str | None]:
    """The events of an answer, and what is to be said of how it was cut."""
    events: list[CompletionEvent] = []
    params = {"n_predict": 200, "seed": 1, **params}
    with trio.fail_after(PATIENCE):
        note = await server.chat(messages or HELLO, options, params, events.extend, lambda: None)
    assert events[-1].stop
    assert not any(one.stop for one in events[:-1])
    counts = [one.tokens_predicted for one in events]
    assert counts == sorted(counts)
    return events, note


def calls_of(events: list[CompletionEvent]) -> list[tuple[str, str]]:
    """Names and arguments."""
    found: dict[int, tuple[str, str]] = {}
    for one in events:
        if one.channel is not None and one.channel.kind == TOOL_CALL:
            name, arguments = found.get(one.channel.index, (one.channel.name, ""))
            assert (name, bool(one.channel.id)) == (one.channel.name, True)
            found[one.channel.index] = name, arguments + one.content
    return list(found.values())


def text_of(events: list[CompletionEvent], kind: str | None = None) -> str:
    of_kind = (one for one in events if (one.channel and one.channel.kind) == kind)
    return "".join(one.content for one in of_kind)


async def test_a_tool_is_called_and_its_arguments_are_of_its_schema(model: Path) -> None:
    async with engine(model) as server:
        properties = await server.ask()
        assert (properties.thinks, properties.images, properties.audio) == (True, False, False)
        one = {"tools": [WEATHER], "tool_choice": "required", "parallel_tool_calls": False}
        # It goes on calling, though it was told not to: the second call is where it ends.
        events, note = await chat(server, one | NO_REASONING, logit_bias=CALL_AT_ONCE)
        ((name, arguments),) = calls_of(events)
        assert name == "weather"
        found = json.loads(arguments)
        assert found.keys() == {"city", "days"}
        assert found["city"] in ("Rome", 'the "city"')
        assert (events[-1].stop_type, text_of(events)) == ("tool_calls", "")
        assert note is not None
        assert "second tool call" in note

        # A tool is chosen by name, though llama-server knows no such choice.
        by_name = {"type": "function", "function": {"name": "now"}}
        both = {"tools": [WEATHER, NOW], "tool_choice": by_name, "parallel_tool_calls": False}
        events, _ = await chat(server, both | NO_REASONING, logit_bias=CALL_AT_ONCE, n_probs=2)
        ((name, arguments),) = calls_of(events)
        assert (name, json.loads(arguments)) == ("now", {"zone": "UTC"})
        # Log-probabilities come all the same, and with them the ids of the tokens.
        scored = [one for one in events if one.completion_probabilities]
        assert len(scored) >= len(arguments) // 2
        assert all(one.tokens for one in scored)

        # More than one call; then the tokens end.
        many = {"tools": [NOW], "tool_choice": "required"}
        events, note = await chat(server, many | NO_REASONING, logit_bias=CALL_AT_ONCE)
        calls = calls_of(events)
        assert len(calls) > 1
        assert all(json.loads(arguments) == {"zone": "UTC"} for _, arguments in calls[:-1])
        assert (events[-1].stop_type, note) == ("limit", None)
        assert events[-1].tokens_predicted == 200
        assert events[-1].tokens_evaluated > 10
        assert events[-1].timings is not None

        # The result of a tool goes back, the call with it.
        call = {"id": "a", "type": "function", "function": {"name": "now", "arguments": ""}}
        talk: list[dict[str, Any]] = [
            *HELLO,
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "a", "content": [{"type": "text", "text": "5"}]},
        ]
        events, _ = await chat(server, {"tools": [NOW]} | NO_REASONING, talk, n_predict=3)
        assert events[-1].tokens_predicted <= 3


async def test_reasoning_comes_apart_from_the_text(model: Path) -> None:
    async with engine(model) as server:
        for seed in range(20):  # it may end with its first token
            events, _ = await chat(
                server, {}, logit_bias=END_REASONING_SOON, n_predict=60, seed=seed
            )
            if text_of(events, REASONING) and text_of(events):
                break
        assert text_of(events, REASONING)
        assert text_of(events)
        assert "</think>" not in text_of(events, REASONING)
        first = next(one for one in events if one.content)
        assert first.channel is not None
        assert first.channel.kind == REASONING

        events, _ = await chat(server, NO_REASONING, n_predict=10, ignore_eos=True)
        assert {one.channel for one in events} == {None}

        # A schema holds for what follows the reasoning.
        schema = {"type": "object", "properties": {"a": {"const": 5}}, "required": ["a"]}
        events, _ = await chat(server, {}, json_schema=schema, logit_bias=END_REASONING_SOON)
        assert json.loads(text_of(events))["a"] == 5
        events, _ = await chat(server, NO_REASONING, grammar='root ::= "ab" | "cd"')
        assert text_of(events) in ("ab", "cd")


async def test_what_the_chat_of_a_llama_server_does(model: Path) -> None:
    """What docs and code say of it: where this fails, they are to be changed."""
    async with engine(model) as server:
        # A stop string is named.
        events, _ = await chat(
            server, NO_REASONING, grammar='root ::= "abcdef"', stop=["zz", "d"], id_slot=1
        )
        assert (text_of(events), events[-1].stop_type) == ("abc", "word")
        assert events[-1].stopping_word == "d"

        # What people write may end their turn: it is read as the template's own text is.
        plain, _ = await chat(
            server, NO_REASONING, [{"role": "user", "content": "ab"}], n_predict=1
        )
        marked = [{"role": "user", "content": "a<|end|>b"}]
        events, _ = await chat(server, NO_REASONING, marked, n_predict=1)
        assert events[-1].tokens_evaluated == plain[-1].tokens_evaluated + 1

        # What it cannot read is the request's fault, and not the upstream's.
        image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
        with pytest.raises(Unsupported, match="image input is not supported"):
            await chat(server, {}, [{"role": "user", "content": [image]}])
        with pytest.raises(InvalidRequest, match="cannot read the chat"):
            await chat(server, {"tools": [{"type": "function", "function": {}}]})
        with pytest.raises(InvalidRequest, match="refused it"):
            await chat(server, {"tools": [tool("now")]}, grammar='root ::= "a"')
        bad = {"name": "now", "arguments": "{bad"}
        call = {"id": "a", "type": "function", "function": bad}
        talk = [*HELLO, {"role": "assistant", "content": "", "tool_calls": [call]}]
        with pytest.raises(InvalidRequest, match=r"messages\[1\].tool_calls\[0\].*must be JSON"):
            await chat(server, {}, talk)

        # Token ids are embedded as the text is of which they are.
        ids = await server.tokenize("abc", special=True)
        (of_text,), (of_ids,) = await server.embed(["abc", ids])
        assert of_ids == pytest.approx(of_text, abs=1e-4)
