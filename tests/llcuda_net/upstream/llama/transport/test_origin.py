"""Requests by HTTP: what goes with each of them, and what an answer may take of us."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import AsyncIterator

import msgspec
import pytest
import trio

from llcuda_net.batch.targets.openai import OpenAITarget
from llcuda_net.config.upstreams import BaseUrl
from llcuda_net.errors import ConfigError, RequestError, UpstreamBusy, UpstreamError
from llcuda_net.upstream.llama import short_answers
from llcuda_net.upstream.llama.client import LlamaServer
from llcuda_net.upstream.llama.poller import Poller
from llcuda_net.upstream.llama.transport.origin import MAX_BODY, Origin, decoder
from tests.support.upstream.llama_server import PATIENCE, client_of, listen
from tools import synthetic_upstream

JSON = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n"
_raw = decoder(msgspec.Raw, "nothing")


@contextlib.asynccontextmanager
async def answering(
    answer: bytes, more: bytes = b"", *, hold: bool = False
) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A server that answers with some bytes, then others until the connection is closed.

    Args:
        hold: nothing follows, and the connection stays open.
    """
    heads: list[bytes] = []

    async def serve(stream: trio.SocketStream) -> None:
        data = b""
        while b"\r\n\r\n" not in data:
            data += await stream.receive_some()
        head, _, body = data.partition(b"\r\n\r\n")
        heads.append(head)
        while len(body) < int(headers(head).get("content-length", "0")):
            body += await stream.receive_some()
        with contextlib.suppress(trio.BrokenResourceError):
            async with stream:
                await stream.send_all(answer)
                while more:
                    await stream.send_all(more)
                if hold:
                    await stream.receive_some()

    async with trio.open_nursery() as nursery:
        port = await nursery.start(listen, serve)
        yield f"127.0.0.1:{port}", heads
        nursery.cancel_scope.cancel()


def headers(head: bytes) -> dict[str, str]:
    lines = head.decode().split("\r\n")[1:]
    return {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}


async def test_user_and_password_go_with_every_request() -> None:
    async with answering(JSON + b"\r\n{}") as (place, heads):
        async with client_of(f"http://me:p%40ss:w@{place}/v%20x/") as client:
            with pytest.raises(RequestError):
                await client.server.ask()
            await client.failure()
            assert client.server.base_url == f"http://{place}/v%20x"
            assert "p%40ss" not in repr(client.server)
        target = OpenAITarget(f"http://me:p%40ss:w@{place}/v1", model="m")
        assert target.name == f"http://{place}"
        await target.aclose()
        for head, path in zip(heads, ("GET /v%20x/props", "POST /v%20x/completion"), strict=True):
            assert head.startswith(f"{path} HTTP/1.1".encode())
            found = headers(head)
            assert found["authorization"] == "Basic bWU6cEBzczp3"  # me:p@ss:w
            assert found["accept-encoding"] == "identity"
            assert found["user-agent"].startswith("llcuda/")
            assert found["host"] == place


def test_two_kinds_of_credentials_cannot_both_be_sent() -> None:
    with pytest.raises(ConfigError, match="remove the other") as caught:
        LlamaServer("http://me:s3cret@host", Poller(), api_key="key")
    assert "s3cret" not in str(caught.value)


@pytest.fixture(params=["endless-body", "gzip", "endless-headers", "endless-interim"])
def endless(request: pytest.FixtureRequest) -> str:
    fault: str = request.param
    return fault


async def test_no_answer_takes_much_memory(endless: str) -> None:
    with synthetic_upstream.running("--fault", endless, "--fault-on", "/props") as url:
        async with client_of(url) as client:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            with trio.fail_after(PATIENCE), pytest.raises(RequestError) as caught:
                # Answers before the final one end with the time of a request only: take less.
                if endless == "endless-interim":
                    await Origin(BaseUrl.parse(url)).ask("GET", "/props", _raw, timeout=0.2)
                await client.server.ask()
            grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
            assert grown < 6 * MAX_BODY >> 10  # kB: parts, and what is joined of them
            if endless == "gzip":
                assert "its body is encoded (content-encoding: gzip)" in caught.value.message
            if endless == "endless-body":
                assert f"/props has more than {MAX_BODY} bytes" in caught.value.message
        async with client_of(url) as client:  # the token stream of the same server is well
            await client.complete()


async def test_a_token_stream_that_is_none_takes_as_little(endless: str) -> None:
    with synthetic_upstream.running("--fault", endless) as url:
        async with client_of(url) as client:
            error = await client.failure()
            assert isinstance(error, UpstreamError)
            assert "did not answer as a llama-server" in error.message or "gzip" in error.message


async def test_an_answer_must_be_whole_in_time() -> None:
    answer = JSON + b'Content-Length: 9\r\n\r\n{"'
    async with answering(answer, hold=True) as (place, _):
        origin = Origin(BaseUrl.parse(f"http://{place}"))
        with trio.fail_after(PATIENCE), pytest.raises(RequestError, match=r"within 0\.05 s"):
            await origin.ask("GET", "/x", _raw, timeout=0.05)
        await origin.aclose()


async def test_errors_with_status_200_and_others_are_named() -> None:
    error = b'{"error":{"code":400,"message":"no"}}'
    answer = JSON + b"\r\n" + error
    async with answering(answer) as (place, _), client_of(f"http://{place}") as client:
        for ask in (client.server.ask, client.server.check, client.complete):
            with pytest.raises(RequestError, match="the upstream refused it: no"):
                await ask()
    long = b"HTTP/1.1 500 X\r\n\r\n"
    async with answering(long, b"x" * 10_000) as (place, _), client_of(f"http://{place}") as client:
        with trio.fail_after(PATIENCE), pytest.raises(RequestError, match="answered 500: xxx"):
            await client.server.ask()
    busy = b"HTTP/1.1 429 X\r\nRetry-After: 4\r\nContent-Length: 0\r\n\r\n"
    async with answering(busy) as (place, _), client_of(f"http://{place}") as client:
        for ask in (client.server.ask, client.server.check, client.complete):
            with pytest.raises(UpstreamBusy) as caught:
                await ask()
            assert caught.value.retry_after == 4


async def test_interim_answers_are_passed_over() -> None:
    with synthetic_upstream.running("--fault", "interim", "--fault-on", "/props") as url:
        async with client_of(url) as client:
            assert (await client.server.ask()).slots == 4
            await client.complete("[[interim]]")
            assert client.events[-1].stop


async def test_vectors_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(short_answers, "MOST_NUMBERS", 10)
    answer = JSON + b'\r\n[{"embedding":[' + b"0," * 11 + b"0]}]"
    async with answering(answer) as (place, _), client_of(f"http://{place}") as client:
        with pytest.raises(RequestError, match="/embedding gave more than 10 numbers"):
            await client.server.embed(["x"])


async def test_an_address_of_version_6(nursery: trio.Nursery) -> None:
    try:
        (listener,) = await trio.open_tcp_listeners(0, host="::1")
    except OSError:
        pytest.skip("no IPv6 here")

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some()
            await stream.send_all(JSON + b"\r\n{}")

    nursery.start_soon(trio.serve_listeners, serve, [listener])
    port = listener.socket.getsockname()[1]
    async with client_of(f"http://[::1]:{port}") as client:
        await client.server.check()
        assert "in place of an event stream" in (await client.failure()).message


async def test_of_a_page_that_came_in_place_of_json_the_title_is_said() -> None:
    """A proxy's sign-in page comes with status 200."""
    page = b"<!DOCTYPE html><html><head><title>Sign in</title></head><body>x</body></html>"
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n"
    async with answering(head % len(page) + page) as (address, _):
        origin = Origin(BaseUrl.parse(f"http://{address}"))
        with pytest.raises(UpstreamError, match=r"/props gave a proxy's page of HTML: Sign in$"):
            await origin.ask("GET", "/props", _raw)
        await origin.aclose()
