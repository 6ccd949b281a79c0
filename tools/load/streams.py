"""Connections of the load generator, by HTTP or by the llcuda protocol, on non-blocking sockets.

They compare every token with what the synthetic upstream must have said, so that a lost or foreign
token is noticed, and they do no more than that, so that they are not what is measured.
"""

from __future__ import annotations

import socket
import time
from abc import ABC, abstractmethod
from array import array
from collections.abc import Iterator
from typing import Any

import msgspec

import llcuda_protocol as protocol_core
from llcuda_protocol import (
    Accepted,
    Cancel,
    Credit,
    Done,
    Error,
    Generate,
    Hello,
    Limits,
    Queue,
    Role,
    Tokens,
    Welcome,
)
from tools.synthetic.answer import STAMP_DIGITS
from tools.synthetic.tokens import WORD_LENGTH, WORDS, following, tokenise

#: Credit of a stream in bytes; given again when half is used.
CREDIT = 1 << 20
#: Seconds for a connection and its handshake.
PATIENCE = 60.0
#: Characters before the content in an event of the synthetic upstream.
_CONTENT = len('data: {"index":0,"content":"')


class LoadError(Exception):
    """A token was lost, an answer went wrong, or a connection ended."""


class Recorder:
    """What all connections of a run received together.

    Attributes:
        delays_ns: emission to arrival of each token, while `recording`.
    """

    def __init__(self) -> None:
        self.tokens = 0
        self.reads = 0
        self.recording = False
        self.delays_ns = array("q")


class Request:
    """One request and its answer so far, checked token by token.

    Args:
        prompt: determines the tokens that must follow.
        tokens: how many the answer must have.

    Attributes:
        count: tokens that have arrived.
        ended: whether the answer is over.
        reason: why it is over, if the server says so.
        cancelled: the client cancelled it: it may end early.
        started_ns, first_ns: when it was sent and its first token came (0: not yet).
    """

    def __init__(self, prompt: str, tokens: int, *, on_disconnect: float | None = 0.0) -> None:
        self.prompt = prompt
        self.wanted = tokens
        self.on_disconnect = on_disconnect
        self.count = 0
        self.ended = self.cancelled = False
        self.reason = ""
        self.started_ns = self.first_ns = 0
        self.expected: Iterator[int] = following(tokenise(prompt))

    def __repr__(self) -> str:
        state = self.reason or ("ended" if self.ended else "under way")
        return f"<Request for {self.wanted} tokens, {self.count} came, {state}>"

    def came(self, tokens: int, now: int) -> None:
        """So many tokens have just arrived."""
        if self.first_ns == 0:
            self.first_ns = now
        self.count += tokens

    def end(self, said: int, reason: str = "") -> None:
        """The answer ended; `said` is its number of tokens by the server's count."""
        self.ended, self.reason = True, reason
        if self.count != said or (self.count != self.wanted and not self.cancelled):
            self.failed(f"{self.count} tokens came, {said} reported, {self.wanted} requested")

    def failed(self, why: str) -> None:
        """The answer is wrong, which ends the measurement."""
        raise LoadError(why)


class Connection(ABC):
    """A connection to a server.

    Args:
        address: host and port.
        recorder: counts tokens and reads.
        stamped: tokens carry the time of their emission.
    """

    def __init__(self, address: tuple[str, int], recorder: Recorder, stamped: bool) -> None:
        self.sock = socket.create_connection(address, timeout=PATIENCE)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.recorder = recorder
        self.stamped = stamped
        self.width = WORD_LENGTH + (1 + STAMP_DIGITS if stamped else 0)

    def ask(self, prompt: str, tokens: int) -> Request:
        """Send a request for so many tokens."""
        request = Request(prompt, tokens)
        self.begin(request)
        return request

    @abstractmethod
    def begin(self, request: Request) -> None:
        """Send a request."""

    def ready(self) -> None:
        """The socket is readable.

        Raises:
            LoadError: the received data is not what it must be.
        """
        try:
            data = self.sock.recv(262_144)
        except BlockingIOError:
            return
        except OSError as error:
            raise LoadError(f"the connection broke: {error}") from None
        if not data:
            raise LoadError(f"the connection was closed: {self!r}")
        self.recorder.reads += 1
        self._feed(data, time.monotonic_ns())

    def close(self) -> None:
        """Close the connection."""
        self.sock.close()

    @abstractmethod
    def _feed(self, data: bytes, now: int) -> None: ...

    def _take(self, request: Request, pieces: list[str], now: int) -> None:
        """Check and count pieces of text that have just arrived."""
        expected, width = request.expected, self.width
        if any(len(piece) != width for piece in pieces):  # several tokens in a piece
            text = "".join(pieces)
            pieces = [text[i : i + width] for i in range(0, len(text), width)]
        for number, piece in enumerate(pieces):
            word = f" {next(expected) - WORDS:05x}"
            if piece[:WORD_LENGTH] != word:
                request.failed(f"token {request.count + number} is {piece!r}, not {word!r}")
        self.recorder.tokens += len(pieces)
        request.came(len(pieces), now)
        if self.recorder.recording and self.stamped:
            start = WORD_LENGTH + 1
            self.recorder.delays_ns.extend([now - int(piece[start:]) for piece in pieces])


class HttpConnection(Connection):
    """To the upstream itself, or through an HTTP proxy: one request at a time."""

    def __init__(self, address: tuple[str, int], recorder: Recorder, stamped: bool) -> None:
        super().__init__(address, recorder, stamped)
        self._host = f"{address[0]}:{address[1]}".encode()
        self._buffer = b""
        self._in_head = True
        self._said: int | None = None
        self._events = b""
        self._current: Request | None = None
        self.sock.setblocking(False)

    def __repr__(self) -> str:
        return f"<HttpConnection, {self._current!r}>"

    def begin(self, request: Request) -> None:
        """Send a request."""
        asked = {"prompt": request.prompt, "n_predict": request.wanted, "stream": True}
        self._post(b"/completion", asked, request)

    def _post(
        self, path: bytes, asked: dict[str, Any], request: Request, more: bytes = b""
    ) -> None:
        body = msgspec.json.encode(asked)
        self._in_head, self._said, self._current = True, None, request
        data = (
            b"POST %b HTTP/1.1\r\nHost: %b\r\nContent-Type: application/json\r\n"
            b"%bContent-Length: %d\r\n\r\n%b" % (path, self._host, more, len(body), body)
        )
        request.started_ns = time.monotonic_ns()
        self.sock.sendall(data)  # a few hundred bytes on an idle connection: it never blocks

    def _feed(self, data: bytes, now: int) -> None:
        request = self._current
        assert request is not None
        buffer = self._buffer + data if self._buffer else data
        position = 0
        if self._in_head:
            end = buffer.find(b"\r\n\r\n")
            if end < 0:
                self._buffer = buffer
                return
            if not buffer.startswith(b"HTTP/1.1 200 "):
                raise LoadError(f"the answer was {buffer[:300]!r}")
            self._in_head = False
            position = end + 4
        chunks = []
        over = False
        while (line := buffer.find(b"\r\n", position)) >= 0:
            try:
                size = int(buffer[position:line], 16)
            except ValueError:
                raise LoadError(f"a chunk of size {buffer[position:line]!r}") from None
            end = line + 2 + size
            if len(buffer) < end + 2:
                break
            chunks.append(buffer[line + 2 : end])
            position = end + 2
            over = size == 0
        self._buffer = buffer[position:]
        events = (self._events + b"".join(chunks)).split(b"\n\n")
        self._events = events.pop()
        self._came(request, events, now)
        if over:
            if self._said is None:
                raise LoadError(f"the answer ended without its final event: {request!r}")
            request.end(self._said)

    def _came(self, request: Request, events: list[bytes], now: int) -> None:
        """Events have come, whole."""
        final = b""
        if events and b'"stop":true' in events[-1]:
            final = events.pop()
        if events:
            text = [event[_CONTENT : _CONTENT + self.width].decode("ascii") for event in events]
            self._take(request, text, now)
        if final:
            self._said = msgspec.json.decode(final[6:])["tokens_predicted"]


class LlcudaConnection(Connection):
    """To llcuda-server: any number of requests at a time.

    Args:
        token: authenticates the client.
    """

    def __init__(
        self,
        address: tuple[str, int],
        recorder: Recorder,
        stamped: bool,
        token: str | None = None,
    ) -> None:
        super().__init__(address, recorder, stamped)
        self._protocol = protocol = protocol_core.Connection(Role.CLIENT, Limits())
        self._last = 0
        self._requests: dict[int, Request] = {}
        limits = protocol.limits
        hello = Hello(
            [1], limits.max_frame, limits.max_streams, token=token, agent="llcuda load generator"
        )
        self.sock.sendall(protocol.send(hello))
        while not isinstance(event := protocol.next_event(), Welcome):
            if event is not None:
                self.close()
                raise LoadError(f"the server greets with {event}")
            protocol.receive_data(self.sock.recv(65_536))
        self.sock.setblocking(False)

    def __repr__(self) -> str:
        return f"<LlcudaConnection, {list(self._requests.values())}>"

    def begin(self, request: Request) -> None:
        """Send a request."""
        self._last += 1
        self._requests[self._last] = request
        frame = Generate(
            self._last,
            CREDIT,
            prompt=request.prompt,
            params={"n_predict": request.wanted},
            on_disconnect=request.on_disconnect,
        )
        data = self._protocol.send(frame)
        request.started_ns = time.monotonic_ns()
        self.sock.sendall(data)  # some kilobytes at most: it does not block

    def cancel(self, request: Request) -> None:
        """Ask for the end of an answer."""
        request.cancelled = True
        stream = next(n for n, known in self._requests.items() if known is request)
        self.sock.sendall(self._protocol.send(Cancel(stream)))

    def _feed(self, data: bytes, now: int) -> None:
        protocol, requests = self._protocol, self._requests
        protocol.receive_data(data)
        while (event := protocol.next_event()) is not None:
            if type(event) is Tokens:
                self._take(requests[event.stream], event.pieces, now)
                if (left := protocol.credit(event.stream)) < CREDIT // 2:
                    self.sock.send(protocol.send(Credit(event.stream, CREDIT - left)))
            elif isinstance(event, Done):
                said = event.usage.get("completion_tokens", 0)
                request = requests.pop(event.stream)
                request.end(request.count if request.cancelled else said, event.reason)
            elif isinstance(event, Error):
                if event.stream not in requests:
                    raise LoadError(f"the server said {event.code}: {event.message}")
                request = requests.pop(event.stream)
                request.ended = True
                request.failed(f"the server said {event.code}: {event.message}")
            elif not isinstance(event, Accepted | Queue):
                raise LoadError(f"the server sent {event}")
