"""The sending side of one connection: the protocol's state, and the bytes that wait to be written.

Channels and the connection that serves them both send through it, so neither needs to know the
other. Only `run` writes to the transport, from one buffer that is filled in the order in which
frames were made: a task that is cancelled never leaves half a frame behind. Uploads are sent in
pieces, each when that buffer is empty: so no frame waits for more than one piece of them.
"""

from __future__ import annotations

from collections import deque

import trio

import llcuda_protocol as wire
from llcuda_net.client.chat.upload import Upload
from llcuda_net.client.requests import WINDOW


class Carrier:
    """Turns frames into bytes, and writes them.

    Args:
        transport: the open byte stream; its owner closes it.

    Attributes:
        protocol: the protocol's state for this connection.
    """

    def __init__(self, transport: trio.abc.Stream) -> None:
        self.protocol = wire.Connection(wire.Role.CLIENT)
        self._transport = transport
        self._out = bytearray()
        self._uploads: deque[Upload] = deque()
        self._sending = False
        self._closed = False
        self._unwritable = False  # a send_all that raised, Cancelled included, leaves it so
        self._wakes = trio.lowlevel.ParkingLot()
        self._written = trio.lowlevel.ParkingLot()

    def __repr__(self) -> str:
        state = "unwritable" if self._unwritable else "closed" if self._closed else "open"
        return f"<Carrier {state}, {self.unsent} bytes unsent>"

    @property
    def unsent(self) -> int:
        """Bytes that the transport has not taken yet."""
        return len(self._out)

    def send(self, frame: wire.Frame) -> None:
        """Put a frame behind those that wait to be written.

        Raises:
            LocalProtocolError: the frame cannot be encoded, or does not belong here.
        """
        self.send_bytes(self.protocol.send(frame))

    def send_bytes(self, data: bytes) -> None:
        """Put encoded frames behind those that wait to be written."""
        self._out += data
        self._wakes.unpark_all()

    def upload(self, upload: Upload) -> None:
        """Send an upload whenever nothing else waits, one piece of each in turn.

        Raises:
            LocalProtocolError: no stream can be opened for it.
        """
        self.send(upload.next_piece())  # opens the stream
        self._uploads.append(upload)

    def cancel(self, number: int, *, detach: bool) -> None:
        """Ask the server to stop a stream, if the stream is still open."""
        if not self._closed and self.protocol.is_open(number):
            self.send(wire.Cancel(number, detach))

    def replenish(self, number: int) -> None:
        """Give a stream its whole window again, if less than half of it is left."""
        if self._closed or not self.protocol.is_open(number):
            return
        left = self.protocol.credit(number)
        if left <= WINDOW // 2:
            # One piece may be larger than the credit and leave it below zero, which reads as 0:
            # more than one step is needed then.
            while left < WINDOW:
                self.send(wire.Credit(number, WINDOW - left))
                left = self.protocol.credit(number)

    def close(self) -> None:
        """Send nothing more for any stream; the connection has failed."""
        self._closed = True

    async def run(self) -> None:
        """Write what there is, until cancelled.

        Raises:
            trio.BrokenResourceError, trio.ClosedResourceError, OSError: the transport is gone.
        """
        try:
            while True:
                if not self._out and not self._add_piece():
                    self._written.unpark_all()
                    await self._wakes.park()
                    continue
                data, self._out = self._out, bytearray()
                self._sending = True
                await self._transport.send_all(data)
                self._sending = False
        finally:
            self._unwritable = True
            self._written.unpark_all()

    def _add_piece(self) -> bool:
        """Put the next piece of an upload behind the frames; False if there is none."""
        while self._uploads:
            upload = self._uploads.popleft()
            if upload.more and not self._closed:
                self.send(upload.next_piece())
                self._uploads.append(upload)
                return True
        return False

    async def flush(self) -> None:
        """Wait until everything has been written, or nothing more can be."""
        while (self._out or self._sending) and not self._unwritable:
            await self._written.park()
