"""The network between the parties of a cluster: every connection goes through a gate that we hold.

    server s1 ──▶ gate of upstream-2 ──▶ upstream-2          link (s1, upstream-2)
    server s2 ──▶ gate of s1 ──────────▶ s1                  link (s2, s1)
    clients ────▶ front gate of s1 ────▶ s1                  link (clients, s1)

A gate is the address at which a party is known to others. Whoever connects to it is found by the
process that holds the other end, so that all may use one address. Between two parties there is one
link, whatever the direction. A link is open, silent (nothing passes, nothing is refused; what was
under way passes later), cut (connections are reset, new ones refused), or slow.
"""

from __future__ import annotations

import contextlib
import random
import socket
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from enum import StrEnum

import trio

_SLICE = 65_536
#: SO_LINGER of no seconds: closing resets.
_RESET = struct.pack("ii", 1, 0)

#: Who connects: of the ports of the connection, the other side's and the gate's.
Who = Callable[[int, int], str | None]


class State(StrEnum):
    """What a link does with bytes."""

    OPEN = "open"
    SILENT = "silent"
    CUT = "cut"


class Link:
    """What is between two parties.

    Attributes:
        state: open, silent or cut.
        delay: most seconds that a slice takes; drawn for each.
    """

    def __init__(self, parties: frozenset[str]) -> None:
        self.parties = parties
        self.state = State.OPEN
        self.delay = 0.0
        self._changed = trio.Event()
        self._connections: set[trio.CancelScope] = set()

    def __repr__(self) -> str:
        return f"<Link {'-'.join(sorted(self.parties))} {self.state}>"

    def set(self, state: State) -> None:
        """Change the state. What is cut is gone; what was silent goes on."""
        self.state = state
        self._changed.set()
        self._changed = trio.Event()
        if state is State.CUT:
            self.reset()

    def reset(self) -> None:
        """Reset every connection over it."""
        for scope in self._connections:
            scope.cancel()

    async def ready(self) -> bool:
        """Wait while it is silent; False: it is cut."""
        while self.state is State.SILENT:
            await self._changed.wait()
        return self.state is State.OPEN

    @contextlib.contextmanager
    def connection(self) -> Iterator[trio.CancelScope]:
        """Around a connection over it; its scope is cancelled where the connection is reset."""
        with trio.CancelScope() as scope:
            self._connections.add(scope)
            try:
                yield scope
            finally:
                self._connections.discard(scope)


class Network:
    """All links, made when they are first needed."""

    def __init__(self, rng: random.Random) -> None:
        self.counts: Counter[str] = Counter()
        self.rng = rng
        self._links: dict[frozenset[str], Link] = {}

    def link(self, one: str, other: str) -> Link:
        """What is between two parties."""
        parties = frozenset((one, other))
        if parties not in self._links:
            self._links[parties] = Link(parties)
        return self._links[parties]

    def heal(self) -> None:
        """Open every link."""
        for link in self._links.values():
            link.delay = 0.0
            link.set(State.OPEN)


class Gate:
    """The address of a party, on 127.0.0.1.

    Args:
        target: the party behind it.
        who: who connects; a name, or how to find it. Nobody: the connection is reset.
        port: of the party; may change.
    """

    def __init__(self, network: Network, target: str, who: str | Who, port: int) -> None:
        self.target = target
        self.target_port = port
        self.port = 0
        self._network = network
        self._who = who

    @property
    def address(self) -> str:
        """HOST:PORT."""
        return f"127.0.0.1:{self.port}"

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled."""
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1", backlog=512)
        self.port = listener.socket.getsockname()[1]
        task_status.started()
        await trio.serve_listeners(self._serve, [listener])

    async def _serve(self, source: trio.SocketStream) -> None:
        async with source:
            who = self._who
            if not isinstance(who, str):
                try:
                    peer = source.socket.getpeername()[1]
                except OSError:  # it has gone already
                    return
                found = who(peer, self.port)
                if found is None:
                    self._network.counts["unknown"] += 1
                    _reset(source)
                    return
                who = found
            self._network.counts["connections"] += 1
            link = self._network.link(who, self.target)
            with link.connection() as scope:
                await self._join(link, source, scope)
            if scope.cancelled_caught:
                _reset(source)

    async def _join(self, link: Link, source: trio.SocketStream, scope: trio.CancelScope) -> None:
        if not await link.ready():
            _reset(source)
            return
        try:
            target = await trio.open_tcp_stream("127.0.0.1", self.target_port)
        except OSError:
            _reset(source)
            return
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._copy, link, source, target, nursery.cancel_scope)
                nursery.start_soon(self._copy, link, target, source, nursery.cancel_scope)
        finally:
            if scope.cancel_called:
                _reset(target)
            target.socket.close()

    async def _copy(
        self,
        link: Link,
        source: trio.SocketStream,
        target: trio.SocketStream,
        both: trio.CancelScope,
    ) -> None:
        rng = self._network.rng
        try:
            while data := await source.receive_some(_SLICE):
                if not await link.ready():
                    break
                if link.delay:
                    await trio.sleep(rng.uniform(0.0, link.delay))
                await target.send_all(data)
            else:
                await target.send_eof()
                await trio.sleep(_LAST)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        both.cancel()


#: Seconds for the other side to end, once one has.
_LAST = 1.0


def _reset(stream: trio.SocketStream) -> None:
    """Reset a connection."""
    with contextlib.suppress(OSError):
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    stream.socket.close()
