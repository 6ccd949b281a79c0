"""What is looked for at all other servers, when some of them do not answer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from typing import Any

import pytest
import structlog
import trio
import trio.testing

import llcuda_protocol as wire
from llcuda_net.client.connection import ServerConnection
from llcuda_net.cluster.leases import Member
from llcuda_net.config.users import User
from llcuda_net.errors import ConnectError, LeaseLost, RequestError, StorageUnavailable
from llcuda_net.generation.state import State
from llcuda_net.server.cluster.peers import peers as peers_module
from llcuda_net.server.cluster.peers.connections import Place
from llcuda_net.server.cluster.peers.followed import Followed
from llcuda_net.server.cluster.peers.peers import ANSWER, Peers
from tests.support.client.scripted_server import Peer

ID = "019b0000-0000-7000-8000-000000000000"


class Cluster:
    """Three servers of which this one is the first; the database knows of no generation."""

    number = 1
    members = tuple(
        Member(n, name, f"h:{n}", 0.0, 5.0) for n, name in ((1, "a"), (2, "b"), (3, "c"))
    )

    async def ask(self, what: str, question: Callable[[Any], Any]) -> None:
        await trio.lowlevel.checkpoint()


class Away(Cluster):
    """The database does not answer."""

    async def ask(self, what: str, question: Callable[[Any], Any]) -> None:
        raise StorageUnavailable("it does not answer", retry=True)


class ScriptedPeers(Peers):
    """Whose other servers are scripted."""

    def __init__(self, *scripts: Callable[[Peer], Awaitable[None]] | None) -> None:
        super().__init__(Cluster(), None, b"secret", b"")  # type: ignore[arg-type]
        self.scripts = dict(zip((2, 3), scripts, strict=True))
        self.nursery: trio.Nursery

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        async with trio.open_nursery() as self.nursery:
            yield
            self.nursery.cancel_scope.cancel()

    async def connect(self, place: Place, user: str | None) -> ServerConnection:
        script = self.scripts[place.number]
        if script is None:
            raise ConnectError("nobody listens")
        near, far = trio.testing.memory_stream_pair()
        connection = ServerConnection(near, place.address, 20.0)
        self.nursery.start_soon(connection.run)
        self.nursery.start_soon(self._serve, Peer(far), script)
        await connection.greet(None, 1.0)
        return connection

    async def _serve(self, peer: Peer, script: Callable[[Peer], Awaitable[None]]) -> None:
        await peer.greet()
        await script(peer)


async def has_nothing(peer: Peer) -> None:
    asked = await peer.receive()
    assert isinstance(asked, wire.Attach | wire.Delete)
    await peer.send(wire.Error(asked.stream, "unknown_generation", "it is not here"))
    await trio.sleep_forever()


async def is_silent(peer: Peer) -> None:
    await trio.sleep_forever()


@pytest.mark.parametrize("other", [None, is_silent])
async def test_what_a_server_that_does_not_answer_may_have_is_not_unknown(
    other: Callable[[Peer], Awaitable[None]] | None, autojump_clock: object
) -> None:
    peers = ScriptedPeers(has_nothing, other)
    for look in (peers.find, peers.delete):
        async with peers.serving():
            started = trio.current_time()
            with pytest.raises(LeaseLost, match="c does not answer") as refused:
                await look(ID, "ann")
            assert refused.value.retry
            assert trio.current_time() - started <= ANSWER


async def test_what_all_servers_say_that_they_do_not_have_is_unknown(
    autojump_clock: object,
) -> None:
    peers = ScriptedPeers(has_nothing, has_nothing)
    async with peers.serving():
        assert await peers.find(ID, "ann") is None
        assert not await peers.delete(ID, "ann")


async def test_a_start_in_which_the_database_goes_away_goes_on(autojump_clock: object) -> None:
    """All that is needed of the database is known once this server has joined the others."""
    async with trio.open_nursery() as nursery:
        peers = Peers(Away(), None, b"secret", b"")  # type: ignore[arg-type]
        await nursery.start(peers.run)
        nursery.cancel_scope.cancel()


async def test_a_bug_in_following_one_ends_that_one(
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def crash(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(peers_module, "feed", crash)
    peers = ScriptedPeers(None, None)
    monkeypatch.setattr(peers, "flush", lambda: None)
    async with trio.open_nursery() as peers._nursery:
        followed = Followed(peers, ID, "ann", 2)
        with structlog.testing.capture_logs() as lines:
            await followed.wait()
        assert followed.state is State.INTERRUPTED
    assert [one["event"] for one in lines] == ["following_failed"]


def refuses(code: str, *, retry: bool = False) -> Callable[[Peer], Awaitable[None]]:
    async def script(peer: Peer) -> None:
        asked = await peer.expect(wire.Embed)
        await peer.send(wire.Error(asked.stream, code, "not here", retry=retry))
        await trio.sleep_forever()

    return script


async def is_lost(peer: Peer) -> None:
    await peer.expect(wire.Embed)
    await peer.stream.aclose()


async def embeds(peer: Peer) -> None:
    asked = await peer.expect(wire.Embed)
    await peer.send(wire.Vectors(asked.stream, 0, [b"1234"]), wire.Done(asked.stream, "stop"))
    await trio.sleep_forever()


async def embedded(*scripts: Callable[[Peer], Awaitable[None]] | None) -> object:
    """The vectors, or the code of the error."""

    def choose(asked: Collection[int]) -> int | None:
        return next((one for one in (2, 3) if one not in asked), None)

    peers = ScriptedPeers(*scripts)
    async with peers.serving():
        try:
            return await peers.embed(["a"], User(name="ann"), "m", choose)
        except RequestError as error:
            return error.code
    raise AssertionError


@pytest.mark.parametrize(
    "first",
    [
        None,
        is_lost,
        refuses("upstream_unavailable"),
        refuses("shutting_down", retry=True),
        refuses("lease_lost", retry=True),
    ],
)
async def test_texts_that_a_server_does_not_embed_the_next_one_does(
    first: Callable[[Peer], Awaitable[None]] | None, autojump_clock: object
) -> None:
    assert await embedded(first, embeds) == [b"1234"]
    assert await embedded(embeds, first) == [b"1234"]
    assert isinstance(await embedded(first, first), str)  # not for ever


async def test_texts_that_no_server_would_embed_are_sent_to_one(autojump_clock: object) -> None:
    assert await embedded(refuses("invalid_request"), embeds) == "invalid_request"
