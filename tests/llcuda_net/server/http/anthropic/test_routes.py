"""Messages of a server in memory: what reaches the upstream, and what is answered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from trio.testing import wait_all_tasks_blocked

from llcuda_net.errors import UpstreamError
from llcuda_net.upstream.interface import REASONING, TOOL_CALL, Channel
from tests.support.server.durable_server import keeping
from tests.support.server.memory_server import FakeUpstream, MemoryListener, paused, serving
from tests.support.server.sse_client import Reply, resume, send

MESSAGES = "/v1/messages"
TOOL = {"name": "f", "description": "does it", "input_schema": {"type": "object"}}
CALL = Channel(TOOL_CALL, 0, "call_1", "f")


def body(text: str = "a b", **fields: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": text}]
    return {"model": "claude-any", "max_tokens": 32_000, "messages": messages, **fields}


async def post(
    listener: MemoryListener, asked: dict[str, Any], headers: Mapping[str, str] | None = None
) -> Reply:
    return await send(listener, "POST", MESSAGES, asked, headers)


async def answered(listener: MemoryListener, text: str = "a b", **fields: Any) -> Any:
    reply = await post(listener, body(text, **fields))
    answer = await reply.json()
    assert reply.status == 200, answer
    return answer


async def test_a_message(autojump_clock: object) -> None:
    upstream = FakeUpstream(context=64)
    async with serving(upstream) as (_, listener):
        reply = await post(listener, body(metadata={"user_id": "me"}))
        answer = await reply.json()
    assert reply.status == 200
    (id_,) = reply.generations
    assert reply.headers["x-llcuda-ignored"] == "metadata"
    assert reply.headers["request-id"] == reply.headers["x-request-id"]
    assert set(answer.pop("llcuda")) == {"generation", "timings"}
    assert answer == {
        "id": f"msg_{id_}",
        "type": "message",
        "role": "assistant",
        "model": "fake",
        "content": [{"type": "text", "text": "user: a b"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 7,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": 3,
        },
    }
    assert upstream.calls[0]["n_predict"] == 64
    assert not upstream.chats


async def test_where_it_stopped(autojump_clock: object) -> None:
    async with serving(FakeUpstream(context=2)) as (_, listener):
        full = await answered(listener, "a b c d")
        asked = await answered(listener, "a b c d", max_tokens=2)
    assert full["stop_reason"] == "model_context_window_exceeded"
    assert asked["stop_reason"] == "max_tokens"


async def test_thoughts_and_tools(autojump_clock: object) -> None:
    upstream = FakeUpstream()
    upstream.answer = [("hm", Channel(REASONING)), ("I see", None), ("", CALL), ("{}", CALL)]
    async with serving(upstream) as (_, listener):
        answer = await answered(listener, tools=[TOOL], thinking={"type": "adaptive"})
        reply = await post(listener, body(tools=[TOOL], stream=True))
        events = [event.json for event in await reply.all()]
    thinking, text, call = answer["content"]
    assert (thinking["type"], thinking["thinking"]) == ("thinking", "hm")
    assert text == {"type": "text", "text": "I see"}
    assert call == {"type": "tool_use", "id": "call_1", "name": "f", "input": {}}
    assert answer["stop_reason"] == "tool_use"
    assert [event["type"] for event in events] == [
        "message_start",
        *("content_block_start", "content_block_delta", "content_block_delta"),
        "content_block_stop",
        *("content_block_start", "content_block_delta", "content_block_stop"),
        *("content_block_start", "content_block_delta", "content_block_delta"),
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    function = {"name": "f", "description": "does it", "parameters": {"type": "object"}}
    (_, options), (_, quiet) = upstream.chats
    assert options == {"tools": [{"type": "function", "function": function}]}
    assert quiet["reasoning_effort"] == "none"


async def test_an_answer_that_has_begun(autojump_clock: object) -> None:
    upstream = FakeUpstream()
    upstream.answer = [(" there", None)]
    begun = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "Hi"}]
    async with serving(upstream) as (_, listener):
        await answered(listener, messages=begun, tools=[TOOL])
    messages, options = upstream.chats[0]
    assert messages == begun
    assert options["continue_final_message"] is True


async def test_a_model_that_sees_nothing(autojump_clock: object) -> None:
    source = {"type": "base64", "media_type": "image/png", "data": "AAAA"}
    content = [{"type": "image", "source": source}]
    async with serving(FakeUpstream()) as (_, listener):
        reply = await post(listener, body(messages=[{"role": "user", "content": content}]))
        error = (await reply.json())["error"]
    assert (reply.status, error["type"]) == (400, "invalid_request_error")
    assert "takes no images" in error["message"]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_failure(autojump_clock: object, stream: bool) -> None:
    upstream = FakeUpstream()
    upstream.failure = UpstreamError("it broke")
    async with serving(upstream, timeout=1.0) as (_, listener):
        reply = await post(listener, body(stream=stream))
        error = (await reply.json())["error"]
    assert reply.status >= 500
    assert error["type"] in ("api_error", "timeout_error")


async def test_a_failure_in_a_stream(autojump_clock: object) -> None:
    upstream = FakeUpstream()
    upstream.failure, upstream.fail_after = UpstreamError("it broke"), 1
    async with serving(upstream, timeout=1.0) as (_, listener):
        events = await (await post(listener, body("a b c", stream=True))).all()
    assert events[-1].json["type"] == "error"
    assert not events[-1].own_id


async def test_who_waits_is_pinged(autojump_clock: object) -> None:
    upstream = paused()
    async with serving(upstream) as (_, listener):
        first = await post(listener, body(stream=True))
        second = await post(listener, body("c d", stream=True))
        pinged = [await second.event(), await second.event()]
        assert [event.json["type"] for event in pinged if event] == ["message_start", "ping"]
        assert second.comments[0].startswith("queued 1 of 1")
        upstream.release(100)
        kinds = [event.json["type"] for event in await second.all()]
        assert kinds[-1] == "message_stop"
        await first.all()


def _plain(events: list[Any]) -> list[tuple[str, str]]:
    """Ids and what they carry; how long it took is another matter for each reader."""
    found = []
    for event in events:
        document = event.json
        document.pop("llcuda", None)
        if document["type"] != "ping":
            found.append((event.id if event.own_id else "", str(document)))
    return found


async def test_a_stream_goes_on_behind_any_event_with_an_id(tmp_path: Path) -> None:
    upstream = FakeUpstream()
    upstream.answer = [("hm", Channel(REASONING)), ("I", None), (" see", None), ("{}", CALL)]
    asked = body(tools=[TOOL], stream=True)
    async with keeping(tmp_path, upstream) as (_, listener):
        reply = await post(listener, asked, {"Idempotency-Key": "one"})
        whole = _plain(await reply.all())
        (id_,) = reply.generations
        assert _plain(await (await resume(listener, id_)).all()) == whole
        ids = [own for own, _ in whole]
        assert sum(map(bool, ids)) == 5
        for last in filter(None, ids):
            rest = whole[ids.index(last) + 1 :]
            assert _plain(await (await resume(listener, id_, last)).all()) == rest
            headers = {"Idempotency-Key": "one", "Last-Event-ID": last}
            assert _plain(await (await post(listener, asked, headers)).all()) == rest


async def test_the_retry_of_the_sdk_gets_what_it_began(autojump_clock: object) -> None:
    upstream = paused()
    async with serving(upstream) as (_, listener):
        first = await post(listener, body(stream=True), {"x-stainless-retry-count": "0"})
        await first.stream.aclose()
        await wait_all_tasks_blocked()
        again = await post(listener, body(stream=True), {"x-stainless-retry-count": "1"})
        upstream.release(100)
        await again.all()
        assert again.generations == first.generations
    assert len(upstream.calls) == 1


async def test_models_for_clients_of_both_apis(autojump_clock: object) -> None:
    upstream = FakeUpstream(context=256)
    version = {"anthropic-version": "2023-06-01"}
    async with serving(upstream) as (_, listener):
        listed = await (await send(listener, "GET", "/v1/models", None, version)).json()
        one = await (await send(listener, "GET", "/v1/models/fake", None, version)).json()
        none = await send(listener, "GET", "/v1/models/other", None, version)
        error = await none.json()
        openai = await (await send(listener, "GET", "/v1/models")).json()
    assert one == {
        "type": "model",
        "id": "fake",
        "display_name": "fake",
        "created_at": "1970-01-01T00:00:00Z",
        "lifecycle": "active",
        "max_input_tokens": 256,
        "max_tokens": 256,
    }
    assert listed == {"data": [one], "has_more": False, "first_id": "fake", "last_id": "fake"}
    assert (none.status, error["error"]["type"]) == (404, "not_found_error")
    assert openai["object"] == "list"


async def test_no_models(autojump_clock: object) -> None:
    upstream = FakeUpstream()
    assert upstream.properties is not None
    upstream.properties = replace(upstream.properties, model="")
    async with serving(upstream) as (_, listener):
        reply = await send(listener, "GET", "/v1/models", None, {"anthropic-version": "x"})
        answer = await reply.json()
    assert answer == {"data": [], "has_more": False, "first_id": None, "last_id": None}
