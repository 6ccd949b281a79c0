"""A server with an OpenAI-compatible chat API as a target."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio

from llcuda_net.batch.record import Record
from llcuda_net.batch.targets.interface import Answer, Target
from llcuda_net.batch.targets.llama import LlamaTarget
from llcuda_net.batch.targets.openai import OpenAITarget
from llcuda_net.batch.targets.opening import open_target
from llcuda_net.batch.targets.tokenizer import learn
from llcuda_net.errors import (
    ConfigError,
    ConnectError,
    InvalidRequest,
    Overloaded,
    RequestError,
    Unsupported,
    UpstreamError,
    UpstreamStalled,
    UpstreamUnavailable,
)
from tests.support import ollama_server
from tests.support.chat_server import DONE, USAGE, ChatServer, Refusal, Script, chunk, ending
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


@pytest.mark.parametrize(
    ("root", "api", "end"),
    [
        ("", "/v1", ""),
        ("", "/v1", "/v1/"),
        ("/some/prefix", "/v1", "/v1"),
        ("/some/prefix", "/v1", ""),
        ("/some/prefix", "/v1", "/v1/chat/completions"),
        ("/v9/openai", "", ""),  # some have no v1 in their paths
        ("/v9/openai", "", "/chat/completions"),
    ],
)
async def test_paths_with_prefixes(server: ChatServer, root: str, api: str, end: str) -> None:
    server.root, server.api = root, api
    server.says = {
        "GET /api/version": {"version": "0.12.6"},
        "GET /api/tags": {"models": []},
    }
    async with open_target(f"{server.url}{root}{end}", api="openai", prepare="ask") as target:
        assert (await ask(target))[1].tokens == 3
        about = await target.about()
    assert (about.version, about.model, about.api) == ("Ollama 0.12.6", "m1", "openai")
    assert about.path == "server"


async def test_the_first_request_finds_out_what_is_refused(server: ChatServer) -> None:
    def strict(body: dict[str, Any]) -> Script | Refusal:
        for name in ("max_tokens", "ignore_eos", "min_tokens"):
            if name in body:
                said = f"Unsupported parameter: '{name}'"
                return Refusal(400, json.dumps({"error": {"message": said}}).encode())
        return [chunk("one"), ending("stop"), USAGE, DONE]

    server.script = strict
    async with open_target(server.url, api="openai", prepare="ask") as target:
        assert isinstance(target, OpenAITarget)
        assert target.notes == ["the server lists 2 models: m1 was asked (--model names another)"]
        assert len(server.asked) == 4
        assert (await ask(target))[1].tokens == 3
        assert len(server.asked) == 5
        assert server.asked[-1]["max_completion_tokens"] == 5
        assert target.notes[0].startswith("answers end where the model ends them")


async def test_a_server_that_cannot_answer_is_said_before_the_run(
    server: ChatServer, autojump_clock: trio.abc.Clock
) -> None:
    server.refuse = (404, b'{"error": {"message": "model \'m1\' not found"}}')
    with pytest.raises(UpstreamError, match="the server answered 404: model 'm1' not found"):
        async with open_target(server.url, api="openai", prepare="ask"):
            pass
    server.refuse, before = (500, b"Internal Server Error"), len(server.asked)
    with pytest.raises(UpstreamError, match="the server answered 500: Internal Server Error"):
        async with open_target(server.url, api="openai", prepare="ask"):
            pass
    assert len(server.asked) == before + 3


async def test_reasoning_is_output(server: ChatServer) -> None:
    think = b'data: {"choices":[{"delta":{"role":"assistant","reasoning":"hm"}}]}\n\n'
    server.events = [think, chunk("so"), ending("stop"), USAGE, DONE]
    async with open_target(server.url, api="openai", model="m1") as target:
        assert isinstance(target, OpenAITarget)
        answer, record = await ask(target)
        assert (answer.text, len(record.chunks)) == ("so", 2)
        assert target.samples[-1].text == "hmso"  # all of which are tokens
        hidden = chunk(
            usage={"completion_tokens": 9, "completion_tokens_details": {"reasoning_tokens": 8}}
        )
        server.events = [chunk("so"), ending("stop"), hidden, DONE]
        assert (await ask(target))[1].tokens == 9
        thought, secret = target.notes
        assert thought.startswith("1 of 2 answers had reasoning: it is output")
        assert secret.startswith("1 of 2 answers had reasoning that was counted and not streamed")


async def test_a_usage_of_zeros_is_none(server: ChatServer) -> None:
    zeros = chunk(usage={"prompt_tokens": 0, "completion_tokens": 0})
    server.events = [chunk("a"), chunk("b"), ending(), zeros, DONE]
    async with open_target(server.url, api="openai", model="m1") as target:
        assert isinstance(target, OpenAITarget)
        _, record = await ask(target)
        assert (record.tokens, record.counted, target.by) == (2, False, "pieces")


async def test_its_tokens_are_counted_again(server: ChatServer) -> None:
    about: dict[str, Any] = {}
    async with open_target(server.url, api="openai", model="m1") as target:
        await ask(target)
        await learn(target, about, None)
        assert about["tokens"]["why"] == "no tokenizer is at hand"
        with pytest.raises(Unsupported):
            await target.count("x")
    # One token per byte, of which it says that they are three.
    server.props = {"default_generation_settings": {"n_ctx": 512}, "total_slots": 2}
    async with open_target(server.url, api="openai", model="m1", prepare="ask") as target:
        assert (await target.about()).context == 512
        await ask(target)
        await learn(target, about, None)
        text = "one two three"
        assert about["tokens"] == {
            "counted_by": "usage",
            "tokenizer": "its /tokenize",
            "why": None,
            "answers": 1,
            "counted": 3,
            "tokenized": len(text),
            "difference": (len(text) - 3) / 3,
        }
        assert "tokens by usage are not those of the tokenizer" in about["notes"][0]


async def test_a_model_that_only_embeds_is_not_chosen(server: ChatServer) -> None:
    server.models = ["text-embedding-small", "talks"]
    async with open_target(server.url, api="openai") as target:
        assert (await target.about()).model == "talks"
    async with open_target(server.url, api="openai", prepare="tell") as target:
        assert (await target.about()).model == "text-embedding-small"
    assert server.asked == []  # a model that embeds need not chat
    server.models = []
    with pytest.raises(Unsupported, match="lists no model"):
        async with open_target(server.url, api="openai"):
            pass


async def test_a_server_by_its_address_alone() -> None:
    with (
        ollama_server.running() as place,
        pytest.raises(ConnectError, match=f"its URL is http://{place}/v1"),
    ):
        async with open_target(place, api="auto", prepare="ask"):
            pass


async def test_a_page_of_html_is_one_short_line(server: ChatServer) -> None:
    page = b"<!DOCTYPE html><html><title>502 Bad Gateway</title>" + b"<p>x</p>" * 900
    server.refuse = (502, page)
    async with open_target(server.url, api="openai", model="m1") as target:
        with pytest.raises(UpstreamError) as caught:
            await ask(target)
    assert caught.value.message.startswith("the server answered 502: ")
    assert "Bad Gateway" in caught.value.message
    assert len(caught.value.message) < 100
