"""Plain readers of event streams: they count what comes, and do nothing with it."""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tools.page_bench.rig import BenchError

#: Seconds for the heads of all answers.
_PATIENCE = 30.0


class Readers:
    """A connection per stream, all read by one loop.

    Attributes:
        bytes: that came in all.
    """

    def __init__(self) -> None:
        self.bytes = 0
        self._selector = selectors.DefaultSelector()

    def add(self, address: tuple[str, int], path: str) -> None:
        """Ask for a stream of events."""
        sock = socket.create_connection(address)
        head = f"GET {path} HTTP/1.1\r\nHost: {address[0]}:{address[1]}\r\n"
        sock.sendall(f"{head}Accept: text/event-stream\r\n\r\n".encode())
        sock.settimeout(_PATIENCE)
        first = sock.recv(1 << 16)
        if not first.startswith(b"HTTP/1.1 200 "):
            raise BenchError(f"{path} is answered with {first[:100]!r}")
        sock.setblocking(False)
        self._selector.register(sock, selectors.EVENT_READ)

    def read(self, seconds: float) -> None:
        """Read for so long."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            for key, _ in self._selector.select(left):
                sock = key.fileobj
                assert isinstance(sock, socket.socket)
                data = sock.recv(1 << 16)
                if not data:
                    raise BenchError("a stream has ended, which should go on")
                self.bytes += len(data)

    def close(self) -> None:
        """Leave all streams."""
        for key in list(self._selector.get_map().values()):
            assert isinstance(key.fileobj, socket.socket)
            key.fileobj.close()
        self._selector.close()


@contextmanager
def readers(address: tuple[str, int], paths: Sequence[str]) -> Iterator[Readers]:
    """A reader for each path."""
    found = Readers()
    try:
        for path in paths:
            found.add(address, path)
        yield found
    finally:
        found.close()
