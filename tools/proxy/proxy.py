"""A TCP proxy that cuts, stalls and delays the connections through it, at random.

    clients ──▶ proxy ──▶ llcuda-server

It forwards slices of random size, so that frames are torn anywhere. Each connection works for a
while, and then something happens to it; some are refused at once.
"""

from __future__ import annotations

import contextlib
import random
import socket
import struct
from collections import Counter
from dataclasses import dataclass

import trio

#: What happens to a connection, as shares of a hundred.
TROUBLES = {
    "reset": 20,
    "close": 20,
    "half-close": 10,
    "stall": 25,
    "stall-for-good": 10,
    "slow": 15,
}
#: Of a hundred connections, how many are closed before anything is forwarded.
REFUSED = 6
_SLICE = 4096
#: SO_LINGER of no seconds: closing resets.
_RESET = struct.pack("ii", 1, 0)


@dataclass(frozen=True)
class Timing:
    """How often there are troubles, and for how long; all in seconds.

    Attributes:
        peace: mean time from one trouble of a connection to the next.
        stall: the longest time for which a stalled connection forwards nothing.
        slow: the longest delay of a slice while a connection is slow.
    """

    peace: float = 3.0
    stall: float = 6.0
    slow: float = 0.08


class Proxy:
    """Forwards connections to a server, with troubles.

    Attributes:
        port: its port on 127.0.0.1, once it runs.
        counts: how often each trouble happened.
    """

    def __init__(self, server_port: int, rng: random.Random, timing: Timing) -> None:
        self.port = 0
        self.counts: Counter[str] = Counter()
        self._server_port = server_port
        self._rng = rng
        self._timing = timing
        self._listener: trio.SocketListener

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled."""
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.port = listener.socket.getsockname()[1]
        task_status.started()
        await trio.serve_listeners(self._serve, [listener])

    async def _serve(self, client: trio.SocketStream) -> None:
        self.counts["connections"] += 1
        if self._rng.random() * 100 < REFUSED:
            self.counts["refused"] += 1
            _reset(client)
            return
        try:
            server = await trio.open_tcp_stream("127.0.0.1", self._server_port)
        except OSError:
            _reset(client)
            return
        connection = _Connection(client, server, self._rng, self._timing, self.counts)
        await connection.run()


class _Connection:
    def __init__(
        self,
        client: trio.SocketStream,
        server: trio.SocketStream,
        rng: random.Random,
        timing: Timing,
        counts: Counter[str],
    ) -> None:
        self._client = client
        self._server = server
        self._rng = rng
        self._timing = timing
        self._counts = counts
        self._delay = 0.0
        self._moves = trio.Event()
        self._moves.set()

    async def run(self) -> None:
        """Forward until one side or a trouble ends it."""
        async with self._client, self._server, trio.open_nursery() as nursery:
            nursery.start_soon(self._trouble, nursery.cancel_scope)
            async with trio.open_nursery() as both:
                both.start_soon(self._forward, self._client, self._server, both.cancel_scope)
                both.start_soon(self._forward, self._server, self._client, both.cancel_scope)
            nursery.cancel_scope.cancel()

    async def _forward(
        self, from_: trio.SocketStream, to: trio.SocketStream, both: trio.CancelScope
    ) -> None:
        rng = self._rng
        try:
            while data := await from_.receive_some(rng.randint(1, _SLICE)):
                await self._moves.wait()
                if self._delay:
                    await trio.sleep(rng.uniform(0.0, self._delay))
                await to.send_all(data)
                self._counts["bytes"] += len(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        both.cancel()

    async def _trouble(self, scope: trio.CancelScope) -> None:
        rng, timing = self._rng, self._timing
        while True:
            await trio.sleep(rng.expovariate(1.0 / timing.peace))
            what = rng.choices(list(TROUBLES), list(TROUBLES.values()))[0]
            self._counts[what] += 1
            if what in ("reset", "close"):
                if what == "reset":
                    _reset(self._client)
                    _reset(self._server)
                scope.cancel()
                return
            if what == "half-close":
                # One side sees the end of the other's data.
                with contextlib.suppress(OSError):  # the socket itself: its stream may be sending
                    rng.choice([self._client, self._server]).socket.shutdown(socket.SHUT_WR)
            elif what == "slow":
                self._delay = timing.slow
                await trio.sleep(rng.expovariate(1.0 / timing.peace))
                self._delay = 0.0
            else:
                self._moves = trio.Event()
                if what == "stall":
                    await trio.sleep(rng.uniform(0.0, timing.stall))
                    self._moves.set()
                else:
                    await trio.sleep_forever()  # until one side gives up


def _reset(stream: trio.SocketStream) -> None:
    """Reset a connection."""
    with contextlib.suppress(OSError):
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    stream.socket.close()
