"""Counting tokens of a server in memory: what the upstream is asked, and what is answered."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from llcuda_net.errors import UpstreamUnavailable
from tests.support.server.memory_server import FakeUpstream, MemoryListener, serving
from tests.support.server.sse_client import Reply, send

IMAGE = {
    "type": "image",
    "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"},
}
TOOL = {"name": "f", "input_schema": {"type": "object"}}


async def counted(listener: MemoryListener, content: Any = "a b", **fields: Any) -> Reply:
    body = {"model": "claude-any", "messages": [{"role": "user", "content": content}], **fields}
    return await send(listener, "POST", "/v1/messages/count_tokens", body)


async def test_the_tokens_of_a_prompt(autojump_clock: object) -> None:
    upstream = FakeUpstream()
    async with serving(upstream) as (_, listener):
        reply = await counted(listener, system="be kind", metadata={})
        answer = await reply.json()
    # The fake upstream has a token per byte, and one before them.
    assert answer == {"input_tokens": 1 + len("system: be kind user: a b")}
    assert reply.headers["x-llcuda-ignored"] == "metadata"
    assert reply.headers["request-id"] == reply.headers["x-request-id"]
    assert not upstream.calls


async def test_tools_are_rendered_with_the_rest(autojump_clock: object) -> None:
    upstream = FakeUpstream()
    asked = []

    async def render(messages: Any, options: Any = None) -> str:
        asked.append(options)
        return "123"

    upstream.render = render  # type: ignore[method-assign]
    async with serving(upstream) as (_, listener):
        assert await (await counted(listener, tools=[TOOL])).json() == {"input_tokens": 4}
        assert upstream.properties is not None
        upstream.properties = replace(upstream.properties, thinks=True)
        await counted(listener, thinking={"type": "adaptive"}, output_config={"effort": "low"})
    function = {"name": "f", "parameters": {"type": "object"}}
    tools = [{"type": "function", "function": function}]
    assert asked == [{"tools": tools, "reasoning_effort": "none"}, {"reasoning_effort": "low"}]


async def test_images_are_left_out_and_named(autojump_clock: object) -> None:
    async with serving(FakeUpstream()) as (_, listener):
        reply = await counted(listener, [{"type": "text", "text": "a b"}, IMAGE])
        assert await reply.json() == {"input_tokens": 1 + len("user: a b")}
    assert reply.headers["x-llcuda-ignored"] == "images"


async def test_without_a_template(autojump_clock: object) -> None:
    async with serving(FakeUpstream(template=False)) as (_, listener):
        assert await (await counted(listener)).json() == {"input_tokens": 1 + len("a b")}
        refused = await counted(listener, system="be kind")
        error = (await refused.json())["error"]
    assert (refused.status, error["type"]) == (400, "invalid_request_error")
    assert "no chat template" in error["message"]


async def test_failures_are_anthropics(autojump_clock: object) -> None:
    upstream = FakeUpstream()

    async def fails(*args: object, **options: object) -> str:
        raise UpstreamUnavailable("gone", retry=True, retry_after=1)

    upstream.render = fails  # type: ignore[method-assign]
    async with serving(upstream) as (_, listener):
        reply = await counted(listener)
        error = (await reply.json())["error"]
        assert (reply.status, error["type"]) == (503, "api_error")
        wrong = await counted(listener, nothing=1)
        assert (wrong.status, (await wrong.json())["error"]["details"]["param"]) == (400, "nothing")
