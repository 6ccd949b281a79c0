"""What a session has yet to send.

Frames are collected and sent together: `flush` writes to the socket directly where it takes it, so
that a token costs no task wake-up. What the socket does not take, and everything on TLS, goes
through a writer task, whose time without progress is bounded.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import trio

#: Bytes waiting above which streams stop adding tokens to the session.
HIGH_WATER = 256 << 10
_CHUNK = 16 << 10  # one TLS record


class Outbox:
    """Bytes on their way to one client.

    Args:
        stream: the connection.
        on_room: called when a full outbox has emptied, to add what had to wait.
        stall_timeout: seconds in which the client may take nothing (on other streams than a bare
            socket: not 16 KiB) before it is given up.
        unflushed: gathers the outboxes that were added to since they were flushed.
    """

    def __init__(
        self,
        stream: trio.abc.SendStream,
        on_room: Callable[[], None],
        stall_timeout: float,
        unflushed: set[Outbox],
    ) -> None:
        self._stream = stream
        # Only a bare socket can be written to past trio.
        self._socket = stream.socket if isinstance(stream, trio.SocketStream) else None
        self._on_room = on_room
        self._stall_timeout = stall_timeout
        self._unflushed = unflushed
        self._waiting = bytearray()
        self._work = trio.Event()
        self._empty = trio.Event()
        self._empty.set()
        self._writing = False
        self._was_full = False
        self.closed = False

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def busy(self) -> bool:
        """Whether bytes wait, or are with the writer task and not yet taken by the socket."""
        return self._writing or len(self._waiting) > 0

    @property
    def has_room(self) -> bool:
        """Whether streams may add tokens."""
        if len(self._waiting) < HIGH_WATER:
            return True
        self._was_full = True
        return False

    def add(self, data: bytes) -> None:
        """Put a frame behind the others; `flush` sends it."""
        if not self.closed:
            self._waiting += data
            self._unflushed.add(self)

    def flush(self) -> None:
        """Send what the socket takes now; the writer task does the rest."""
        while self._waiting and not self._writing and not self.closed:
            if not self._write_now():
                if not self.closed:
                    self._writing = True
                    self._empty = trio.Event()
                    self._work.set()
                return
            if self._was_full:
                self._was_full = False
                self._on_room()

    def _write_now(self) -> bool:
        """Whether the socket took everything."""
        if self._socket is None:
            return False
        try:
            sent = os.write(self._socket.fileno(), self._waiting)
        except BlockingIOError:
            return False
        except OSError:
            # The reader of this connection learns of it, too, and ends the session.
            self.close()
            return False
        del self._waiting[:sent]
        return not self._waiting

    async def drained(self) -> None:
        """Wait until nothing waits."""
        await self._empty.wait()

    def close(self) -> None:
        """Drop what waits and take no more."""
        self.closed = True
        self._writing = False
        self._waiting.clear()
        self._unflushed.discard(self)
        self._empty.set()

    async def _send(self, chunk: bytes) -> None:
        """Send what waits first, or on a bare socket as much of it as it takes."""
        if self._socket is None:
            del self._waiting[: len(chunk)]
            await self._stream.send_all(chunk)
            return
        try:
            sent = await self._socket.send(chunk)
        except OSError as error:
            raise trio.BrokenResourceError from error
        del self._waiting[:sent]

    async def run(self) -> None:
        """The writer task; ends with an exception or when cancelled.

        Raises:
            trio.TooSlowError: the client did not read for too long.
            trio.BrokenResourceError: the connection is gone.
        """
        try:
            while True:
                await self._work.wait()
                while self._waiting:
                    chunk = bytes(self._waiting[:_CHUNK])
                    with trio.fail_after(self._stall_timeout):
                        await self._send(chunk)
                self._writing = False
                self._work = trio.Event()
                self._empty.set()
                if self._was_full:
                    self._was_full = False
                    self._on_room()
                    self.flush()
        finally:
            self.close()
