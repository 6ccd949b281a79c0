"""Chats of a server in memory: what reaches the gateway, and what is answered."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from llcuda_net.config.upstreams import UpstreamSpec
from llcuda_net.errors import UpstreamError
from llcuda_net.server.http.errors import HttpError
from llcuda_net.server.http.openai.chat import OPTIONS, options_of
from llcuda_net.server.http.request import Headers
from llcuda_net.upstream.backend import Backend
from llcuda_net.upstream.interface import REASONING, TOOL_CALL, Channel
from tests.support.server.memory_server import FakeUpstream, MemoryListener, paused, serving
from tests.support.server.sse_client import chat, post

TOOL = {"type": "function", "function": {"name": "f"}}


async def _answer(listener: MemoryListener, text: str = "a b", **fields: Any) -> Any:
    reply = await post(listener, chat(text, stream=False, **fields))
    answer = await reply.json()
    assert reply.status == 200, answer
    return answer


async def test_a_chat_is_answered_as_a_whole(autojump_clock: object) -> None:
    async with serving(FakeUpstream()) as (_, listener):
        reply = await post(listener, chat("a b", stream=False, user="me"))
        answer = await reply.json()
        (id_,) = reply.generations
    assert reply.headers["x-llcuda-ignored"] == "user"
    assert answer["id"] == f"chatcmpl-{id_}"
    assert answer["choices"][0]["message"]["content"] == "user: a b"
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["usage"]["prompt_tokens"] == 7
    assert answer["usage"]["total_tokens"] == 10
    assert answer["service_tier"] == "default"
    assert set(answer["llcuda"]) == {"generation", "timings"}


async def test_each_choice_has_its_seed(autojump_clock: object) -> None:
    upstream = FakeUpstream()
    async with serving(upstream) as (_, listener):
        answer = await _answer(listener, n=3, seed=7, max_tokens=2)
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    assert sorted(call["seed"] for call in upstream.calls) == [7, 8, 9]
    assert answer["usage"]["completion_tokens"] == 6
    assert answer["usage"]["prompt_tokens"] == 7


async def test_more_tokens_than_the_context_are_not_refused(autojump_clock: object) -> None:
    upstream = FakeUpstream(context=64)
    async with serving(upstream) as (_, listener):
        await _answer(listener, max_tokens=32_000)
    assert upstream.calls[0]["n_predict"] == 64


async def test_log_probabilities(autojump_clock: object) -> None:
    async with serving(FakeUpstream()) as (_, listener):
        answer = await _answer(listener, "a", logprobs=True, top_logprobs=2)
        none = await _answer(listener, "a", logprobs=True)
    tokens = answer["choices"][0]["logprobs"]["content"]
    assert [len(token["top_logprobs"]) for token in tokens] == [2, 2]
    assert [t["top_logprobs"] for t in none["choices"][0]["logprobs"]["content"]] == [[], []]


async def test_channels(autojump_clock: object) -> None:
    upstream = FakeUpstream()
    call = Channel(TOOL_CALL, 0, "call_1", "f")
    upstream.answer = [("hm", Channel(REASONING)), ("I see", None), ("", call), ("{}", call)]
    async with serving(upstream) as (_, listener):
        answer = await _answer(listener, tools=[TOOL], tool_choice="auto")
        (choice,) = answer["choices"]
        events = await (await post(listener, chat("a", tools=[TOOL]))).all()
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"] == {
        "role": "assistant",
        "content": "I see",
        "refusal": None,
        "reasoning_content": "hm",
        "tool_calls": [
            {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
        ],
    }
    assert upstream.chats[0][1] == {"tools": [TOOL], "tool_choice": "auto"}
    deltas = [event.json["choices"][0]["delta"] for event in events[:-1]]
    assert deltas[0] == {"role": "assistant", "reasoning_content": "hm"}
    assert deltas[2]["tool_calls"][0]["function"] == {"name": "f", "arguments": ""}


async def test_what_fails_has_a_status(autojump_clock: object) -> None:
    upstream = FakeUpstream()
    upstream.failure = UpstreamError("it broke", retry=False)
    async with serving(upstream, failover_seconds=1.0) as (_, listener):
        reply = await post(listener, chat("a b", stream=False))
        error = (await reply.json())["error"]
    assert (reply.status, error["code"]) == (502, "upstream_error")
    assert reply.headers["x-should-retry"] == "false"


async def test_a_full_queue_is_a_429(autojump_clock: object) -> None:
    upstream = paused(slots=1)
    async with serving(upstream, max_queue=0) as (_, listener), trio.open_nursery() as nursery:
        for _ in range(2):  # one runs; one per user may wait
            nursery.start_soon(post, listener, chat("a"))
            await trio.sleep(0.1)
        reply = await post(listener, chat("a"))
        error = (await reply.json())["error"]
        nursery.cancel_scope.cancel()
    assert (reply.status, error["code"]) == (429, "rate_limit_exceeded")
    assert 1 <= int(reply.headers["retry-after"]) <= 60
    assert 1 <= int(reply.headers["retry-after-ms"]) <= 60_000


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ({}, {}),
        ({"x-llcuda-timeout": "1.5"}, {"timeout": 1.5}),
        ({"x-llcuda-deadline": "60"}, {"deadline": 60.0}),
        ({"x-llcuda-level": "Strict"}, {"level": "strict"}),
        ({"x-llcuda-cache": "true"}, {"cache": True}),
        ({"x-llcuda-cache": "0"}, {"cache": False}),
        ({"x-llcuda-store": "false"}, {"transient": True}),
        ({"x-llcuda-store": "1"}, {"transient": False}),
        ({"x-llcuda-priority": "low"}, {"priority": "low"}),
    ],
)
def test_options(headers: dict[str, str], found: dict[str, Any]) -> None:
    assert options_of(_headers(headers)) == found


@pytest.mark.parametrize("header", OPTIONS)
@pytest.mark.parametrize("value", ["", "nan", "inf", "-1", "nonsense"])
def test_options_that_are_wrong(header: str, value: str) -> None:
    with pytest.raises(HttpError) as caught:
        options_of(_headers({header: value}))
    assert (caught.value.status, caught.value.param) == (400, header)


async def test_options_reach_the_generation(autojump_clock: object) -> None:
    upstream = paused()
    async with serving(upstream) as (server, listener):
        headers = {"x-llcuda-level": "memory", "x-llcuda-timeout": "5", "x-llcuda-priority": "low"}
        await post(listener, chat("a", service_tier="default"), headers)
        (generation,) = server.registry
        assert generation.priority.name == "LOW"
        assert generation.timeout == 5.0


async def test_models_by_name(autojump_clock: object) -> None:
    one, two = FakeUpstream(), FakeUpstream()
    backends = [
        Backend(UpstreamSpec("fake://1", "one", model="small"), one),
        Backend(UpstreamSpec("fake://2", "two", model="large"), two),
    ]
    async with serving(backends) as (_, listener):
        answer = await _answer(listener, model="large", max_tokens=1)
        assert (answer["model"], len(two.calls)) == ("large", 1)
        reply = await post(listener, chat("a", model="gpt-4o"))
        error = (await reply.json())["error"]
        assert (reply.status, error["code"]) == (404, "model_not_found")
        assert error["param"] == "model"
        assert "small, large" in error["message"]
        assert (await _answer(listener, model=None, max_tokens=1))["model"] == "small"


async def test_a_default_model_takes_any_name(autojump_clock: object) -> None:
    backends = [
        Backend(UpstreamSpec("fake://1", "one", model="small"), FakeUpstream()),
        Backend(UpstreamSpec("fake://2", "two", model="large"), FakeUpstream()),
    ]
    async with serving(backends, default_model="large") as (_, listener):
        assert (await _answer(listener, model="gpt-4o"))["model"] == "large"
        assert (await _answer(listener, model="small"))["model"] == "small"


async def test_lenient(autojump_clock: object) -> None:
    async with serving(FakeUpstream(), lenient=True) as (_, listener):
        reply = await post(listener, chat("a", stream=False, xyzzy=1))
        assert (reply.status, reply.headers["x-llcuda-ignored"]) == (200, "xyzzy")
    async with serving(FakeUpstream()) as (_, listener):
        reply = await post(listener, chat("a", stream=False, xyzzy=1))
        assert (reply.status, (await reply.json())["error"]["param"]) == (400, "xyzzy")


def _headers(values: dict[str, str]) -> Headers:
    return Headers([(name.encode(), value.encode()) for name, value in values.items()])
