"""A relay in front of an upstream, which notes who has it generate, and when.

Servers are told apart by their API keys. A request is under way from its head until the end of its
answer, or of its connection.
"""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

_HEAD = re.compile(rb"POST (/completion|/v1/chat/completions)\S* HTTP/1.1\r\n(.*?)\r\n\r\n", re.S)
_KEY = re.compile(rb"authorization: bearer (\S+)", re.I)
#: The end of a chunked answer.
_END = b"0\r\n\r\n"


@dataclass
class Asked:
    """A request to generate.

    Attributes:
        began, ended: on the monotonic clock; None: it is not over.
    """

    by: str
    began: float
    body: bytes
    ended: float | None = None


class Relay:
    """Passes on connections, and notes the requests in them."""

    def __init__(self, upstream: str) -> None:
        parts = urlsplit(upstream)
        self._upstream = parts.hostname or "", parts.port or 80
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._lock = threading.Lock()
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.asked: list[Asked] = []
        self._cut_off: set[str] = set()
        self._open: dict[socket.socket, str] = {}

    def __repr__(self) -> str:
        return f"<Relay {self.url}: {self.asked}>"

    def serve(self) -> None:
        """Accept connections, until closed."""
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._pass_on, args=(client,), daemon=True).start()

    def cut_off(self, by: str) -> None:
        """Pass nothing on any more of the server with this key."""
        with self._lock:
            self._cut_off.add(by)
            mine = [one for one, key in self._open.items() if key == by]
        for one in mine:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _may_pass(self, client: socket.socket, data: bytes) -> bool:
        """Note whose connection it is; whether that one is not cut off."""
        if (key := _KEY.search(data)) is None:
            return True
        with self._lock:
            self._open[client] = key[1].decode()
            return self._open[client] not in self._cut_off

    def close(self) -> None:
        """Accept no more."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _pass_on(self, client: socket.socket) -> None:
        state: list[Asked] = []
        with contextlib.suppress(OSError), client, socket.create_connection(self._upstream) as to:
            back = threading.Thread(target=self._answer, args=(to, client, state), daemon=True)
            back.start()
            try:
                self._ask(client, to, state)
            finally:
                self._end(state)
                with self._lock:
                    self._open.pop(client, None)
                with contextlib.suppress(OSError):
                    to.shutdown(socket.SHUT_RDWR)
                back.join()

    def _ask(self, client: socket.socket, server: socket.socket, state: list[Asked]) -> None:
        seen = b""
        while data := client.recv(65_536):
            if not self._may_pass(client, data):
                return
            if state and _HEAD.search(data) is None:
                state[-1].body += data  # it came apart from its head
            seen += data
            while (head := _HEAD.search(seen)) is not None:
                key = _KEY.search(head[2])
                one = Asked(key[1].decode() if key else "", time.monotonic(), seen[head.end() :])
                seen = b""
                with self._lock:
                    self.asked.append(one)
                    state.append(one)
            seen = seen[-4096:]
            server.sendall(data)

    def _answer(self, server: socket.socket, client: socket.socket, state: list[Asked]) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(65_536):
                client.sendall(data)
                if data.endswith(_END):
                    self._end(state)
        self._end(state)

    def _end(self, state: list[Asked]) -> None:
        with self._lock:
            for one in state:
                one.ended = time.monotonic()
            state.clear()


@contextlib.contextmanager
def relay(upstream: str) -> Iterator[Relay]:
    """A relay in front of the upstream with this URL."""
    found = Relay(upstream)
    thread = threading.Thread(target=found.serve, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        found.close()
        thread.join()


def overlaps(asked: list[Asked]) -> list[tuple[str, str]]:
    """Pairs of different servers that had one upstream generate at the same time."""
    found = []
    for place, one in enumerate(asked):
        for other in asked[place + 1 :]:
            until = one.ended if one.ended is not None else float("inf")
            if one.by != other.by and other.began < until:
                found.append((one.by, other.by))
    return found
