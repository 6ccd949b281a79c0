"""One connection of the client: a reading and a writing task, which serve its channels.

Rules of this file:
- Only the writing task sends, from one buffer that is filled in the order in which frames were
  made. A task that is cancelled can so never leave half a frame behind.
- Only the reading task receives. It never waits for a consumer: what a channel may hold is bounded
  by the credit given for it.
- Both run shielded, so that what is said on the way out (cancel) still arrives, within a second.
- A link fails once, with one reason, which then meets every channel.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

import trio

import llcuda_protocol as wire
from llcuda_net.client.channel import Channel, refusal
from llcuda_net.errors import ConnectError, LlcudaError, RequestError

#: Bytes of tokens that may be under way on one stream.
WINDOW = 256 * 1024
#: Seconds that a goodbye may take: the last frames, and the closing of the socket.
GOODBYE = 1.0
_CHUNK = 65_536
_MOST_PONGS = 1 << 20  # unsent bytes above which pings are no longer answered


class Link:
    """The connection, over any trio stream.

    Args:
        transport: the open byte stream; the link closes it.
        name: the server's name in messages.
        keepalive: seconds of silence after which the server is asked for a sign of life; after as
            many again the link fails.
    """

    def __init__(self, transport: trio.abc.Stream, name: str, keepalive: float) -> None:
        self.name = name
        self.going_away: wire.GoAway | None = None
        self.welcome: wire.Welcome | None = None
        self._transport = transport
        self._keepalive = keepalive
        self._connection = wire.Connection(wire.Role.CLIENT)
        self._channels: dict[int, Channel] = {}
        self._next_number = 1
        self._room = trio.Semaphore(0)
        self._out = bytearray()
        self._sending = False
        self._unwritable = False  # a send_all that raised, Cancelled included, leaves it so
        self._writer_wakes = trio.lowlevel.ParkingLot()
        self._written = trio.lowlevel.ParkingLot()
        self._emptied = trio.lowlevel.ParkingLot()
        self._greeted = trio.Event()
        self._failed = trio.Event()
        self._failure: Callable[[], LlcudaError] | None = None
        self._first_bytes = b""
        self._pings: dict[bytes, trio.Event] = {}
        self._ping_count = 0
        self._tasks = trio.CancelScope(shield=True)

    @asynccontextmanager
    async def run(self, token: str | None, timeout: float) -> AsyncIterator[None]:
        """Greet the server, serve the link while the body runs, then say goodbye and close.

        Args:
            token: the secret that the server may want.
            timeout: seconds to wait for the server's greeting.

        Raises:
            ConnectError: there is no llcuda-server at the other end.
            RequestError: the server refused the connection.
        """
        # An exception of the body leaves as it is: a nursery would wrap it in a group.
        raised: BaseException | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._run)
            try:
                await self._greet(token, timeout)
                yield
            except BaseException as error:
                raised = error
            with trio.move_on_after(GOODBYE, shield=True):
                await self._say_goodbye()
            self._tasks.cancel()
        if raised is not None:
            try:
                raise raised
            finally:
                del raised

    async def open(self, make: Callable[[int], wire.Frame]) -> Channel:
        """Send the request that `make` builds for a stream number; wait for room to do so.

        Raises:
            ConnectError: the connection is lost.
            RequestError: the server is going away, or the request cannot be put into a frame.
        """
        await self._room.acquire()
        try:
            self._check_usable()
            number = self._next_number
            request = make(number)
            try:
                self._send(request)
            except wire.LocalProtocolError as error:
                raise RequestError(
                    wire.ErrorCode.INVALID_REQUEST, f"the request cannot be sent: {error}"
                ) from None
        except BaseException:
            self._room.release()
            raise
        self._next_number += 1
        channel = Channel(self, number, metered=isinstance(request, wire.Generate))
        self._channels[number] = channel
        return channel

    async def ping(self) -> float:
        """Seconds that the server takes to answer.

        Raises:
            ConnectError: the connection is lost.
        """
        if self._failure is not None:
            raise self._failure()
        self._ping_count += 1
        payload = self._ping_count.to_bytes(8, "big")
        self._pings[payload] = answered = trio.Event()
        started = trio.current_time()
        try:
            self._send(wire.Ping(payload))
            await answered.wait()
        finally:
            del self._pings[payload]
        if self._failure is not None:
            raise self._failure()
        return trio.current_time() - started

    # -- for channels ---------------------------------------------------------------------------

    def cancel(self, number: int) -> None:
        """Ask the server to stop a stream, if that can still be asked."""
        if self._failure is None and self._connection.is_open(number):
            self._send(wire.Cancel(number))

    def replenish(self, number: int) -> None:
        """Give a stream its whole window again, if less than half of it is left."""
        if self._failure is not None or not self._connection.is_open(number):
            return
        left = self._connection.credit(number)
        if left <= WINDOW // 2:
            # One piece may be larger than the credit and leave it below zero, which reads as 0:
            # more than one step is needed then.
            while left < WINDOW:
                self._send(wire.Credit(number, WINDOW - left))
                left = self._connection.credit(number)

    # -- the tasks ------------------------------------------------------------------------------

    @trio.lowlevel.enable_ki_protection
    async def _run(self) -> None:
        with self._tasks:
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._write)
                    await self._read()
                    with trio.move_on_after(GOODBYE):
                        await self._flush()
                    nursery.cancel_scope.cancel()
            finally:
                self._fail(partial(ConnectError, f"the connection to {self.name} is closed"))
                with trio.move_on_after(GOODBYE, shield=True):
                    await self._transport.aclose()

    async def _read(self) -> None:
        """Take what arrives until the link has failed."""
        connection = self._connection
        try:
            while self._failure is None:
                data = await self._receive()
                if not self._first_bytes:
                    self._first_bytes = bytes(data[:64])
                connection.receive_data(data)
                while (event := connection.next_event()) is not None:
                    self._take(event)
                    if self._failure is not None:
                        break
        except wire.RemoteProtocolError as error:
            self._queue_bytes(error.reply)
            self._fail(partial(ConnectError, self._explain(error)))
        except (trio.BrokenResourceError, trio.ClosedResourceError, OSError) as error:
            self._fail(partial(ConnectError, self._lost(error.__cause__ or error)))

    async def _receive(self) -> bytes | bytearray:
        with trio.move_on_after(self._keepalive):
            return await self._transport.receive_some(_CHUNK)
        if self._greeted.is_set():
            self._send(wire.Ping())
        with trio.move_on_after(self._keepalive):
            return await self._transport.receive_some(_CHUNK)
        silence = f"{2 * self._keepalive:g} s"
        self._fail(partial(ConnectError, f"{self.name} has been silent for {silence}: gave it up"))
        return b""

    async def _write(self) -> None:
        try:
            while True:
                if not self._out:
                    self._written.unpark_all()
                    await self._writer_wakes.park()
                    continue
                data, self._out = self._out, bytearray()
                self._sending = True
                await self._transport.send_all(data)
                self._sending = False
        except (trio.BrokenResourceError, trio.ClosedResourceError, OSError) as error:
            self._give_up_writing()
            # The server may have said why before it closed: let the reader find that first.
            with trio.move_on_after(GOODBYE):
                await self._failed.wait()
            self._fail(partial(ConnectError, self._lost(error.__cause__ or error)))
            self._tasks.cancel()
        finally:
            self._give_up_writing()

    def _give_up_writing(self) -> None:
        self._unwritable = True
        self._written.unpark_all()

    async def _flush(self) -> None:
        """Wait until everything has been sent, or nothing more can be."""
        while (self._out or self._sending) and not self._unwritable:
            await self._written.park()

    async def _say_goodbye(self) -> None:
        """Cancel what still runs, and wait until the server has confirmed it.

        Closing at once would lose the cancel: a socket closed with unread bytes resets the
        connection, and the reset overtakes what was sent before it.
        """
        for channel in self._channels.values():
            channel.cancel()
        await self._flush()
        while self._channels:
            await self._emptied.park()

    async def _greet(self, token: str | None, timeout: float) -> None:
        limits = self._connection.limits
        hello = wire.Hello(
            list(wire.VERSIONS), limits.max_frame, limits.max_streams, token, agent="llcuda-net"
        )
        try:
            self._send(hello)
        except wire.LocalProtocolError:
            raise RequestError(
                wire.ErrorCode.UNAUTHORIZED, "a token has at most 4096 characters of text"
            ) from None
        with trio.move_on_after(timeout):
            await self._greeted.wait()
        if self._failure is not None:
            raise self._failure()
        if self.welcome is None:
            raise ConnectError(
                f"{self.name} did not greet within {timeout:.1f} s: is that an llcuda-server?"
            )

    # -- what the tasks do ----------------------------------------------------------------------

    def _take(self, event: wire.Event) -> None:
        if isinstance(event, wire.ConnectionClosed):
            self._fail(partial(ConnectError, self._lost(None)))
        elif isinstance(event, wire.Welcome):
            self.welcome = event
            for _ in range(min(event.max_streams, self._connection.limits.max_streams)):
                self._room.release()
            self._greeted.set()
        elif isinstance(event, wire.GoAway):
            self.going_away = event
        elif isinstance(event, wire.Ping):
            if len(self._out) <= _MOST_PONGS:
                self._send(wire.Pong(event.payload))
        elif isinstance(event, wire.Pong):
            if (answered := self._pings.get(event.payload)) is not None:
                answered.set()
        elif isinstance(event, wire.Error) and event.stream == 0:
            self._fail(partial(refusal, event))
        else:
            self._take_on_stream(event)

    def _take_on_stream(self, event: wire.Frame) -> None:
        number: int = getattr(event, "stream", 0)
        channel = self._channels[number]
        channel.put(event)
        if not self._connection.is_open(number):
            del self._channels[number]
            self._room.release()
            self._emptied.unpark_all()

    def _send(self, event: wire.Frame) -> None:
        self._queue_bytes(self._connection.send(event))

    def _queue_bytes(self, data: bytes) -> None:
        self._out += data
        self._writer_wakes.unpark_all()

    def _check_usable(self) -> None:
        if self._failure is not None:
            raise self._failure()
        if self.going_away is not None:
            raise RequestError(
                wire.ErrorCode.SHUTTING_DOWN,
                self.going_away.message or f"{self.name} is shutting down",
                retry=True,
            )

    def _fail(self, failure: Callable[[], LlcudaError]) -> None:
        if self._failure is not None:
            return
        self._failure = failure
        for channel in self._channels.values():
            channel.fail(failure)
            self._room.release()
        self._channels.clear()
        self._emptied.unpark_all()
        for answered in self._pings.values():
            answered.set()
        self._greeted.set()
        self._failed.set()

    def _lost(self, error: BaseException | None) -> str:
        """Why the connection ended between two frames, in one line."""
        if self.welcome is None:
            return self._explain_greeting(
                f"{self.name} closed the connection without a greeting: "
                "it is no llcuda-server, or it wants TLS (--tls)"
            )
        if self.going_away is not None:
            return f"{self.name} has shut down"
        if error is None:
            incomplete = " before the answer was complete" if self._channels else ""
            return f"{self.name} closed the connection{incomplete}"
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return f"the connection to {self.name} was lost: {reason.lower()}"

    def _explain(self, error: wire.RemoteProtocolError) -> str:
        if self.welcome is None:
            return self._explain_greeting(
                f"{self.name} is not an llcuda-server that this client knows: {error.message}"
            )
        if error.code == wire.ErrorCode.TRUNCATED_FRAME:
            return f"the connection to {self.name} was lost in the middle of a frame"
        return f"{self.name} broke the protocol: {error.message} ({error.code})"

    def _explain_greeting(self, otherwise: str) -> str:
        """What the first bytes of something else than an llcuda-server tell."""
        first = self._first_bytes
        if first.startswith((b"\x15\x03", b"\x16\x03")):
            return f"{self.name} wants TLS: add --tls (in Python, tls=True)"
        for start, kind in _STRANGERS.items():
            if first.startswith(start):
                return f"{self.name} is {kind}, not an llcuda-server: check the address"
        return otherwise


_STRANGERS = {
    b"HTTP/": "an HTTP server",
    b"<": "an HTTP server",
    b"SSH-": "an SSH server",
    b"220": "a mail or FTP server",
}
