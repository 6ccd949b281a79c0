"""A server with an OpenAI-compatible chat API as a target."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from llcuda_net.batch.record import Record
from llcuda_net.batch.targets.interface import Answer, Target
from llcuda_net.batch.targets.llama import LlamaTarget
from llcuda_net.batch.targets.openai import OpenAITarget
from llcuda_net.batch.targets.opening import open_target
from llcuda_net.errors import (
    ConfigError,
    InvalidRequest,
    Overloaded,
    RequestError,
    Unsupported,
    UpstreamError,
    UpstreamStalled,
    UpstreamUnavailable,
)
from tests.support.chat_server import DONE, USAGE, ChatServer, chunk, ending
from tools import synthetic_upstream

PARAMS = {"n_predict": 5, "seed": 1, "ignore_eos": True, "cache_prompt": False}


@pytest.fixture
async def server(nursery: trio.Nursery) -> ChatServer:
    found = ChatServer([chunk("one"), chunk(" two"), chunk(" three"), ending(), USAGE, DONE])
    await nursery.start(found.serve)
    return found


async def ask(target: Target, prompt: Any = "hello", **more: Any) -> tuple[Answer, Record]:
    record = Record(0, 0.0)
    with trio.fail_after(300):
        answer = await target.ask(prompt, PARAMS, record, trio.current_time, **more)
    return answer, record


async def test_it_is_found_and_asked(server: ChatServer) -> None:
    server.pause = 0.01
    async with open_target(server.url, api="auto") as target:
        assert isinstance(target, OpenAITarget)
        about = await target.about()
        assert (about.model, about.slots) == ("m1", None)
        answer, record = await ask(target)
        assert (answer.text, answer.reason, answer.id) == ("one two three", "length", "c1")
        assert (record.tokens, record.prompt_tokens, record.counted) == (3, 7, True)
        assert len(record.chunks) == 3
        assert list(record.chunks) == sorted(record.chunks)
        assert record.sent < record.chunks[0] < record.chunks[2]
    assert server.asked == [
        {
            "model": "m1",
            "messages": [{"role": "user", "content": "hello"}],
            "max_tokens": 5,
            "seed": 1,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
    ]


async def test_without_usage_the_pieces_are_counted(server: ChatServer) -> None:
    server.events = [chunk("one"), chunk(" two"), ending("stop")]
    async with open_target(f"{server.url}/v1", api="openai", model="other") as target:
        answer, record = await ask(target, messages=[{"role": "user", "content": "x"}])
    assert answer.reason == "stop"
    assert (record.tokens, record.counted) == (2, False)
    assert server.asked[0]["model"] == "other"
    assert server.asked[0]["messages"] == [{"role": "user", "content": "x"}]


async def test_what_goes_wrong_is_said(server: ChatServer) -> None:
    async with open_target(server.url, api="openai") as target:
        with pytest.raises(Unsupported):
            await ask(target, [1, 2])
        server.refuse = (400, b'{"error": {"message": "ignore_eos is unknown"}}')
        with pytest.raises(InvalidRequest, match="ignore_eos is unknown"):
            await ask(target)
        server.refuse, server.events = None, [chunk("one")]
        with pytest.raises(UpstreamUnavailable, match="ended the answer early"):
            await ask(target)
    server.events, server.pause = [chunk("one")], 30.0
    async with open_target(server.url, api="openai", stall_timeout=0.05) as target:
        with pytest.raises(UpstreamStalled, match=r"nothing for 0\.05 s"):
            await ask(target)


@pytest.mark.parametrize(
    ("status", "headers", "kind", "retry", "seconds"),
    [
        (429, "Retry-After: 7\r\n", Overloaded, True, 7.0),
        (429, "retry-after-ms: 250\r\nRetry-After: 7\r\n", Overloaded, True, 0.25),
        (503, "Retry-After: 7\r\n", Overloaded, True, 7.0),
        (429, "", Overloaded, True, None),
        (429, "x-should-retry: false\r\n", UpstreamError, False, None),
        (409, "", UpstreamError, True, None),
        (500, "", UpstreamError, True, None),
        (404, "", UpstreamError, False, None),
    ],
)
async def test_what_may_be_asked_again_as_its_own_clients_do(
    server: ChatServer, status: int, headers: str, kind: type, retry: bool, seconds: float | None
) -> None:
    server.refuse, server.headers = (status, b'{"error": {"message": "no"}}'), headers
    async with open_target(server.url, api="openai") as target:
        with pytest.raises(RequestError) as caught:
            await ask(target)
        error = caught.value
        assert (type(error), error.retry, error.retry_after) == (kind, retry, seconds)


async def test_a_server_that_is_busy_is_no_reason_to_leave_it() -> None:
    with synthetic_upstream.running("--fault", "busy:7") as url:
        async with open_target(url, api="auto") as target:
            assert isinstance(target, LlamaTarget)
            with pytest.raises(Overloaded) as caught:
                await ask(target)
            assert caught.value.retry_after == 7


async def test_an_answer_without_an_end_is_not_read_for_ever(server: ChatServer) -> None:
    server.events = [chunk("on ")] * 1000
    async with open_target(server.url, api="openai") as target:
        answer, record = await ask(target)
    assert answer.reason == "length"
    assert record.tokens < 200


async def test_user_and_password_go_with_every_request_and_are_not_shown(
    server: ChatServer,
) -> None:
    server.key = "me:s3cret"
    url = server.url.replace("http://", "http://me:s3cret@")
    for api in ("auto", "openai"):
        async with open_target(url, api=api) as target:
            assert (await ask(target))[1].tokens == 3
            assert target.name == server.url
            assert "s3cret" not in repr(target)
    with synthetic_upstream.running("--rate", "0") as llama:
        async with open_target(llama.replace("http://", "http://me:s3cret@")) as target:
            assert target.name == llama


async def test_its_key_and_its_model(server: ChatServer) -> None:
    server.key = "secret"
    with pytest.raises(UpstreamError, match="another API key"):
        async with open_target(server.url, api="openai"):
            pass
    async with open_target(server.url, api="auto", api_key="secret") as target:
        assert (await ask(target))[1].tokens == 3
    server.models = None
    with pytest.raises(RequestError):
        async with open_target(server.url, api="openai", api_key="secret"):
            pass
    async with open_target(server.url, api="openai", api_key="secret", model="m") as target:
        assert (await ask(target))[1].tokens == 3


async def test_which_api_a_server_has(server: ChatServer) -> None:
    with synthetic_upstream.running("--rate", "0") as url:
        async with open_target(url, api="auto") as target:
            assert isinstance(target, LlamaTarget)
    with pytest.raises(UpstreamUnavailable, match="cannot be reached"):
        async with open_target("http://127.0.0.1:1", api="auto"):
            pass
    with pytest.raises(UpstreamUnavailable, match="connection refused"):
        async with open_target("http://127.0.0.1:1", api="openai"):
            pass
    with pytest.raises(ConfigError):
        async with open_target("http://", api="openai"):
            pass
    with pytest.raises(UpstreamError):  # asked as a llama-server, which it is not
        async with open_target(server.url, api="llama"):
            pass
