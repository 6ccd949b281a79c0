"""What a session has yet to send.

Frames are collected and sent together: `flush` writes to the socket directly where it takes it, so
that a batch costs no task wake-up. What the socket does not take, and everything on TLS, goes
through a writer task, whose time without progress is bounded.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import trio

from llcuda_net.generation.publisher import Flushable
from llcuda_net.server.tcp.room import Unsent

#: Bytes waiting above which streams stop adding tokens to the session.
HIGH_WATER = 256 << 10
#: The same where the buffers of all sessions together hold too much.
LOW_WATER = 16 << 10
_CHUNK = 16 << 10  # one TLS record


class WriteBuffer:
    """Bytes on their way to one client.

    Args:
        stream: the connection.
        on_room: called when a full buffer has emptied, to add what had to wait.
        stall_timeout: seconds in which the client may take nothing (on other streams than a bare
            socket: not 16 KiB) before it is given up.
        unflushed: gathers the buffers with bytes that were added since their last flush.
        unsent: counts the bytes of all buffers.
    """

    def __init__(
        self,
        stream: trio.abc.SendStream,
        on_room: Callable[[], None],
        stall_timeout: float,
        unflushed: set[Flushable],
        unsent: Unsent,
    ) -> None:
        self._stream = stream
        # Only a bare socket can be written to past trio.
        self._socket = stream.socket if isinstance(stream, trio.SocketStream) else None
        self._descriptor = -1 if self._socket is None else self._socket.fileno()
        self._on_room = on_room
        self._stall_timeout = stall_timeout
        self._unflushed = unflushed
        self._unsent = unsent
        self._waiting = bytearray()
        self._work = trio.Event()
        self._empty = trio.Event()
        self._empty.set()
        self._writing = False
        self._was_full = False
        #: Whether streams may add no more tokens now.
        self.full = False
        self.closed = False

    def __repr__(self) -> str:
        state = "closed" if self.closed else "writing" if self._writing else "idle"
        return f"<WriteBuffer {state} waiting={len(self._waiting)}>"

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def busy(self) -> bool:
        """Whether bytes wait, or are with the writer task and not yet taken by the socket."""
        return self._writing or len(self._waiting) > 0

    def wait_for_room(self) -> None:
        """Call `on_room` when the buffer has emptied."""
        self._was_full = True

    def add(self, data: bytes) -> None:
        """Put a frame behind the others; `flush` sends it."""
        if not self.closed:
            waiting = self._waiting
            waiting += data
            unsent = self._unsent
            unsent.waiting += len(data)
            most = HIGH_WATER if unsent.waiting < unsent.bound else LOW_WATER
            self.full = len(waiting) >= most
            self._unflushed.add(self)

    def flush(self) -> None:
        """Send what the socket takes now; the writer task does the rest."""
        waiting = self._waiting
        while waiting and not self._writing and not self.closed:
            if self._socket is not None:
                try:
                    sent = os.write(self._descriptor, waiting)
                except BlockingIOError:
                    sent = 0
                except OSError:
                    # The reader of this connection learns of it, too, and ends the session.
                    self.close()
                    return
                del waiting[:sent]
                unsent = self._unsent
                unsent.waiting -= sent
                most = HIGH_WATER if unsent.waiting < unsent.bound else LOW_WATER
                self.full = len(waiting) >= most
            if waiting:
                self._writing = True
                self._empty = trio.Event()
                self._work.set()
                return
            if self._was_full:
                self._was_full = False
                self._on_room()

    async def drained(self) -> None:
        """Wait until nothing waits."""
        await self._empty.wait()

    def close(self) -> None:
        """Drop what waits and take no more."""
        self.closed = True
        self._writing = False
        self._unsent.waiting -= len(self._waiting)
        self._waiting.clear()
        self.full = False
        self._unflushed.discard(self)
        self._empty.set()

    async def _send(self, chunk: bytes) -> None:
        """Send what waits first, or on a bare socket as much of it as it takes."""
        if self._socket is None:
            self._taken(len(chunk))
            await self._stream.send_all(chunk)
            return
        try:
            sent = await self._socket.send(chunk)
        except OSError as error:
            raise trio.BrokenResourceError from error
        self._taken(sent)

    def _taken(self, count: int) -> None:
        count = min(count, len(self._waiting))  # it may have been closed meanwhile
        del self._waiting[:count]
        unsent = self._unsent
        unsent.waiting -= count
        most = HIGH_WATER if unsent.waiting < unsent.bound else LOW_WATER
        self.full = len(self._waiting) >= most

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
