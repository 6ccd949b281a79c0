"""Clients are greeted while the server still starts, and their requests wait."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from llcuda_net.config.settings import Settings
from llcuda_net.config.users import ANONYMOUS
from llcuda_net.errors import Overloaded
from llcuda_net.server.gateway import Gateway
from llcuda_net.server.http.monitor import Monitor
from llcuda_net.telemetry.readiness import Startup
from llcuda_protocol import (
    Accepted,
    Attach,
    Cancel,
    Done,
    Error,
    ErrorCode,
    Ping,
    Pong,
    Report,
    Status,
)
from tests.support.server.constraint_checks import checks_here
from tests.support.server.memory_server import (
    FakeUpstream,
    MemoryListener,
    ask,
    pool_of,
    ready,
)

PHASE = "recovering the journal, 45 %"


@contextlib.asynccontextmanager
async def starting(
    upstream: FakeUpstream, **settings: Any
) -> AsyncIterator[tuple[Gateway, MemoryListener, Monitor, trio.Nursery]]:
    """A server whose start is not over; `nursery.start(server.run)` makes it so."""
    settings.setdefault("analysis", False)
    startup = Startup(lambda: PHASE)
    monitor = Monitor(startup=startup)
    listener = MemoryListener()
    pool, poller = pool_of(upstream)
    server = Gateway(
        Settings(**settings),
        pool,
        poller,
        monitor=monitor.respond,
        checks=checks_here(),
        startup=startup,
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.listener.run, [listener], nursery)
        yield server, listener, monitor, nursery
        nursery.cancel_scope.cancel()


async def test_clients_are_greeted_and_requests_wait(autojump_clock: trio.abc.Clock) -> None:
    async with starting(FakeUpstream()) as (server, listener, _, nursery):
        peer = await ready(listener)
        await peer.send(ask("one two"), Status(3), Attach(5, "nothing", 0, 100), Ping(b"here"))
        assert await peer.next() == Pong(b"here")
        await wait_all_tasks_blocked()
        assert server.starting
        await nursery.start(server.run)
        assert not server.starting
        found = [await peer.next() for _ in range(3)]
        assert {type(one) for one in found} >= {Accepted, Error, Report} - {Accepted}
        error = next(one for one in found if isinstance(one, Error))
        assert (error.stream, error.code) == (5, ErrorCode.UNKNOWN_GENERATION)


async def test_an_answer_comes_when_the_start_is_over(autojump_clock: trio.abc.Clock) -> None:
    async with starting(FakeUpstream()) as (server, listener, _, nursery):
        peer = await ready(listener)
        await peer.send(ask("one two three"))
        await trio.sleep(300)
        await nursery.start(server.run)
        pieces, done = await peer.until(Done)
        assert ("".join(pieces), done.reason) == ("one two three", "stop")
        await peer.send(ask("four", stream=2))
        assert (await peer.until(Done, 2))[0] == ["four"]


@pytest.mark.parametrize("clients", [1, 5])
async def test_requests_go_on_in_the_order_in_which_they_came(
    autojump_clock: trio.abc.Clock, clients: int
) -> None:
    upstream = FakeUpstream(slots=1)
    async with starting(upstream) as (server, listener, _, nursery):
        peers = [await ready(listener) for _ in range(clients)]
        for number in range(20):
            await peers[number % clients].send(ask(f"n{number}", stream=number + 1))
            await wait_all_tasks_blocked()
        await nursery.start(server.run)
        for number in range(20):
            peer = peers[number % clients]
            if clients == 1 and number < 19:
                continue
            await peer.until(Done, number + 1)
        assert [*map(str, upstream.prompts)] == [f"n{number}" for number in range(20)]


async def test_what_is_cancelled_meanwhile_does_not_begin(autojump_clock: trio.abc.Clock) -> None:
    upstream = FakeUpstream()
    async with starting(upstream) as (server, listener, _, nursery):
        peer, other = await ready(listener), await ready(listener)
        await peer.send(ask("one two three"), Cancel(1))
        await other.send(ask("four five six"))
        await wait_all_tasks_blocked()
        await other.stream.aclose()
        await wait_all_tasks_blocked()
        await nursery.start(server.run)
        pieces, done = await peer.until(Done)
        assert (pieces, done.reason) == ([], "cancelled")
        await wait_all_tasks_blocked()
        assert upstream.prompts == []


async def test_what_waits_is_bounded_by_memory(autojump_clock: trio.abc.Clock) -> None:
    async with starting(FakeUpstream(), memory_limit=128 << 20) as (server, _, _, nursery):
        most = server.memory.bounds.user
        nursery.start_soon(server.started, ANONYMOUS, most)
        await wait_all_tasks_blocked()
        with pytest.raises(Overloaded):
            await server.started(ANONYMOUS, 1)
        await nursery.start(server.run)
        await server.started(ANONYMOUS, 1)


async def test_the_start_ends_although_more_and_more_requests_come() -> None:
    startup = Startup(lambda: PHASE)
    asked = 0

    async def ask_again_and_again() -> None:
        nonlocal asked
        while startup.reason is not None:
            asked += 1
            assert asked < 100
            await startup.wait()

    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(ask_again_and_again)
        await wait_all_tasks_blocked()
        await startup.finish()
    assert startup.reason is None


async def test_readiness_says_what_it_waits_for(autojump_clock: trio.abc.Clock) -> None:
    async with starting(FakeUpstream()) as (server, listener, monitor, nursery):
        for path, status in (("/healthz", b"200"), ("/readyz", b"503")):
            stream = listener.connect_raw()
            await stream.send_all(b"GET %b HTTP/1.1\r\nHost: localhost\r\n\r\n" % path.encode())
            answer = bytes(await stream.receive_some(4096))
            assert answer.startswith(b"HTTP/1.1 " + status)
            assert (PHASE.encode() in answer) == (path == "/readyz")
            await stream.aclose()
        asking = listener.connect_raw()
        await asking.send_all(b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await wait_all_tasks_blocked()
        await nursery.start(server.run)
        monitor.watch(server)
        assert b'"fake"' in bytes(await asking.receive_some(4096))
