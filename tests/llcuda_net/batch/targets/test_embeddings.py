"""Texts to embed, of each kind of target: what is asked, what is noted, and what goes wrong."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import trio

from llcuda_net.batch.record import Record
from llcuda_net.batch.targets.gateway import GatewayTarget
from llcuda_net.batch.targets.llama import LlamaTarget
from llcuda_net.batch.targets.openai import OpenAITarget
from llcuda_net.errors import RequestError, Unsupported


class Server(ThreadingHTTPServer):
    """Answers /v1/embeddings with `status` and `body`."""

    status = 200
    body: Any = None
    asked: Any = None


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        self.server.asked = (self.path, json.loads(self.rfile.read(length)))
        body = json.dumps(self.server.body).encode()
        self.send_response(self.server.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as found:
        thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield found
        found.shutdown()
        thread.join()


def vectors(count: int) -> list[dict[str, Any]]:
    return [{"object": "embedding", "index": i, "embedding": [0.5, 1.0]} for i in range(count)]


async def asked(server: Server) -> Record:
    target = OpenAITarget(f"http://127.0.0.1:{server.server_port}/v1", model="m")
    record = Record(0, 0.0)
    try:
        with trio.fail_after(20):
            answer = await target.ask("", {}, record, trio.current_time, texts=["a b", "c"])
    finally:
        await target.aclose()
    assert (answer.text, answer.reason) == ("", "embedded")
    return record


async def test_by_the_openai_api(server: Server) -> None:
    server.body = {"data": vectors(2), "usage": {"prompt_tokens": 5, "total_tokens": 5}}
    record = await asked(server)
    assert server.asked == ("/v1/embeddings", {"model": "m", "input": ["a b", "c"]})
    assert (record.prompt_tokens, record.tokens, len(record.chunks)) == (5, 0, 0)
    assert record.ttft is None
    assert record.sent > 0
    server.body = {"data": vectors(2)}
    assert (await asked(server)).prompt_tokens == 0


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        (200, {"data": vectors(1)}, "the server sent 1 vectors for 2 texts"),
        (200, {"data": [7]}, "its answer is no list of embeddings"),
        (200, {"vectors": []}, "its answer is no list of embeddings"),
        (501, {"error": {"message": "no embeddings here"}}, "no embeddings here"),
        (400, {"error": {"message": "too long"}}, "too long"),
    ],
)
async def test_what_goes_wrong_is_said(server: Server, status: int, body: Any, says: str) -> None:
    server.status, server.body = status, body
    with pytest.raises(RequestError, match=says):
        await asked(server)


class Embedder:
    """A client, and a llama-server, that embed: or another number of vectors than asked for."""

    base_url = "http://test"

    def __init__(self, more: int = 0) -> None:
        self.more = more
        self.texts: list[str] = []

    async def embed(self, texts: list[str]) -> list[Any]:
        await trio.lowlevel.checkpoint()
        self.texts += texts
        if texts == ["none"]:
            raise Unsupported("it embeds nothing")
        return [[1.0]] * (len(texts) + self.more)


@pytest.mark.parametrize("kind", [GatewayTarget, LlamaTarget])
async def test_by_llcudas_protocol_and_a_llama_server(kind: Any) -> None:
    embedder = Embedder()
    target = kind("test", [embedder] if kind is GatewayTarget else embedder)
    record = Record(0, 0.0)
    answer = await target.ask("", {}, record, trio.current_time, texts=["a", "b"])
    assert answer.reason == "embedded"
    assert embedder.texts == ["a", "b"]
    assert (record.tokens, record.prompt_tokens, list(record.chunks)) == (0, 0, [])
    assert record.sent > 0
    with pytest.raises(Unsupported, match="it embeds nothing"):
        await target.ask("", {}, record, trio.current_time, texts=["none"])
    embedder.more = 1
    with pytest.raises(RequestError, match="the server sent 3 vectors for 2 texts"):
        await target.ask("", {}, record, trio.current_time, texts=["a", "b"])
