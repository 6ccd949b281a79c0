"""Cuts received bytes into the preface and frames, without decoding them."""

from __future__ import annotations

from .errors import ErrorCode
from .frames import FrameError
from .kinds import HANDSHAKE_MAX_FRAME, HEADER, PREFACE


class Reader:
    """Holds bytes that were fed and not yet taken.

    Attributes:
        ended: whether the other side has closed its end.
        max_frame: largest frame that is accepted, in bytes, without its length field.
        frame_size: bytes of the frame taken last, its length field included.
    """

    def __init__(self) -> None:
        self.ended = False
        self.max_frame = HANDSHAKE_MAX_FRAME
        self.frame_size = 0
        self._buffer = bytearray()
        self._offset = 0
        self._preface_seen = False

    def __len__(self) -> int:
        """Bytes held."""
        return len(self._buffer) - self._offset

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Take bytes that arrived."""
        if self._offset:
            del self._buffer[: self._offset]
            self._offset = 0
        self._buffer += data

    def clear(self) -> None:
        """Discard the bytes held."""
        self._buffer = bytearray()
        self._offset = 0

    def next_body(self) -> bytearray | None:
        """The next frame without its length field, or None while it is incomplete.

        Raises:
            FrameError: the preface or a frame's length is wrong, or the data ended within a frame.
        """
        body = self._frame() if self._preface_seen or self._preface() else None
        if body is None and self.ended and len(self):
            raise FrameError(
                ErrorCode.TRUNCATED_FRAME, "the connection was closed in the middle of a frame"
            )
        return body

    def _preface(self) -> bool:
        seen = bytes(self._buffer[: len(PREFACE)])
        if not PREFACE.startswith(seen):
            raise FrameError(ErrorCode.BAD_PREFACE, f"this is not llcuda: {seen!r}")
        if len(seen) < len(PREFACE):
            return False
        self._offset = len(PREFACE)
        self._preface_seen = True
        return True

    def _frame(self) -> bytearray | None:
        start = self._offset + HEADER
        available = len(self._buffer)
        if available < start:
            return None
        length = int.from_bytes(self._buffer[self._offset : start], "big")
        if length > self.max_frame:
            raise FrameError(
                ErrorCode.FRAME_TOO_LARGE,
                f"a frame of {length} bytes is over the limit of {self.max_frame}",
            )
        if length == 0:
            raise FrameError(ErrorCode.MALFORMED_FRAME, "a frame of no bytes")
        end = start + length
        if available < end:
            return None
        self._offset = end
        self.frame_size = HEADER + length
        return self._buffer[start:end]
