"""What is sent to a router, over real sockets, and what its answers mean."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import trio

from llcuda_net.errors import (
    InvalidRequest,
    RequestError,
    UpstreamBusy,
    UpstreamError,
    UpstreamNotReady,
    UpstreamUnavailable,
)
from llcuda_net.upstream.llama.poller import Poller
from llcuda_net.upstream.llama.properties import IsRouter
from llcuda_net.upstream.llama.token_stream import StreamTimeouts
from llcuda_net.upstream.router.connector import Connector
from llcuda_net.upstream.router.listing import ListedModel, Status
from tests.support.upstream.llama_server import PATIENCE, listen

#: As 11434 has it.
ROUTER = {
    "role": "router",
    "max_instances": 1,
    "models_autoload": True,
    "model_alias": "llama-server",
    "model_path": "none",
    "default_generation_settings": {"params": None, "n_ctx": 0},
    "build_info": "b11434",
}
PROPS = {"total_slots": 2, "default_generation_settings": {"n_ctx": 512}, "model_path": "/m.gguf"}
NAME = "org/a b&c:Q4"
QUERY = "model=org%2Fa%20b%26c%3AQ4&autoload=false"


def refusal(code: int, message: str, kind: str = "invalid_request_error") -> tuple[int, Any]:
    return code, {"error": {"code": code, "message": message, "type": kind}}


class Server:
    """Answers what it was told to, and notes what it was asked.

    Attributes:
        answers: status and body by path, without the query.
        asked: method, path with query, and body.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.answers: dict[str, tuple[int, Any]] = {}
        self.asked: list[tuple[str, str, Any]] = []

    async def serve(self, stream: trio.SocketStream) -> None:
        data = b""
        while b"\r\n\r\n" not in data:
            data += await stream.receive_some()
        head, _, body = data.partition(b"\r\n\r\n")
        size = next(
            (int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"Content-Length:")),
            0,
        )
        while len(body) < size:
            body += await stream.receive_some()
        method, path, _ = head.split(b"\r\n")[0].decode().split(" ")
        self.asked.append((method, path, json.loads(body) if body else None))
        status, answer = self.answers.get(path.split("?")[0], (404, "File Not Found"))
        content = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
        lines = (
            f"HTTP/1.1 {status} X\r\nContent-Length: {len(content)}\r\nConnection: close\r\n\r\n"
        )
        with contextlib.suppress(trio.BrokenResourceError):
            async with stream:
                await stream.send_all(lines.encode() + content)


@contextlib.asynccontextmanager
async def serving() -> AsyncIterator[Server]:
    server = Server("")
    async with trio.open_nursery() as nursery:
        port = await nursery.start(listen, server.serve)
        server.url = f"http://127.0.0.1:{port}"
        with trio.fail_after(PATIENCE):
            yield server
        nursery.cancel_scope.cancel()


@contextlib.asynccontextmanager
async def polled() -> AsyncIterator[Connector]:
    poller = Poller()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(poller.run)
        yield Connector(poller, StreamTimeouts(), None)
        nursery.cancel_scope.cancel()


async def test_every_request_names_its_model_and_loads_none() -> None:
    trouble: list[None] = []
    async with serving() as server, polled() as connector:
        model = connector.model(server.url, None, NAME, lambda: trouble.append(None))
        assert model.base_url == f"{server.url}?model=org%2Fa%20b%26c%3AQ4"
        server.answers = {
            "/props": (200, PROPS),
            "/slots": (200, [{"id": 0, "is_processing": False}]),
            "/health": (200, {"status": "ok"}),
            "/tokenize": (200, {"tokens": [1]}),
            "/detokenize": (200, {"content": "x"}),
            "/apply-template": (200, {"prompt": "p"}),
            "/embedding": (200, [{"embedding": [[1.0]]}]),
            "/infill": (200, {"prompt": "p"}),
            "/completion": refusal(500, "failed", "server_error"),
            "/v1/chat/completions": refusal(500, "failed", "server_error"),
            "/rerank": refusal(501, "no reranking", "not_supported_error"),
        }
        await model.ask()
        await model.slots()
        await model.check()
        assert [path for _, path, _ in server.asked] == [
            f"/props?{QUERY}",
            f"/slots?{QUERY}",
            f"/health?{QUERY}",
        ]
        server.asked.clear()
        await model.tokenize("x", special=True)
        await model.detokenize([1])
        await model.render([{"role": "user", "content": "x"}])
        await model.embed(["x"])
        await model.infill("a", "b", {})
        assert not await model.reranks()
        for stream in (
            model.complete("x", {"n_predict": 1}, lambda _: None, lambda: None),
            model.chat([], {}, {"n_predict": 1}, lambda _: None, lambda: None),
        ):
            with pytest.raises(UpstreamError):
                await stream
        for method, path, body in server.asked:
            assert method == "POST"
            assert path.endswith("?autoload=false"), path
            assert body["model"] == NAME
        assert {path.split("?")[0] for _, path, _ in server.asked} >= {
            "/completion",
            "/v1/chat/completions",
            "/rerank",
        }
        assert trouble == []
        await model.aclose()


async def test_one_llama_server_is_asked_as_ever() -> None:
    async with serving() as server, polled() as connector:

        async def never() -> None:
            raise AssertionError

        entrance = connector.entrance(server.url, None, never)
        server.answers = {"/props": (200, PROPS), "/tokenize": (200, {"tokens": [1]})}
        await entrance.ask()
        await entrance.ask()
        await entrance.tokenize("x", special=True)
        assert [(path, body) for _, path, body in server.asked] == [
            ("/props", None),
            ("/tokenize", {"content": "x", "add_special": True, "parse_special": True}),
        ]
        await entrance.aclose()


@pytest.mark.parametrize("error", [None, UpstreamNotReady("no models")])
async def test_a_router_is_found_by_the_question_that_is_asked_anyway(
    error: RequestError | None,
) -> None:
    found: list[None] = []
    async with serving() as server, polled() as connector:

        async def on_router() -> None:
            found.append(None)
            if error is not None:
                raise error

        entrance = connector.entrance(server.url, None, on_router)
        server.answers = {"/props": (200, ROUTER)}
        with pytest.raises(IsRouter if error is None else UpstreamNotReady) as caught:
            await entrance.ask()
        assert error is None or caught.value is error
        assert (len(found), len(server.asked), entrance.properties) == (1, 1, None)
        server.answers = {"/props": (200, {**ROUTER, "role": "else"})}
        with pytest.raises(UpstreamError, match="/props gave no properties"):
            await entrance.ask()
        await entrance.aclose()


async def test_what_is_cancelled_since_it_is_a_router_ends_there() -> None:
    """As the health check does, whose backend has left the pool: else it would report a failure."""
    async with serving() as server, polled() as connector:
        scope = trio.CancelScope()

        async def on_router() -> None:
            scope.cancel()

        entrance = connector.entrance(server.url, None, on_router)
        server.answers = {"/props": (200, ROUTER)}
        with scope:
            await entrance.ask()
        assert scope.cancelled_caught
        await entrance.aclose()


Ask = Callable[[Any], Awaitable[Any]]


@pytest.mark.parametrize(
    "ask",
    [
        lambda model: model.tokenize("x", special=True),
        lambda model: model.complete("x", {"n_predict": 1}, lambda _: None, lambda: None),
    ],
    ids=["short", "stream"],
)
@pytest.mark.parametrize(
    ("answer", "kind", "trouble"),
    [
        (refusal(400, "model is not loaded"), UpstreamBusy, True),
        (refusal(400, "model name=m is not running"), UpstreamBusy, True),
        (refusal(400, "model 'm' not found"), UpstreamBusy, True),
        ((500, "proxy error: Could not establish connection"), UpstreamUnavailable, True),
        (refusal(503, "Loading model", "unavailable_error"), UpstreamNotReady, True),
        (refusal(400, "prompt is missing"), InvalidRequest, False),
        (refusal(500, "something else", "server_error"), UpstreamError, False),
    ],
)
async def test_what_a_router_answers_for_a_model(
    ask: Ask, answer: tuple[int, Any], kind: type[RequestError], trouble: bool
) -> None:
    troubles: list[None] = []
    async with serving() as server, polled() as connector:
        model = connector.model(server.url, None, "m", lambda: troubles.append(None))
        server.answers = {"/props": (200, PROPS), "/tokenize": answer, "/completion": answer}
        await model.ask()
        with pytest.raises(RequestError) as caught:
            await ask(model)
        assert type(caught.value) is kind
        assert bool(troubles) == trouble
        lost = kind is UpstreamUnavailable
        assert (model.properties is None) == lost
        await model.aclose()


async def test_a_router_lists_and_loads() -> None:
    async with serving() as server:
        client = Connector(Poller(), StreamTimeouts(), None).router(server.url, None)
        status = {"value": "loaded", "args": []}
        server.answers = {
            "/models": (200, {"data": [{"id": "a", "status": status}]}),
            "/props": (200, ROUTER),
            "/models/load": (200, {"success": True}),
        }
        assert await client.models() == [ListedModel("a", Status.LOADED)]
        assert await client.limit() == 1
        await client.load("a")
        assert server.asked[-1] == ("POST", "/models/load", {"model": "a"})
        server.answers["/models/load"] = refusal(400, "model is already running")
        await client.load("a")
        server.answers["/models/load"] = refusal(500, "model limit reached, try again later")
        with pytest.raises(UpstreamBusy, match="no room for another model"):
            await client.load("a")
        server.answers["/models/load"] = refusal(404, "File Not Found", "not_found_error")
        with pytest.raises(UpstreamError, match="404"):
            await client.load("a")
        server.answers["/models/load"] = refusal(400, "else")
        with pytest.raises(InvalidRequest):
            await client.load("a")
        await client.aclose()
