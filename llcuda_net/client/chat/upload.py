"""One image or recording on its way to the server, in pieces on a stream of its own."""

from __future__ import annotations

from collections.abc import Callable

import trio

import llcuda_protocol as wire
from llcuda_net.errors import LlcudaError, request_error

#: Bytes of a piece: so long does a frame of another stream wait behind it.
PIECE = 32 * 1024


class Upload:
    """What is sent on one stream, and whether the server has taken it.

    Args:
        number: of the stream.
        data: what to send; not empty.
        cancel: asks the server to stop the stream.

    Attributes:
        ended: set when the server has taken or refused it, or the connection has failed.
        failure: makes the exception that says why it failed; None while it has not.
    """

    def __init__(self, number: int, data: bytes, cancel: Callable[[], None]) -> None:
        self.ended = trio.Event()
        self.failure: Callable[[], LlcudaError] | None = None
        self._number = number
        self._data = data
        self._cancel = cancel
        self._sent = 0
        self._left = False

    def __repr__(self) -> str:
        return f"<Upload on stream {self._number}, {self._sent} of {len(self._data)} bytes sent>"

    @property
    def more(self) -> bool:
        """Whether there is another piece to be sent."""
        return not self._left and not self.ended.is_set() and self._sent < len(self._data)

    def next_piece(self) -> wire.Upload:
        """The next piece."""
        piece = self._data[self._sent : self._sent + PIECE]
        self._sent += len(piece)
        return wire.Upload(self._number, piece, self._sent < len(self._data))

    def put(self, frame: wire.Frame) -> None:
        """Take the server's answer."""
        if isinstance(frame, wire.Error):
            code, message = frame.code, frame.message
            retry, after = frame.retry, frame.retry_after
            self.failure = lambda: request_error(code, message, retry=retry, retry_after=after)
        self.ended.set()

    def fail(self, failure: Callable[[], LlcudaError], *, lost: bool = False) -> None:
        """The connection has failed; whoever needs the upload begins it again."""
        self.failure = failure
        self.ended.set()

    def leave(self) -> None:
        """Nobody needs it any more."""
        if not self._left and not self.ended.is_set():
            self._left = True
            self._cancel()
