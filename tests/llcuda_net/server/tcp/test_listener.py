"""One port: the first bytes choose the protocol, and all connections share the places."""

from __future__ import annotations

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from llcuda_net.server.http.monitor import Monitor
from llcuda_net.server.tcp.listener import MAX_GREETING
from llcuda_protocol import PREFACE, Done, Ping, Pong
from tests.support.server.http_client import HttpPeer
from tests.support.server.memory_server import FakeUpstream, MemoryListener, ask, ready, serving


async def healthy(listener: MemoryListener) -> HttpPeer:
    """An HTTP connection that was answered and rests."""
    peer = HttpPeer(listener.connect_raw())
    assert (await peer.ask("GET", "/healthz")).status == 200
    await wait_all_tasks_blocked()
    return peer


async def closed(peer: HttpPeer) -> bool:
    """Whether the server has closed a connection that rests."""
    with trio.move_on_after(0.1):
        return await peer.rest() == b""
    return False


async def test_both_protocols_are_spoken_on_one_port(autojump_clock: trio.abc.Clock) -> None:
    async with serving(FakeUpstream()) as (server, listener):
        server.monitor = Monitor().respond
        web = await healthy(listener)
        peer = await ready(listener)
        await peer.send(ask())
        await peer.until(Done, 1)
        assert (await web.ask("GET", "/metrics")).status == 200
        assert (await web.ask("GET", "/healthz")).status == 200


async def test_bytes_that_come_one_by_one_are_told_apart(autojump_clock: trio.abc.Clock) -> None:
    async with serving(FakeUpstream()) as (server, listener):
        server.monitor = Monitor().respond
        peer = HttpPeer(listener.connect_raw())
        for byte in b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n":
            await peer.send(bytes([byte]))
            await trio.sleep(0.01)
        assert (await peer.answer()).status == 200


async def test_a_method_that_nobody_knows_is_http(autojump_clock: trio.abc.Clock) -> None:
    async with serving(FakeUpstream()) as (_, listener):
        peer = HttpPeer(listener.connect_raw())
        answer = await peer.ask("QUERY", "/v1/models")
        assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD, OPTIONS")


@pytest.mark.parametrize(
    ("first", "answer"), [(b"", b"greeting"), (b"GET", b" 408 "), (PREFACE[:2], b"greeting")]
)
async def test_a_client_that_says_nothing_more_is_dropped(
    first: bytes, answer: bytes, autojump_clock: trio.abc.Clock
) -> None:
    async with serving(FakeUpstream(), handshake_timeout=5.0) as (_, listener):
        peer = HttpPeer(listener.connect_raw())
        await peer.send(first)
        begun = trio.current_time()
        assert answer in await peer.rest()
        assert trio.current_time() - begun == pytest.approx(5.0, abs=2.1)


async def test_connections_that_rest_give_way_the_oldest_first(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with serving(FakeUpstream(), max_connections=3) as (server, listener):
        server.monitor = Monitor().respond
        resting = [await healthy(listener) for _ in range(3)]
        assert (await resting[0].ask("GET", "/healthz")).status == 200  # now it is the youngest
        await ready(listener)
        assert await closed(resting[1])
        await ready(listener)
        assert await closed(resting[2])
        assert not await closed(resting[0])
        await ready(listener)
        assert await closed(resting[0])
        assert len(server.listener.sessions) == 3
        # There is no place for another, and health is answered nevertheless.
        last = await healthy(listener)
        assert await closed(last)
        refused = HttpPeer(listener.connect_raw())
        assert (await refused.ask("GET", "/v1/models")).status == 429


async def test_silent_connections_keep_nobody_out(autojump_clock: trio.abc.Clock) -> None:
    async with serving(FakeUpstream(), handshake_timeout=60.0) as (server, listener):
        server.monitor = Monitor().respond
        silent = []
        for number in range(2 * MAX_GREETING):
            silent.append(HttpPeer(listener.connect_raw()))
            await silent[-1].send(b"GET /healthz HTTP/1.1\r\n" if number % 2 else b"")
        await wait_all_tasks_blocked()
        await healthy(listener)
        await ready(listener)


async def test_a_drain_waits_for_requests_over_http(autojump_clock: trio.abc.Clock) -> None:
    upstream = FakeUpstream()
    upstream.paused = True
    async with serving(upstream) as (server, listener):
        peer = HttpPeer(listener.connect_raw())
        body = b'{"model":"fake","messages":[{"role":"user","content":"one two"}]}'
        await peer.send(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n")
        await peer.send(b"Content-Length: %d\r\n\r\n" % len(body) + body)
        await wait_all_tasks_blocked()
        assert server.listener.busy
        assert server.standing.streams == 1
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.drain, 10.0)
            await trio.sleep(1)
            upstream.release(100)
            answer = await peer.answer()
        assert (answer.status, answer.headers["connection"]) == (200, "close")


@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    sent=st.lists(
        st.one_of(
            st.binary(max_size=60),
            st.sampled_from(
                [
                    b"GET ",
                    b"POST /v1/chat/completions HTTP/1.1\r\n",
                    b"Host: localhost\r\n",
                    b"\r\n",
                    b"Content-Length: 5\r\n",
                    b"Transfer-Encoding: chunked\r\n",
                    PREFACE,
                    b"{}",
                    b"0\r\n\r\n",
                ]
            ),
        ),
        max_size=8,
    )
)
async def test_no_bytes_hurt_the_other_protocol(
    sent: list[bytes], autojump_clock: trio.abc.Clock
) -> None:
    async with serving(FakeUpstream()) as (_, listener):
        peer = await ready(listener)
        hostile = HttpPeer(listener.connect_raw())
        for part in sent:
            with trio.move_on_after(1):
                try:
                    await hostile.send(part)
                except trio.BrokenResourceError:
                    break
        with trio.fail_after(300):
            await hostile.rest()  # it is closed in the end, whatever it sent
        await peer.send(Ping(b"12345678"))
        assert isinstance(await peer.next(), Pong)
