"""One upstream over real sockets: the synthetic llama-server's faults, with http and with https."""

from __future__ import annotations

import contextlib
import gc
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog
import trio
import trustme

from llcuda_net.errors import RequestError, Unsupported
from llcuda_net.upstream.interface import CompletionEvent
from llcuda_net.upstream.llama.token_stream import StreamTimeouts
from llcuda_net.upstream.prompts import rendered
from llcuda_protocol import ErrorCode
from tests.support.upstream.llama_server import PATIENCE, Client, client_of, listen
from tools import synthetic_upstream
from tools.synthetic.tokens import generation


@pytest.fixture(scope="module")
def synthetic() -> Iterator[str]:
    with synthetic_upstream.running("--rate", "0", "--ctx", "256", "--slots", "8") as url:
        yield url


@contextlib.asynccontextmanager
async def _tls_before(url: str, ca: trustme.CA) -> AsyncIterator[str]:
    """A TLS port in front of a plain upstream, as a reverse proxy would be."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("localhost").configure_cert(context)
    host, inner_port = url.removeprefix("http://").split(":")

    async def copy(source: trio.abc.Stream, sink: trio.abc.Stream, scope: trio.CancelScope) -> None:
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while data := await source.receive_some(65_536):
                await sink.send_all(data)
        scope.cancel()

    async def serve(outer: trio.abc.Stream) -> None:
        inner = await trio.open_tcp_stream(host, int(inner_port))
        async with outer, inner, trio.open_nursery() as nursery:
            nursery.start_soon(copy, outer, inner, nursery.cancel_scope)
            nursery.start_soon(copy, inner, outer, nursery.cancel_scope)

    async with trio.open_nursery() as nursery:
        port = await nursery.start(listen, serve, context)
        yield f"https://localhost:{port}"
        nursery.cancel_scope.cancel()


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def trusted(ca: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> trustme.CA:
    """A private CA that is trusted as a user would have it trusted: by SSL_CERT_FILE."""
    path = tmp_path / "ca.pem"
    ca.cert_pem.write_to_path(str(path))
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    return ca


@contextlib.asynccontextmanager
async def _either(
    synthetic: str, kind: str, ca: trustme.CA, **options: Any
) -> AsyncIterator[Client]:
    """The same upstream through the hub (http) and through httpx (https)."""
    async with contextlib.AsyncExitStack() as stack:
        url = synthetic
        if kind == "https":
            url = await stack.enter_async_context(_tls_before(synthetic, ca))
        yield await stack.enter_async_context(client_of(url, **options))


BOTH = pytest.mark.parametrize("kind", ["http", "https"])


@BOTH
async def test_an_answer_and_what_the_upstream_says_of_itself(
    kind: str, synthetic: str, trusted: trustme.CA
) -> None:
    async with _either(synthetic, kind, trusted) as client:
        properties = await client.server.ask()
        assert (properties.slots, properties.context) == (8, 256)
        assert properties.has_template
        assert client.server.properties is properties
        for prompt in ("hello", [1, 2, 3]):
            await client.complete(prompt)
            last = client.events[-1]
            assert last.stop
            assert (last.stop_type, last.tokens_predicted) == ("limit", 12)
            assert sum(len(e.tokens) for e in client.events) >= 12
        assert client.sent == 2
        assert "hi" in await client.server.render([{"role": "user", "content": "hi"}])
        rows = await client.server.embed(["one", "two"])
        assert len(rows) == 2
        assert all(len(row) == 1 for row in rows)


async def test_prompts_that_were_rendered_too_long_ago_are_forgotten(
    synthetic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with client_of(synthetic) as client:
        await client.server.ask()
        for seconds, left in ((1e6, 1), (-1.0, 1)):
            monkeypatch.setattr(rendered, "SECONDS", seconds)
            await client.server.render([{"role": "user", "content": f"hi {seconds}"}])
            await client.server.check()
            assert f"RenderedPrompts {left}," in repr(client.server._rendered)


async def test_an_upstream_without_a_way_to_fill_gaps(synthetic: str) -> None:
    async with client_of(synthetic) as client:
        with pytest.raises(Unsupported, match="no /infill"):
            await client.server.infill("a", "b", {"id_slot": 0})


#: A fault, its error, whether to try again, words of the message, and the tokens before it.
FAULTS = [
    ("die:3", ErrorCode.UPSTREAM_UNAVAILABLE, True, "", 3),
    ("reset:3", ErrorCode.UPSTREAM_UNAVAILABLE, True, "", None),
    ("cut:3", ErrorCode.UPSTREAM_UNAVAILABLE, True, "", 3),
    ("no-final:3", ErrorCode.UPSTREAM_UNAVAILABLE, True, "in the middle of the answer", 3),
    ("error-event:3", ErrorCode.UPSTREAM_ERROR, True, "synthetic error", 3),
    ("not-json:3", ErrorCode.UPSTREAM_ERROR, False, "did not answer as a llama-server", 3),
    ("wrong-types:3", ErrorCode.UPSTREAM_ERROR, False, "did not answer as a llama-server", 3),
    ("bad-chunk:3", None, None, "", 3),
    ("huge-line:3", ErrorCode.UPSTREAM_ERROR, False, "an event of more than", 3),
    ("http:500", ErrorCode.UPSTREAM_ERROR, True, "answered 500", 0),
    ("http:503", ErrorCode.UPSTREAM_UNAVAILABLE, True, "not ready", 0),
    ("busy:7", ErrorCode.UPSTREAM_UNAVAILABLE, True, "takes no more for now", 0),
    ("json-error:507", ErrorCode.UPSTREAM_ERROR, True, "answered 507: synthetic error", 0),
    ("gzip", ErrorCode.UPSTREAM_ERROR, False, "its body is encoded (content-encoding: gzip)", 0),
    ("endless-body", ErrorCode.UPSTREAM_ERROR, False, "application/json in place of", 0),
    ("endless-interim", ErrorCode.UPSTREAM_ERROR, False, "headers without an end", 0),
    ("http:404", ErrorCode.UPSTREAM_ERROR, False, "answered 404", 0),
    ("not-http", None, None, "", 0),
    ("endless-headers", None, None, "", 0),
    ("close", ErrorCode.UPSTREAM_UNAVAILABLE, True, "", 0),
]


@BOTH
@pytest.mark.parametrize(("fault", "code", "retry", "words", "tokens"), FAULTS)
async def test_faults(
    kind: str,
    fault: str,
    code: ErrorCode | None,
    retry: bool | None,
    words: str,
    tokens: int | None,
    synthetic: str,
    trusted: trustme.CA,
) -> None:
    async with _either(synthetic, kind, trusted) as client:
        error = await client.failure(f"a prompt [[{fault}]]")
        if code is None:
            # Broken HTTP is nonsense to the hub, and a broken connection to httpx.
            assert error.code in (ErrorCode.UPSTREAM_ERROR, ErrorCode.UPSTREAM_UNAVAILABLE)
        else:
            assert (error.code, error.retry) == (code, retry)
        assert words in error.message
        if tokens is not None:
            assert len(client.events) == tokens
        await client.complete()  # and the next one is served
        assert client.events[-1].stop


@BOTH
@pytest.mark.parametrize("fault", ["dribble", "interim", "forms"])
async def test_odd_but_right(kind: str, fault: str, synthetic: str, trusted: trustme.CA) -> None:
    prompt = f"odd [[{fault}]]"
    async with _either(synthetic, kind, trusted) as client:
        await client.complete(prompt)
        assert client.events[-1].stop
        assert client.text == generation(prompt, 12)


@BOTH
async def test_no_more_tokens_than_n_predict(
    kind: str, synthetic: str, trusted: trustme.CA
) -> None:
    prompt = "on and on [[overrun]]"
    before = await _synthetic_report(synthetic)
    logs: list[Any] = []
    async with _either(synthetic, kind, trusted) as client:
        for _ in range(2):
            with structlog.testing.capture_logs() as said:
                note = await client.complete(prompt, n_predict=5)
            logs += said
            assert note == "the upstream made more tokens than n_predict: stopped at 5"
            assert client.text == generation(prompt, 5)
            last = client.events[-1]
            assert (last.stop, last.stop_type, last.tokens_predicted) == (True, "limit", 5)
        assert await client.complete("enough", n_predict=5) is None
        with trio.fail_after(PATIENCE):  # its connections are closed
            while (report := await _synthetic_report(synthetic))["active"]:  # noqa: ASYNC110
                await trio.sleep(0.01)
        assert report["dropped"] == before["dropped"] + 2
    assert [one["event"] for one in logs] == ["upstream_ignores_n_predict"]  # once


@BOTH
async def test_a_stall_after_some_tokens_ends(
    kind: str, synthetic: str, trusted: trustme.CA
) -> None:
    async with _either(synthetic, kind, trusted, timeouts=StreamTimeouts(stall=0.1)) as client:
        # After one token: so short a stall, a busy machine might make between two of them.
        error = await client.failure("a prompt [[stall:1]]")
        assert (error.code, error.retry) == (ErrorCode.UPSTREAM_STALLED, True)
        assert len(client.events) == 1


@BOTH
async def test_the_first_token_may_take_long(
    kind: str, synthetic: str, trusted: trustme.CA
) -> None:
    async with _either(synthetic, kind, trusted, timeouts=StreamTimeouts(stall=0.02)) as client:
        with trio.move_on_after(0.3) as scope:
            await client.complete("a prompt [[stall-headers]]")
        assert scope.cancelled_caught  # by us: the stall timeout is for streams that flow


@BOTH
async def test_the_first_token_must_come_some_time(
    kind: str, synthetic: str, trusted: trustme.CA
) -> None:
    timeouts = StreamTimeouts(first=0.1, a_token=0.0)
    async with _either(synthetic, kind, trusted, timeouts=timeouts) as client:
        error = await client.failure("a prompt [[stall-headers]]")
        assert (error.code, error.retry) == (ErrorCode.UPSTREAM_STALLED, True)
        assert "first token" in error.message


@BOTH
async def test_cancelling_closes_our_connection(
    kind: str, synthetic: str, trusted: trustme.CA
) -> None:
    before = await _synthetic_report(synthetic)
    async with _either(synthetic, kind, trusted) as client, trio.open_nursery() as nursery:
        nursery.start_soon(client.complete, "a prompt [[stall:3]]")
        with trio.fail_after(PATIENCE):
            await client.some.wait()
            assert (await _synthetic_report(synthetic))["active"] == 1
            nursery.cancel_scope.cancel()
    with trio.fail_after(PATIENCE):
        # Another process frees it, and only asking shows when.
        while (report := await _synthetic_report(synthetic))["active"]:  # noqa: ASYNC110
            await trio.sleep(0.01)
    assert report["dropped"] == before["dropped"] + 1


async def test_no_descriptor_is_left_by_a_cancel_at_any_moment(synthetic: str) -> None:
    async with client_of(synthetic) as client:
        await client.complete()
        before = _descriptors()
        for moment in range(40):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.complete, "a prompt [[stall:3]]")
                for _ in range(moment):
                    await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()
        for fault in ("reset:2", "not-http", "close", "http:500", "die:2"):
            await client.failure(f"a prompt [[{fault}]]")
        gc.collect()
        assert _descriptors() == before


def _descriptors() -> int:
    return len(list(Path("/dev/fd").iterdir()))


async def _synthetic_report(url: str) -> dict[str, Any]:
    async with httpx.AsyncClient(trust_env=False) as http:
        report: dict[str, Any] = (await http.get(url + "/synthetic")).json()
    return report


async def test_a_prompt_longer_than_the_context(synthetic: str) -> None:
    async with client_of(synthetic) as client:
        error = await client.failure("word " * 2000)
        assert error.code == ErrorCode.CONTEXT_EXCEEDED


async def test_not_there_and_later_there() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but nobody listens
        port = taken.getsockname()[1]
        async with client_of(f"http://127.0.0.1:{port}") as client:
            error = await client.failure()
            assert (error.code, error.retry) == (ErrorCode.UPSTREAM_UNAVAILABLE, True)
            assert error.retry_after
            assert error.message == "the upstream cannot be reached: connection refused"
            with pytest.raises(RequestError) as caught:
                await client.server.ask()
            assert caught.value.code == ErrorCode.UPSTREAM_UNAVAILABLE
            assert caught.value.message == error.message
            client.server.starting = True
            assert (await client.failure()).message == "the engine is starting again"
            client.server.starting = False
            taken.close()
            with synthetic_upstream.running("--port", str(port)):
                assert (await client.server.ask()).slots == 4


async def test_an_upstream_that_loads_is_not_ready() -> None:
    with synthetic_upstream.running("--loading", "3600") as url:
        async with client_of(url) as client:
            assert (await client.failure()).code == ErrorCode.UPSTREAM_UNAVAILABLE
            with pytest.raises(RequestError, match="not ready: Loading model"):
                await client.server.ask()


async def test_an_untrusted_certificate_is_refused(synthetic: str) -> None:
    async with _tls_before(synthetic, trustme.CA()) as url, client_of(url) as client:
        error = await client.failure()
        assert error.code == ErrorCode.UPSTREAM_UNAVAILABLE
        assert "certificate" in error.message.lower()


async def test_a_proxy_of_the_environment_is_not_for_a_plain_upstream(
    synthetic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    async with client_of(synthetic) as client:
        await client.server.ask()
        await client.complete()


async def test_a_crash_of_the_receiver_is_its_own_and_not_the_hubs(synthetic: str) -> None:
    def crash(events: list[CompletionEvent]) -> None:
        raise ZeroDivisionError

    async with client_of(synthetic) as client:
        with pytest.raises(ZeroDivisionError):
            await client.server.complete("x", {"n_predict": 3}, crash, lambda: None)
        await client.complete()


@BOTH
async def test_sent_is_told_before_the_answer_begins(
    kind: str, synthetic: str, trusted: trustme.CA
) -> None:
    async with _either(synthetic, kind, trusted) as client, trio.open_nursery() as nursery:
        nursery.start_soon(client.complete, "a prompt [[stall:0]]")
        with trio.fail_after(PATIENCE):
            while not client.sent:  # noqa: ASYNC110 -- a count, kept for other tests
                await trio.sleep(0.01)
        assert not client.events
        nursery.cancel_scope.cancel()
