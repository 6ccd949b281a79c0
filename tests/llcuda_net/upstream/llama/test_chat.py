"""The chat of an upstream with a script, over real sockets."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio

from llcuda_net.errors import RequestError, UpstreamError, UpstreamStalled, UpstreamUnavailable
from llcuda_net.upstream.interface import CompletionEvent
from llcuda_net.upstream.llama.token_stream import StreamTimeouts
from tests.support.chat_server import ChatServer
from tests.support.upstream.chunks import DONE, PROPS, answer, begin_call, chunk, event, usage
from tests.support.upstream.llama_server import PATIENCE, Client, client_of

HELLO = [{"role": "user", "content": "Hello"}]
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}


@contextlib.asynccontextmanager
async def scripted(
    timeouts: StreamTimeouts | None = None, **script: Any
) -> AsyncIterator[tuple[ChatServer, Client]]:
    server = ChatServer(props=dict(PROPS), **script)
    async with trio.open_nursery() as nursery:
        await nursery.start(server.serve)
        async with client_of(server.url, timeouts=timeouts) as client:
            yield server, client
        nursery.cancel_scope.cancel()


async def chat(
    client: Client,
    options: dict[str, Any] | None = None,
    messages: list[dict[str, Any]] | None = None,
    **params: Any,
) -> tuple[list[CompletionEvent], str | None]:
    events: list[CompletionEvent] = []
    sent: list[bool] = []
    with trio.fail_after(PATIENCE):
        note = await client.server.chat(
            messages or HELLO, options or {}, params, events.extend, lambda: sent.append(True)
        )
    assert sent == [True]
    return events, note


async def failure(client: Client, **params: Any) -> tuple[list[CompletionEvent], RequestError]:
    events: list[CompletionEvent] = []
    with pytest.raises(RequestError) as caught, trio.fail_after(PATIENCE):
        await client.server.chat(HELLO, {}, params, events.extend, lambda: None)
    return events, caught.value.with_traceback(None)


async def test_what_it_says_of_itself_is_known() -> None:
    async with scripted() as (server, client):
        properties = await client.server.ask()
        assert (properties.thinks, properties.images, properties.audio) == (True, True, True)
        for template, thinks in (
            ("{{ messages }} Think, then answer.", False),
            ("{% if thinking %}x{% endif %}", True),
            ("{{ message.reasoning_content }}", True),
            ("[THINK]", True),
            ("<|channel|>analysis", True),
        ):
            server.props = {**PROPS, "chat_template": template, "modalities": {"vision": False}}
            client.server.forget()
            properties = await client.server.ask()
            assert (properties.thinks, properties.images, properties.audio) == (
                thinks,
                False,
                False,
            )
        caps = {"supports_reasoning_effort": True}
        server.props = {**PROPS, "chat_template": "x", "chat_template_caps": caps}
        client.server.forget()
        properties = await client.server.ask()
        assert (properties.thinks, properties.tools) == (True, True)
        server.props = {**PROPS, "chat_template_caps": {"supports_tools": False}}
        client.server.forget()
        assert not (await client.server.ask()).tools


async def test_text_reasoning_and_calls_stream() -> None:
    parts = (("reasoning", "Well then"), ("text", "It is"), ("now", "{}"), ("now", '{"a": 1}'))
    async with scripted(events=answer(*parts)) as (server, client):
        events, note = await chat(client, {"tools": []}, n_predict=20, seed=3)
        assert note is None
        assert [one.content for one in events if one.content] == [
            *("Well ", "then", "It ", "is", "{}", '{"a": ', "1}")
        ]
        assert [one.channel and one.channel.kind for one in events] == [
            *("reasoning", "reasoning", None, None, "tool_call", "tool_call", "tool_call", None)
        ]
        assert (events[-1].stop_type, events[-1].tokens_predicted) == ("tool_calls", 7)
        assert server.asked[0]["messages"] == HELLO
        assert server.asked[0]["seed"] == 3


async def test_images_go_as_they_came() -> None:
    def echo(body: dict[str, Any]) -> list[bytes]:
        return answer(("text", str(body["messages"][0]["content"][0]["image_url"]["url"])))

    async with scripted(script=echo) as (_, client):
        events, _ = await chat(client, messages=[{"role": "user", "content": [IMAGE]}])
        assert events[0].content == "data:image/png;base64,AAAA"


async def test_one_that_makes_more_tokens_than_were_asked_for_is_stopped() -> None:
    events = [chunk(n, content="x") for n in range(1, 50)]
    async with scripted(events=events) as (_, client):
        found, note = await chat(client, n_predict=5)
        assert note is not None
        assert "more tokens than n_predict" in note
        assert "".join(one.content for one in found) == "x" * 5
        assert (found[-1].stop, found[-1].stop_type) == (True, "limit")
    # One token may become several events.
    calls = [chunk(3, tool_calls=begin_call(n, "now", "{}")) for n in range(3)]
    async with scripted(events=[*calls, chunk(3, "tool_calls"), usage(3)]) as (_, client):
        found, note = await chat(client, n_predict=3)
        assert (len(found), note) == (4, None)


async def test_the_second_call_is_cut_where_one_was_asked_for() -> None:
    async with scripted(events=answer(("now", "{}"), ("now", "{}"))) as (_, client):
        found, note = await chat(client, {"parallel_tool_calls": False})
        assert note is not None
        assert [one.content for one in found] == ["{}", ""]
        assert found[-1].stop_type == "tool_calls"


@pytest.mark.parametrize("cut", [False, True])
async def test_an_end_without_its_usage_is_one(cut: bool) -> None:
    events = [chunk(content="a"), chunk(finish="stop")]
    async with scripted(events=events, cut=cut) as (_, client):
        found, _ = await chat(client)
        assert [one.content for one in found] == ["a", ""]
        assert (found[-1].stop, found[-1].stop_type, found[-1].tokens_predicted) == (True, "eos", 1)


@pytest.mark.parametrize("cut", [False, True])
async def test_one_that_is_cut_is_lost(cut: bool) -> None:
    async with scripted(events=[chunk(content="a"), b"data: {"], cut=cut) as (_, client):
        await client.server.ask()
        found, error = await failure(client)
        assert [one.content for one in found] == ["a"]
        assert isinstance(error, UpstreamUnavailable)
        assert "within an event" in error.message
        assert client.server.properties is None


async def test_errors_before_and_within_an_answer() -> None:
    said = {"error": {"code": 500, "message": "broken", "type": "server_error"}}
    async with scripted(events=[chunk(content="a"), event(**said), DONE]) as (server, client):
        found, error = await failure(client)
        assert ([one.content for one in found], type(error)) == (["a"], UpstreamError)
        assert "broken" in error.message
        server.refuse = (400, b'{"error": {"code": 400, "message": "no", "type": "x"}}')
        _, error = await failure(client)
        assert (error.code, error.message) == ("invalid_request", "the upstream refused it: no")


async def test_silence_is_no_answer() -> None:
    short = StreamTimeouts(stall=0.1, first=0.1, a_token=0.0)
    # Chunks without a token are no progress, however many come.
    endless = [chunk(0, role="assistant", content=None)] * 100_000
    async with scripted(timeouts=short, events=endless, pause=0.01) as (_, client):
        _, error = await failure(client)
        assert isinstance(error, UpstreamStalled)
