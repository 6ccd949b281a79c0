"""One upstream with canned answers: nonsense of every kind, and what was sent to it."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import trio

from llcuda_net.errors import ConfigError, RequestError, UpstreamError, UpstreamLacks
from llcuda_net.upstream.llama.client import LlamaServer
from llcuda_net.upstream.llama.poller import Poller
from llcuda_protocol import ErrorCode
from tests.support.upstream.llama_server import client_of, listen


@contextlib.asynccontextmanager
async def _canned(*answers: bytes) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A server that answers one request a connection, and keeps what it was sent."""
    requests: list[bytes] = []
    left = list(answers)

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            data = b""
            while b"\r\n\r\n" not in data:
                data += await stream.receive_some(65_536)
            head, _, body = data.partition(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", head.lower())
            while length and len(body) < int(length[1]):
                body += await stream.receive_some(65_536)
            requests.append(head + b"\r\n\r\n" + body)
            await stream.send_all(left.pop(0))

    async with trio.open_nursery() as nursery:
        port = await nursery.start(listen, serve)
        yield f"http://127.0.0.1:{port}", requests
        nursery.cancel_scope.cancel()


def _json(body: bytes, status: int = 200) -> bytes:
    return b"HTTP/1.1 %d X\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b" % (
        status,
        len(body),
        body,
    )


def _sent(request: bytes) -> tuple[str, object]:
    """The path and the JSON of a request that came whole."""
    head, _, body = request.partition(b"\r\n\r\n")
    return head.decode().split()[1], json.loads(body)


FINAL = _json(b'data: {"content":"","stop":true}\n\n')
PROPS = _json(
    b'{"total_slots":2,"default_generation_settings":{"n_ctx":64},"model_path":"/a/b.gguf"}'
)


async def test_the_api_key_and_the_path_go_with_every_request() -> None:
    async with _canned(PROPS, FINAL) as (url, requests):
        async with client_of(url + "/pre%20fix/", api_key="s3cret") as client:
            properties = await client.server.ask()
            assert (properties.model, properties.has_template) == ("b.gguf", False)
            await client.complete()
        assert requests[0].startswith(b"GET /pre%20fix/props HTTP/1.1\r\n")
        assert requests[1].startswith(b"POST /pre%20fix/completion HTTP/1.1\r\n")
        for request in requests:
            assert b"\r\nauthorization: bearer s3cret\r\n" in request.lower()
            assert b"\r\nhost: " + url[7:].encode() + b"\r\n" in request.lower()


@pytest.mark.parametrize(("said", "advances"), [("cd", True), ("ab", False), ("", False)])
async def test_whether_it_takes_up_a_grammar_is_tried_once(said: str, advances: bool) -> None:
    answer = _json(json.dumps({"content": said}).encode())
    async with _canned(answer, answer) as (url, requests), client_of(url) as client:
        for _ in range(3):
            assert await client.server.advances_grammars() is advances
        assert len(requests) == 1
        path, body = _sent(requests[0])
        assert path == "/completion"
        assert isinstance(body, dict)
        assert body["generation_prompt"] == "ab"
        client.server.forget()  # another process may be there now
        await client.server.advances_grammars()
        assert len(requests) == 2


async def test_slots_are_bounded_whatever_it_says() -> None:
    many = _json(b'{"total_slots":2000000000,"default_generation_settings":{"n_ctx":64}}')
    async with _canned(many) as (url, _), client_of(url) as client:
        assert (await client.server.ask()).slots == 4096


@pytest.mark.parametrize(
    "body",
    [
        b"<html>",
        b"[]",
        b"null",
        b"{}",
        b'{"total_slots":1,"default_generation_settings":{}}',
        b'{"total_slots":"many","default_generation_settings":{"n_ctx":1}}',
        b'{"total_slots":1,"default_generation_settings":{"n_ctx":null}}',
        b'{"total_slots":1,"default_generation_settings":[]}',
        b"[" * 100_000,
        b"\xff",
    ],
)
async def test_nonsense_properties(body: bytes) -> None:
    async with _canned(_json(body)) as (url, _), client_of(url) as client:
        with pytest.raises(RequestError, match="did not answer as a llama-server"):
            await client.server.ask()
        assert client.server.properties is None


@pytest.mark.parametrize(
    "body",
    [b"{}", b"[]", b"[{}]", b'[{"embedding":[]}]', b'[{"embedding":3}]', b"[3]", b"null", b"x"],
)
async def test_nonsense_vectors(body: bytes) -> None:
    async with _canned(_json(body)) as (url, _), client_of(url) as client:
        with pytest.raises(RequestError, match="did not answer as a llama-server"):
            await client.server.embed(["one"])


async def test_vectors_may_begin_with_zero_and_be_pooled_or_not() -> None:
    body = b'[{"embedding":[0.0,1.0]},{"embedding":[[0,2.0],[1.0,3.0]]}]'
    async with _canned(_json(body)) as (url, _), client_of(url) as client:
        assert await client.server.embed(["a", "b"]) == [[[0.0, 1.0]], [[0, 2.0], [1.0, 3.0]]]


@pytest.mark.parametrize("body", [b"[]", b'{"prompt":3}', b"{}", b"7"])
async def test_nonsense_templates(body: bytes) -> None:
    async with _canned(_json(body)) as (url, _), client_of(url) as client:
        with pytest.raises(RequestError, match="gave no prompt"):
            await client.server.render([{"role": "user", "content": "x"}])


async def test_tokens_are_asked_for_as_a_prompt_is_tokenised() -> None:
    answers = _json(b'{"tokens":[1,2]}'), _json(b'{"tokens":[]}'), _json(b'{"content":"\xc3\xa4"}')
    async with _canned(*answers) as (url, requests), client_of(url) as client:
        assert await client.server.tokenize("\xe4", special=True) == [1, 2]
        assert await client.server.tokenize("", special=False) == []
        assert await client.server.detokenize([1, 2]) == "\xe4"
    first, second, third = (_sent(request) for request in requests)
    assert first == ("/tokenize", {"content": "\xe4", "add_special": True, "parse_special": True})
    assert second == ("/tokenize", {"content": "", "add_special": False, "parse_special": True})
    assert third == ("/detokenize", {"tokens": [1, 2]})


@pytest.mark.parametrize(
    "body", [b"[]", b"{}", b'{"tokens":3}', b'{"tokens":["a"]}', b'{"tokens":[-1]}', b"7"]
)
async def test_nonsense_tokens(body: bytes) -> None:
    async with _canned(_json(body), _json(body)) as (url, _), client_of(url) as client:
        with pytest.raises(RequestError, match="gave no tokens"):
            await client.server.tokenize("x", special=True)
        with pytest.raises(RequestError, match="gave no text"):
            await client.server.detokenize([1])


async def test_an_error_without_a_length_is_told_too() -> None:
    answer = b'HTTP/1.1 400 X\r\nConnection: close\r\n\r\n{"error":{"message":"no such thing"}}'
    async with _canned(answer) as (url, _), client_of(url) as client:
        error = await client.failure()
        assert error.code == ErrorCode.INVALID_REQUEST
        assert "no such thing" in error.message


@pytest.mark.parametrize(
    "url",
    [
        "nonsense",
        "ftp://host",
        "http://",
        "http://host:port",
        "http://[::1",
        "http://a..b",
        "http://" + "a" * 70,
        "http://host/?x=1",
        "",
    ],
)
def test_what_is_no_url(url: str) -> None:
    with pytest.raises(ConfigError, match="is not a URL such as"):
        LlamaServer(url, Poller())


async def test_a_password_in_the_url_is_told_to_nobody() -> None:
    async with client_of("http://me:s3cret@127.0.0.1:1/x") as client:
        assert client.server.base_url == "http://127.0.0.1:1/x"
    with pytest.raises(ConfigError) as caught:
        LlamaServer("http://me:s3cret@127.0.0.1:port", Poller())
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "body", "reranks"),
    [
        (400, b'{"error":{"code":400,"message":"\\"query\\" must be provided"}}', True),
        (400, b'{"error":{"code":400,"message":"model name is missing"}}', False),
        (501, b'{"error":{"message":"start it with `--reranking`"}}', False),
        (404, b"{}", False),
        (503, b"{}", False),
        (200, b"{}", False),
        (200, b"<html>", False),
    ],
)
async def test_whether_it_ranks_documents(status: int, body: bytes, reranks: bool) -> None:
    async with _canned(_json(body, status)) as (url, requests), client_of(url) as client:
        assert await client.server.reranks() is reranks
        assert _sent(requests[0]) == ("/rerank", {})


async def test_one_that_is_away_ranks_nothing() -> None:
    async with client_of("http://127.0.0.1:9") as client:
        assert await client.server.reranks() is False


_NO_FILE = b'{"error":{"code":404,"message":"File Not Found","type":"not_found_error"}}'


@pytest.mark.parametrize(
    ("path", "ask"),
    [
        ("/v1/chat/completions", lambda one: one.chat([], {}, {}, print, lambda: None)),
        ("/apply-template", lambda one: one.render([])),
        ("/tokenize", lambda one: one.tokenize("a", special=False)),
        ("/rerank", lambda one: one.rerank("a", ["b"])),
        ("/embedding", lambda one: one.embed(["a"])),
    ],
)
@pytest.mark.parametrize(("status", "body"), [(404, _NO_FILE), (405, b"no POST"), (404, b"")])
async def test_what_this_build_lacks_is_named(
    path: str, ask: Callable[[LlamaServer], Awaitable[object]], status: int, body: bytes
) -> None:
    async with _canned(_json(body, status)) as (url, _), client_of(url) as client:
        with pytest.raises(
            UpstreamLacks, match=f"^this llama-server has no {path} .it answered {status}: "
        ):
            await ask(client.server)


@pytest.mark.parametrize("status", [404, 405])
async def test_what_has_nothing_where_all_have_something_has_failed(status: int) -> None:
    """It is no llama-server, or a proxy before one that is away."""
    answer = _json(b"404 page not found", status)
    async with _canned(answer, answer) as (url, _), client_of(url) as client:
        error = await client.failure("a prompt")
        assert error.code == ErrorCode.UPSTREAM_ERROR
        with pytest.raises(UpstreamError, match=f"answered {status}"):
            await client.server.ask()


async def test_the_scores_of_documents() -> None:
    body = {
        "results": [
            {"index": 1, "relevance_score": 0.5},
            {"index": 0, "relevance_score": -2},
        ],
        "usage": {"prompt_tokens": 7},
    }
    answer = _json(json.dumps(body).encode())
    async with _canned(answer) as (url, requests), client_of(url) as client:
        found = await client.server.rerank("q", ["a", "b"])
        assert (found.scores, found.tokens) == ((-2.0, 0.5), 7)
        assert _sent(requests[0]) == ("/rerank", {"query": "q", "documents": ["a", "b"]})


@pytest.mark.parametrize(
    "results",
    [
        None,
        [],
        [{"index": 0, "relevance_score": 1}],
        [{"index": 0, "relevance_score": 1}] * 2,
        [{"index": 0, "relevance_score": 1}, {"index": 2, "relevance_score": 1}],
        [{"index": 0, "relevance_score": 1}, {"index": 1, "relevance_score": None}],
        [{"index": i, "relevance_score": 1} for i in range(3)],
    ],
)
async def test_nonsense_scores(results: object) -> None:
    answer = _json(json.dumps({"results": results}).encode())
    async with _canned(answer) as (url, _), client_of(url) as client:
        with pytest.raises(RequestError, match=r"/rerank gave no scores"):
            await client.server.rerank("q", ["a", "b"])


async def test_tokens_as_they_are_written() -> None:
    answer = _json(b'{"tokens": [1,  {"id":2}]}')
    async with _canned(answer) as (url, requests), client_of(url) as client:
        found = await client.server.tokens(["a", 5], special=True, literal=True, pieces=True)
        assert found == b'[1,  {"id":2}]'
        assert _sent(requests[0])[1] == {
            "content": ["a", 5],
            "add_special": True,
            "parse_special": False,
            "with_pieces": True,
        }


async def test_tokens_that_are_none() -> None:
    async with _canned(_json(b'{"tokens":{}}')) as (url, _), client_of(url) as client:
        with pytest.raises(RequestError, match="/tokenize gave no tokens"):
            await client.server.tokens("a", special=False, literal=False, pieces=False)


async def test_a_token_that_is_not_in_the_vocabulary() -> None:
    body = b'{"error":{"code":500,"message":"vector::_M_range_check: __n (which is 9) >= 5"}}'
    answers = [_json(body, 500), _json(b'{"error":{"message":"out of memory"}}', 500)]
    async with _canned(*answers) as (url, _), client_of(url) as client:
        with pytest.raises(RequestError) as caught:
            await client.server.detokenize([9])
        assert caught.value.code == ErrorCode.INVALID_REQUEST
        with pytest.raises(RequestError) as caught:
            await client.server.detokenize([9])
        assert caught.value.code == ErrorCode.UPSTREAM_ERROR
