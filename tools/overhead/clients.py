"""Load clients: one stream on one non-blocking connection, by HTTP or by the llcuda protocol.

They check every token against what the synthetic upstream must have said, so that a lost or foreign
token ends the measurement, and they do no more than that, so that they are not what is measured.
"""

from __future__ import annotations

import socket
import time
from abc import ABC, abstractmethod
from array import array
from collections.abc import Iterator

import msgspec

from llcuda_protocol import (
    Accepted,
    Connection,
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
#: Characters before the content in an event of the synthetic upstream.
_CONTENT = len('data: {"index":0,"content":"')


class LoadError(Exception):
    """A token was lost, an answer went wrong, or a connection ended."""


class Recorder:
    """What all streams of a run have received together."""

    def __init__(self) -> None:
        self.tokens = 0
        self.reads = 0
        self.recording = False
        self.delays_ns = array("q")  # emission to arrival, of each token while recording


class LoadStream(ABC):
    """A connection on which one request at a time is made.

    Args:
        address: host and port.
        recorder: where tokens are counted.
        stamped: tokens carry the time of their emission.

    Attributes:
        ended: no request is under way.
        started_ns, first_ns: when the request was sent and its first token came (0: not yet).
    """

    def __init__(self, address: tuple[str, int], recorder: Recorder, stamped: bool) -> None:
        self.sock = socket.create_connection(address, timeout=10)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.recorder = recorder
        self.stamped = stamped
        self.width = WORD_LENGTH + (1 + STAMP_DIGITS if stamped else 0)
        self.ended = True
        self.count = self.wanted = 0
        self.started_ns = self.first_ns = 0
        self.expected: Iterator[int] = iter(())

    def begin(self, prompt: str, tokens: int) -> None:
        """Ask for so many tokens."""
        self.expected = following(tokenise(prompt))
        self.count, self.wanted, self.first_ns, self.ended = 0, tokens, 0, False
        data = self._request(prompt, tokens)
        self.started_ns = time.monotonic_ns()
        self.sock.sendall(data)  # a few hundred bytes on an idle connection: it never blocks

    def ready(self) -> None:
        """The socket is readable.

        Raises:
            LoadError: what came is not what had to come.
        """
        try:
            data = self.sock.recv(262_144)
        except BlockingIOError:
            return
        except OSError as error:
            raise LoadError(f"the connection broke: {error}") from None
        if not data:
            raise LoadError(f"the connection was closed after {self.count} tokens")
        self.recorder.reads += 1
        self._feed(data, time.monotonic_ns())

    def close(self) -> None:
        """Close the connection."""
        self.sock.close()

    @abstractmethod
    def _request(self, prompt: str, tokens: int) -> bytes: ...

    @abstractmethod
    def _feed(self, data: bytes, now: int) -> None: ...

    def _take(self, pieces: list[str], now: int) -> None:
        """Check and count pieces of text that arrived now."""
        if self.first_ns == 0:
            self.first_ns = now
        expected, count, width = self.expected, self.count, self.width
        if any(len(piece) != width for piece in pieces):  # several tokens in a piece
            text = "".join(pieces)
            pieces = [text[i : i + width] for i in range(0, len(text), width)]
        for piece in pieces:
            word = f" {next(expected) - WORDS:05x}"
            if piece[:WORD_LENGTH] != word:
                raise LoadError(f"token {count} is {piece!r}, not {word!r}")
            count += 1
        self.recorder.tokens += count - self.count
        self.count = count
        if self.recorder.recording and self.stamped:
            start = WORD_LENGTH + 1
            self.recorder.delays_ns.extend([now - int(piece[start:]) for piece in pieces])

    def _check_end(self, said: int) -> None:
        """The answer says that it has ended, and how many tokens it had."""
        if not self.count == said == self.wanted:
            raise LoadError(f"{self.count} tokens came, {said} told, {self.wanted} asked for")


class HttpStream(LoadStream):
    """A stream from the upstream itself, or through an HTTP proxy."""

    def __init__(self, address: tuple[str, int], recorder: Recorder, stamped: bool) -> None:
        super().__init__(address, recorder, stamped)
        self._host = f"{address[0]}:{address[1]}".encode()
        self._buffer = b""
        self._in_head = True
        self._said_end = False
        self._events = b""
        self.sock.setblocking(False)

    def _request(self, prompt: str, tokens: int) -> bytes:
        body = msgspec.json.encode({"prompt": prompt, "n_predict": tokens, "stream": True})
        self._in_head, self._said_end = True, False
        return (
            b"POST /completion HTTP/1.1\r\nHost: %b\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (self._host, len(body), body)
        )

    def _feed(self, data: bytes, now: int) -> None:
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
        final = b""
        if events and b'"stop":true' in events[-1]:
            final = events.pop()
        if events:
            text = [event[_CONTENT : _CONTENT + self.width].decode("ascii") for event in events]
            self._take(text, now)
        if final:
            self._check_end(msgspec.json.decode(final[6:])["tokens_predicted"])
            self._said_end = True
        if over:
            if not self._said_end:
                raise LoadError(f"the answer ended without its final event, after {self.count}")
            self.ended = True


class LlcudaStream(LoadStream):
    """A stream through llcuda-server."""

    def __init__(self, address: tuple[str, int], recorder: Recorder, stamped: bool) -> None:
        super().__init__(address, recorder, stamped)
        self._connection = Connection(Role.CLIENT, Limits())
        self._stream = 0
        limits = self._connection.limits
        hello = Hello([1], limits.max_frame, limits.max_streams, agent="bench_overhead")
        self.sock.sendall(self._connection.send(hello))
        while not isinstance(event := self._connection.next_event(), Welcome):
            if event is not None:
                self.close()
                raise LoadError(f"the server greets with {event}")
            self._connection.receive_data(self.sock.recv(65_536))
        self.sock.setblocking(False)

    def _request(self, prompt: str, tokens: int) -> bytes:
        self._stream += 1
        params = {"n_predict": tokens}
        request = Generate(self._stream, CREDIT, prompt=prompt, params=params, on_disconnect=0.0)
        return self._connection.send(request)

    def _feed(self, data: bytes, now: int) -> None:
        connection = self._connection
        connection.receive_data(data)
        while (event := connection.next_event()) is not None:
            if type(event) is Tokens:
                self._take(event.pieces, now)
            elif isinstance(event, Done):
                self._check_end(event.usage["completion_tokens"])
                self.ended = True
            elif isinstance(event, Error):
                raise LoadError(f"the server said {event.code}: {event.message}")
            elif not isinstance(event, Accepted | Queue):
                raise LoadError(f"the server sent {event}")
        if not self.ended and (left := connection.credit(self._stream)) < CREDIT // 2:
            self.sock.send(connection.send(Credit(self._stream, CREDIT - left)))
