"""The process of the no-op server: one thread, sockets, and whose answer is next.

Its first line is "listening on HOST:PORT", and it ends when stdin is closed. Each token is a write
of its own, as of a server that streams; answers that are under way at the same time take turns,
token by token. It must cost less per token than the client that reads it: no event loop is between
it and the sockets.
"""

from __future__ import annotations

import selectors
import socket
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import suppress

from llcuda_net.bench.noop.http import HttpSide
from llcuda_net.bench.noop.llcuda import LlcudaSide
from llcuda_net.util.terminal import echo

#: The command that runs it.
COMMAND = (sys.executable, "-m", "llcuda_net.bench.noop.server")
_READ = 64 << 10
_BACKLOG = 4096


class _Peer:
    """One client's connection.

    Attributes:
        blocked: it does not take what is sent until its socket can be written again.
    """

    def __init__(self, stream: socket.socket) -> None:
        stream.setblocking(False)
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.stream = stream
        self.blocked = False
        self._side: HttpSide | LlcudaSide | None = None
        self._answers: deque[Iterator[bytes]] = deque()
        self._waiting: list[Iterator[bytes]] = []  # until more has come
        self._unsent = b""

    def receive(self) -> bool:
        """Read what came; False where the client has gone."""
        try:
            data = self.stream.recv(_READ)
        except BlockingIOError:
            return True
        except OSError:
            return False
        if not data:
            return False
        if self._side is None:
            self._side = HttpSide() if data.startswith((b"GET ", b"POST ")) else LlcudaSide()
        self._answers.extend([*self._waiting, *self._side.feed(data)])
        self._waiting.clear()
        return True

    @property
    def busy(self) -> bool:
        """Whether something is to be sent to it."""
        return bool(self._unsent or self._answers)

    def send(self) -> bool:
        """Send one token of one answer; False where the connection is over."""
        data = self._unsent
        while not data and self._answers:
            answer = self._answers.popleft()
            found = next(answer, None)
            if found is not None:
                data = found
                (self._answers if data else self._waiting).append(answer)
        try:
            self._unsent = data[self.stream.send(data) :] if data else b""
            self.blocked = bool(self._unsent)
        except BlockingIOError:
            self._unsent, self.blocked = data, True
        except OSError:
            return False
        return self.busy or self._side is None or not self._side.closing


def serve(listener: socket.socket, until: int) -> None:
    """Answer all clients until the file `until` is at its end."""
    listener.setblocking(False)
    busy: dict[_Peer, None] = {}
    with selectors.DefaultSelector() as selector:
        selector.register(listener, selectors.EVENT_READ)
        selector.register(until, selectors.EVENT_READ)

        def drop(peer: _Peer) -> None:
            busy.pop(peer, None)
            selector.unregister(peer.stream)
            peer.stream.close()

        while True:
            for key, events in selector.select(0 if busy else None):
                if key.fd == until:
                    return
                peer = key.data
                if peer is None:
                    with suppress(OSError):
                        stream, _ = listener.accept()
                        selector.register(stream, selectors.EVENT_READ, _Peer(stream))
                    continue
                if events & selectors.EVENT_WRITE:
                    selector.modify(peer.stream, selectors.EVENT_READ, peer)
                elif not peer.receive():
                    drop(peer)
                    continue
                if peer.busy:
                    busy[peer] = None
            for peer in list(busy):
                if not peer.send():
                    drop(peer)
                elif peer.blocked:
                    busy.pop(peer)
                    both = selectors.EVENT_READ | selectors.EVENT_WRITE
                    selector.modify(peer.stream, both, peer)
                elif not peer.busy:
                    busy.pop(peer)


def main() -> None:
    """Serve until stdin is closed."""
    with socket.create_server(("127.0.0.1", 0), backlog=_BACKLOG) as listener:
        echo(f"listening on 127.0.0.1:{listener.getsockname()[1]}", flush=True)
        serve(listener, sys.stdin.fileno())


if __name__ == "__main__":
    main()
