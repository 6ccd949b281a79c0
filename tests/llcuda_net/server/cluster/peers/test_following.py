"""What becomes of a generation that is followed, at each end that its stream can have.

The other servers are scripted, over memory streams; every pause is the autojump clock's.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio
import trio.testing

import llcuda_protocol as wire
from llcuda_net.client.connection import ServerConnection
from llcuda_net.errors import ConnectError
from llcuda_net.generation.state import State
from llcuda_net.server.cluster.peers.connections import Place
from llcuda_net.server.cluster.peers.followed import Followed
from llcuda_net.server.cluster.peers.following import (
    LINGER,
    MISUNDERSTANDINGS,
    PATIENCE,
    Awaited,
    feed,
)
from llcuda_net.server.tcp.peers.facts import Begun, Over, Run, frames
from llcuda_net.storage.records import Level, Result, TokenLog
from tests.support.client.scripted_server import Peer

Clock = trio.testing.MockClock
ID = "g1"
Script = Callable[[Peer], Awaitable[None]]
RUN = Run(State.RUNNING, "http://u", {"name": "m"})


def result(*pieces: str, splices: Any = (), state: str = "done") -> Result:
    log = TokenLog([*pieces], [None] * len(pieces), None)
    return Result(
        id=ID, state=state, created=5, finished=6, request={"prompt": "p"}, log=log, splices=splices
    )


class Cluster:
    """Where the generation is: what the database says, in turn, the last one for ever.

    Attributes:
        scripts: what the servers do with each connection, in turn.
        asked: how often the database was asked.
    """

    def __init__(self, *places: Place | Result | Awaited | None) -> None:
        self.places = [*places]
        self.scripts: list[Script] = []
        self.asked = 0
        self.gone = False
        self.flushes = 0
        self._nursery: trio.Nursery

    async def place(self, followed: Followed) -> Place | Result | Awaited | None:
        self.asked += 1
        await trio.lowlevel.checkpoint()
        return self.places.pop(0) if len(self.places) > 1 else self.places[0]

    def is_gone(self, server: int) -> bool:
        return self.gone

    async def connect(self, place: Place, user: str | None) -> ServerConnection:
        if not self.scripts:
            raise ConnectError("nobody listens")
        near, far = trio.testing.memory_stream_pair()
        connection = ServerConnection(near, place.address, 20.0)
        peer = Peer(far)
        self._nursery.start_soon(connection.run)
        self._nursery.start_soon(self._serve, peer, self.scripts.pop(0))
        await connection.greet(None, 1.0)
        return connection

    async def _serve(self, peer: Peer, script: Script) -> None:
        await peer.greet()
        await script(peer)
        await peer.stream.aclose()

    def wake(self, generation: Followed) -> None:
        pass

    def flush(self) -> None:
        self.flushes += 1

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        async with trio.open_nursery() as self._nursery:
            yield
            self._nursery.cancel_scope.cancel()

    async def follow(self) -> tuple[Followed, Reader]:
        """Follow it to its end, with a reader."""
        followed = Followed(self, ID, "ann", 1)
        reader = Reader(followed)
        async with self.serving():
            await feed(followed, self)
        return followed, reader


class Reader:
    """Notes the pieces that it was shown."""

    def __init__(self, followed: Followed) -> None:
        self.followed = followed
        self.seen: list[str] = []
        followed.join(self)

    def pump(self) -> None:
        visible = self.followed.visible
        self.seen += self.followed.pieces[len(self.seen) : visible]


def begun(run: Run = RUN, **more: Any) -> Begun:
    values: dict[str, Any] = {"owner": "ann", "created": 5, "level": Level.CLUSTER, "params": {}}
    values |= {"timeout": 9.0, "on_disconnect": 30.0, "age": 1.0, "asked": ("p", None, None)}
    return Begun(run=run, **(values | more))


def over(state: str = "done", **more: Any) -> Over:
    values: dict[str, Any] = {"finished": 6, "reason": "stop", "stop": None, "model": "m"}
    values |= {"usage": {"completion_tokens": 2}, "timings": {}, "splices": []}
    return Over(State(state), **(values | more))


async def accept(peer: Peer, document: Begun | None = None, epoch: int = 0) -> wire.Attach:
    request = await peer.expect(wire.Attach)
    number = request.stream
    facts = frames(number, document or begun())
    await peer.send(*facts, wire.Accepted(number, ID, level="cluster", epoch=epoch))
    return request


def whole(*pieces: str, first: int = 0, end: Over | None = None) -> Script:
    """Send these and the end."""

    async def script(peer: Peer) -> None:
        request = await accept(peer)
        assert request.first == first
        number = request.stream
        last = end or over()
        error = wire.Error(number, "upstream_error", "it broke")
        await peer.send(
            wire.Tokens(number, first, [*pieces]),
            *frames(number, last),
            wire.Done(number, "stop") if last.error is None else error,
        )

    return script


A, B = Place(1, "a:9000"), Place(2, "b:9000")


async def test_to_its_end(autojump_clock: Clock) -> None:
    cluster = Cluster(A)
    cluster.scripts = [whole("x", "y")]
    followed, reader = await cluster.follow()
    assert (followed.state, reader.seen) == (State.DONE, ["x", "y"])
    assert (followed.owner, followed.prompt, followed.model) == ("ann", "p", {"name": "m"})
    assert followed.outcome.usage == {"completion_tokens": 2}
    assert cluster.flushes  # what readers took is sent: no publisher comes by
    assert cluster.asked == 1


async def test_an_error_is_its_end_only_with_facts(autojump_clock: Clock) -> None:
    cluster = Cluster(A)
    failed = over("failed", error=("upstream_error", "it broke", True, None))
    cluster.scripts = [whole("x", end=failed)]
    followed, _ = await cluster.follow()
    assert followed.state is State.FAILED
    assert followed.error is not None
    assert (followed.error.code, followed.error.message) == ("upstream_error", "it broke")


def leave(how: str) -> Script:
    """Send two pieces, and go."""

    async def script(peer: Peer) -> None:
        number = (await accept(peer)).stream
        await peer.send(wire.Tokens(number, 0, ["x", "y"]))
        if how != "lost":
            await peer.send(wire.Error(number, how, "not now", retry=True))

    return script


async def test_another_server_goes_on(autojump_clock: Clock) -> None:
    for how in ("lost", "shutting_down", "lease_lost"):
        cluster = Cluster(A, Awaited(), Awaited(), B)
        run = Run(State.RUNNING, "http://u", {"name": "m"}, splices=[(2, 77)])

        async def goes_on(peer: Peer, run: Run = run) -> None:
            request = await accept(peer, begun(run), 77)
            assert (request.first, request.epoch) == (2, 0)
            ended = frames(request.stream, over(splices=[(2, 77)]))
            tokens = wire.Tokens(request.stream, 2, ["z"])
            await peer.send(tokens, *ended, wire.Done(request.stream, "stop"))

        cluster.scripts = [leave(how), goes_on]
        followed, reader = await cluster.follow()
        assert (followed.state, reader.seen) == (State.DONE, ["x", "y", "z"]), how
        assert followed.epoch == 77
        assert [(one.position, one.epoch) for one in followed.failovers] == [(2, 77)]


async def test_the_store_has_the_rest(autojump_clock: Clock) -> None:
    cluster = Cluster(A, Awaited(), result("x", "y", "z"))
    cluster.scripts = [leave("lost")]
    followed, reader = await cluster.follow()
    assert (followed.state, reader.seen) == (State.DONE, ["x", "y", "z"])


async def test_what_was_read_is_lost(autojump_clock: Clock) -> None:
    """The one that went on had one piece, and made another second one."""
    from llcuda_net.storage.records import Splice

    cluster = Cluster(A, result("x", "Y", "z", splices=[Splice(1, "u", 77)]))
    cluster.scripts = [leave("lost")]
    followed, reader = await cluster.follow()
    assert (followed.state, reader.seen) == (State.INTERRUPTED, ["x", "y"])
    assert followed.error is not None
    assert followed.error.code == "interrupted"

    async def ahead(peer: Peer) -> None:
        number = (await peer.expect(wire.Attach)).stream
        await peer.send(wire.Error(number, "ahead", "lost", durable=1))

    cluster = Cluster(A, B)
    cluster.scripts = [leave("lost"), ahead]
    followed, reader = await cluster.follow()
    assert (followed.state, reader.seen) == (State.INTERRUPTED, ["x", "y"])


async def test_nobody_has_it_any_more(autojump_clock: Clock) -> None:
    cluster = Cluster(A, None)
    cluster.scripts = [leave("lost")]
    cluster.gone = True
    followed, _ = await cluster.follow()
    assert followed.state is State.INTERRUPTED
    assert followed.error is not None
    assert followed.error.code == "unknown_generation"
    assert PATIENCE < trio.current_time() < PATIENCE + 3


async def test_a_server_that_cannot_be_reached_is_waited_for(autojump_clock: Clock) -> None:
    cluster = Cluster(A)
    followed = Followed(cluster, ID, "ann", 1)
    reader = Reader(followed)
    async with cluster.serving(), trio.open_nursery() as nursery:
        nursery.start_soon(feed, followed, cluster)
        await trio.sleep(100)
        assert not followed.ended
        assert cluster.asked < 110  # at most each second
        cluster.scripts = [whole("x")]
        await followed.link.ready.wait()
    assert reader.seen == ["x"]


async def test_without_a_reader_it_rests(autojump_clock: Clock) -> None:
    cluster = Cluster(A)
    left = trio.Event()

    async def runs(peer: Peer) -> None:
        request = await accept(peer)
        await peer.send(wire.Tokens(request.stream, 0, ["x"]))
        cancel = await peer.expect(wire.Cancel)
        assert cancel.detach
        left.set()
        await peer.send(wire.Done(request.stream, "detached"))

    cluster.scripts = [runs]
    followed = Followed(cluster, ID, "ann", 1)
    reader = Reader(followed)
    async with cluster.serving(), trio.open_nursery() as nursery:
        nursery.start_soon(feed, followed, cluster)
        await followed.link.ready.wait()
        followed.readers.remove(reader)
        followed.left()
        begun_at = trio.current_time()
        await left.wait()
        assert trio.current_time() - begun_at <= 2 * LINGER
    assert not followed.ended
    cluster.scripts = [whole("y", first=1)]
    followed.join(reader)
    async with cluster.serving():
        await feed(followed, cluster)
    assert reader.seen == ["x", "y"]


async def test_a_cancel_and_a_policy_are_passed_on(autojump_clock: Clock) -> None:
    cluster = Cluster(A)
    told: list[Any] = []

    async def runs(peer: Peer) -> None:
        number = (await accept(peer)).stream
        for _ in range(2):
            request = await peer.expect(wire.Attach)
            told.append((request.peer, (await peer.expect(wire.Cancel)).detach))
            await peer.send(wire.Accepted(request.stream, ID), wire.Done(request.stream, "stop"))
        await peer.send(*frames(number, over("cancelled")), wire.Done(number, "cancelled"))

    cluster.scripts = [runs]
    followed = Followed(cluster, ID, "ann", 1)
    Reader(followed)
    async with cluster.serving(), trio.open_nursery() as nursery:
        nursery.start_soon(feed, followed, cluster)
        await followed.link.ready.wait()
        followed.on_disconnect = 0.0
        await trio.testing.wait_all_tasks_blocked()
        followed.cancel()
        assert followed.scope.cancel_called
    assert told == [({"on_disconnect": 0.0}, True), (None, False)]
    assert followed.state is State.CANCELLED


async def test_who_breaks_the_protocol_is_asked_again(autojump_clock: Clock) -> None:
    async def doubles(peer: Peer) -> None:
        number = (await accept(peer)).stream
        await peer.send(wire.Facts(number, b"\xc1"))

    cluster = Cluster(A)
    cluster.scripts = [doubles, whole("x")]
    _, reader = await cluster.follow()
    assert reader.seen == ["x"]


async def test_a_server_that_is_not_understood_is_asked_a_few_times_and_no_more(
    autojump_clock: Clock,
) -> None:
    async def nonsense(peer: Peer) -> None:
        request = await accept(peer)
        await peer.send(wire.Facts(request.stream, b"\xc1", False))
        await peer.receive()

    cluster = Cluster(Place(1, "a:1"))
    cluster.scripts = [nonsense] * 9
    followed, _ = await cluster.follow()
    assert followed.state is State.INTERRUPTED
    assert followed.error is not None
    assert "cannot be read at the server that has it" in followed.error.message
    assert len(cluster.scripts) == 9 - MISUNDERSTANDINGS
