"""Replies too large for the client, or for our memory: cut down, saying so, or an error instead.

What can be sent in parts is (see `chunking`). Of the rest a report loses entries of its lists, done
its stop string and its oldest splices, and an error the end of its message. What still does not fit
ends its stream with an error; the connection and all other streams continue.
"""

from __future__ import annotations

from dataclasses import replace

import structlog

from llcuda_net.errors import RequestError
from llcuda_net.server.tcp.write_buffer import WriteBuffer
from llcuda_net.telemetry.shortened import MOST_BYTES, shortened
from llcuda_protocol import (
    Connection,
    ConnectionState,
    Done,
    Error,
    ErrorCode,
    Frame,
    FrameTooLargeError,
    LocalProtocolError,
    Report,
)
from llcuda_protocol.frames import encode
from llcuda_protocol.kinds import HEADER, MIN_MAX_FRAME

log = structlog.get_logger(__name__)

#: Longest message of an error frame, in characters, and the bytes of the frame beside it.
_MESSAGE = 4096
_BESIDE_MESSAGE = 512
#: Most bytes of a sequence number, and of the names in `cut`.
_NUMBER = 9
_CUT = 32


class Replies:
    """Sends what is not of a generation's log, cut down where it is too large for the client.

    Args:
        connection: encodes, and says how large a frame its peer takes.
        buffer: takes what is sent.
    """

    def __init__(self, connection: Connection, buffer: WriteBuffer) -> None:
        self._connection = connection
        self._buffer = buffer

    @property
    def max_frame(self) -> int:
        """Bytes of the largest frame that the client takes."""
        return _max_frame(self._connection)

    def send(self, frame: Frame) -> None:
        """Send a frame, unless the client has gone or the request is over."""
        number: int = getattr(frame, "stream", 0)
        if self._connection.state is ConnectionState.CLOSED or (
            number and not self._connection.is_open(number)
        ):
            return  # the client has gone, or the request was ended, while the answer was made
        self._buffer.add(send_fitted(self._connection, frame))

    def flush(self) -> None:
        """Send now what waits."""
        self._buffer.flush()

    def fail(self, number: int, error: RequestError) -> None:
        """End a request with an error."""
        self.send(
            Error(number, error.code, error.message, error.retry, error.retry_after, error.durable)
        )


def send_fitted(connection: Connection, frame: Frame) -> bytes:
    """The bytes of a frame, or of as much of it as the client takes, or of the error in its place.

    Raises:
        LocalProtocolError: the frame is about the connection, or its stream is not open.
    """
    try:
        return connection.send(fitted(frame, _max_frame(connection)))
    except LocalProtocolError as error:
        number: int = getattr(frame, "stream", 0)
        if not number or not connection.is_open(number):
            raise
        log.warning("unsendable", kind=frame.KIND.name.lower(), reason=str(error)[:500])
        return connection.send(fitted(failure(number, error), _max_frame(connection)))


def failure(number: int, error: LocalProtocolError) -> Error:
    """The error for a reply that cannot be sent: too large, or with a value out of all bounds."""
    if isinstance(error, FrameTooLargeError):
        hint = "; ask for less, or connect with a larger max_frame"
        return Error(number, ErrorCode.FRAME_TOO_LARGE, f"the reply does not fit: {error}{hint}")
    return Error(number, ErrorCode.INTERNAL, str(error)[:500])


def fitted(frame: Frame, max_frame: int) -> Frame:
    """The frame itself where it fits; else what can be left out of it is, and named in it."""
    if isinstance(frame, Error):
        return _fitted_error(frame, max_frame)
    if isinstance(frame, Done):
        return _fitted_done(frame, max_frame)
    if isinstance(frame, Report):
        return _fitted_report(frame, max_frame)
    return frame


def _fitted_error(frame: Error, max_frame: int) -> Error:
    message = frame.message
    if 4 * len(message) + _BESIDE_MESSAGE <= max_frame and len(message) <= _MESSAGE:
        return frame
    most = max_frame - _BESIDE_MESSAGE
    short = message[:_MESSAGE].encode(errors="replace")
    if len(message) <= _MESSAGE and len(short) <= most:
        return frame
    text = message[: _MESSAGE - 3].encode(errors="replace")[: most - 3]
    return replace(frame, message=text.decode(errors="ignore") + "...")


def _fitted_done(frame: Done, max_frame: int) -> Done:
    if len(frame.splices) * _NUMBER + len(frame.stop or "") * 4 <= MIN_MAX_FRAME // 4:
        return frame  # the rest of it is small
    if _size(frame) <= max_frame:
        return frame
    if frame.stop is not None and len(frame.stop) > 1024:
        frame = replace(frame, stop=None, cut=["stop"])
    if frame.splices and _size(frame) > max_frame:
        room = max_frame - _size(replace(frame, splices=[])) - _CUT
        last = max(0, room // _NUMBER)
        splices = frame.splices[len(frame.splices) - last :]
        frame = replace(frame, splices=splices, cut=[*frame.cut, "splices"])
    return frame


def _fitted_report(frame: Report, max_frame: int) -> Report:
    """A report whose lists lost as many entries as it takes."""
    most = min(max_frame, MOST_BYTES)
    report = shortened(frame.report, lambda found: _fits(Report(frame.stream, found), most))
    return frame if report is frame.report else Report(frame.stream, report)


def _fits(frame: Report, max_frame: int) -> bool:
    try:
        return _size(frame) <= max_frame
    except ValueError:  # more values than a frame may hold
        return False


def _size(frame: Frame) -> int:
    return len(encode(frame)) - HEADER


def _max_frame(connection: Connection) -> int:
    limits = connection.peer_limits
    return MIN_MAX_FRAME if limits is None else limits.max_frame
