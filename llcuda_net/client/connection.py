"""One connection of the client: a reading and a writing task, which serve its channels.

Rules of this file:
- Only the writing task sends, from one buffer that is filled in the order in which frames were
  made. A task that is cancelled can so never leave half a frame behind.
- Only the reading task receives. It never waits for a consumer: what a channel may hold is bounded
  by the credit given for it.
- Both run shielded, so that what is said on the way out (cancel) still arrives, within a second.
- A link fails once, with one reason, which then meets every channel; `lost` says whether another
  link may go on where it stopped. That is `reconnect.py`'s matter: nothing here is done twice.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import trio

import llcuda_protocol as wire
from llcuda_net.client.channel import Channel
from llcuda_net.client.requests import WINDOW, refusal
from llcuda_net.client.strangers import explain_greeting
from llcuda_net.errors import (
    ConnectError,
    InvalidRequest,
    LlcudaError,
    ShuttingDown,
    Unauthorized,
)

#: Seconds that a goodbye may take: the last frames, and the closing of the socket.
GOODBYE = 1.0
_CHUNK = 65_536
_MOST_PONGS = 1 << 20  # unsent bytes above which pings are no longer answered
#: Ends of a connection that another one may not meet.
_PASSING = {
    wire.ErrorCode.HANDSHAKE_TIMEOUT,
    wire.ErrorCode.TOO_MANY_CONNECTIONS,
    wire.ErrorCode.TRUNCATED_FRAME,
    wire.ErrorCode.SHUTTING_DOWN,
}


class ServerConnection:
    """The connection, over any trio stream.

    Args:
        transport: the open byte stream; the link closes it.
        name: the server's name in messages.
        keepalive: seconds of silence after which the server is asked for a sign of life; after as
            many again the link fails.
    """

    def __init__(self, transport: trio.abc.Stream, name: str, keepalive: float) -> None:
        self.name = name
        #: Why it failed, and whether another link may fare better.
        self.failure: Callable[[], LlcudaError] | None = None
        self.lost = False
        #: It has failed, or takes no more requests and has none left.
        self.over = trio.Event()
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
        self._leaving = False  # the server has said on a stream that it stops
        self._failed = trio.Event()
        self._first_bytes = b""
        self._pings: dict[bytes, trio.Event] = {}
        self._ping_count = 0
        self._tasks = trio.CancelScope(shield=True)

    @property
    def usable(self) -> bool:
        """Whether it takes requests."""
        greeted = self.welcome is not None and self.failure is None
        return greeted and self.going_away is None and not self._leaving

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Serve the link until it fails or is stopped; shielded from cancellation."""
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

    def stop(self) -> None:
        """Close it."""
        self._tasks.cancel()

    async def greet(self, token: str | None, timeout: float) -> None:
        """Greet the server; the link is usable afterwards.

        Args:
            token: the secret that the server may want.
            timeout: seconds to wait for the server's greeting.

        Raises:
            ConnectError: there is no llcuda-server at the other end.
            RequestError: the server refused the connection.
        """
        limits = self._connection.limits
        hello = wire.Hello(
            list(wire.VERSIONS), limits.max_frame, limits.max_streams, token, agent="llcuda-net"
        )
        try:
            self._send(hello)
        except wire.LocalProtocolError:
            raise Unauthorized("a token has at most 4096 characters of text") from None
        with trio.move_on_after(timeout):
            await self._greeted.wait()
        if self.failure is not None:
            raise self.failure()
        if self.welcome is None:
            raise ConnectError(
                f"{self.name} did not greet within {timeout:.1f} s: is that an llcuda-server?"
            )

    async def say_goodbye(self) -> None:
        """Stop what still runs, wait until the server has confirmed it, and close.

        Closing at once would lose the cancel: a socket closed with unread bytes resets the
        connection, and the reset overtakes what was sent before it.
        """
        with trio.move_on_after(GOODBYE, shield=True):
            for channel in self._channels.values():
                channel.leave()
            await self._flush()
            while self._channels:
                await self._emptied.park()
        self.stop()

    async def open(self, channel: Channel) -> None:
        """Send a channel's request; wait for room to do so.

        Raises:
            ConnectError: the connection is lost.
            RequestError: the server is going away, or the request cannot be put into a frame.
        """
        await self._room.acquire()
        self._begin(channel)

    def open_nowait(self, channel: Channel) -> bool:
        """The same where there is room; otherwise False.

        Raises:
            RequestError: as `open`.
        """
        try:
            self._room.acquire_nowait()
        except trio.WouldBlock:
            return False
        self._begin(channel)
        return True

    async def ping(self) -> float:
        """Seconds that the server takes to answer.

        Raises:
            ConnectError: the connection is lost.
        """
        if self.failure is not None:
            raise self.failure()
        self._ping_count += 1
        payload = self._ping_count.to_bytes(8, "big")
        self._pings[payload] = answered = trio.Event()
        started = trio.current_time()
        try:
            self._send(wire.Ping(payload))
            await answered.wait()
        finally:
            del self._pings[payload]
        if self.failure is not None:
            raise self.failure()
        return trio.current_time() - started

    # -- for channels ---------------------------------------------------------------------------

    def cancel(self, number: int, *, detach: bool) -> None:
        """Ask the server to stop a stream, if that can still be asked."""
        if self.failure is None and self._connection.is_open(number):
            self._send(wire.Cancel(number, detach))

    def replenish(self, number: int) -> None:
        """Give a stream its whole window again, if less than half of it is left."""
        if self.failure is not None or not self._connection.is_open(number):
            return
        left = self._connection.credit(number)
        if left <= WINDOW // 2:
            # One piece may be larger than the credit and leave it below zero, which reads as 0:
            # more than one step is needed then.
            while left < WINDOW:
                self._send(wire.Credit(number, WINDOW - left))
                left = self._connection.credit(number)

    # -- the tasks ------------------------------------------------------------------------------

    async def _read(self) -> None:
        """Take what arrives until the link has failed."""
        connection = self._connection
        try:
            while self.failure is None:
                data = await self._receive()
                if not self._first_bytes:
                    self._first_bytes = bytes(data[:64])
                connection.receive_data(data)
                while (event := connection.next_event()) is not None:
                    self._take(event)
                    if self.failure is not None:
                        break
        except wire.RemoteProtocolError as error:
            self._queue_bytes(error.reply)
            lost = error.code == wire.ErrorCode.TRUNCATED_FRAME
            self._fail(partial(ConnectError, self._explain(error)), lost=lost)
        except (trio.BrokenResourceError, trio.ClosedResourceError, OSError) as error:
            self._fail(partial(ConnectError, self._why(error.__cause__ or error)), lost=True)

    async def _receive(self) -> bytes | bytearray:
        with trio.move_on_after(self._keepalive):
            return await self._transport.receive_some(_CHUNK)
        if self._greeted.is_set():
            self._send(wire.Ping())
        with trio.move_on_after(self._keepalive):
            return await self._transport.receive_some(_CHUNK)
        silence = f"{self.name} has been silent for {2 * self._keepalive:g} s: gave it up"
        self._fail(partial(ConnectError, silence), lost=True)
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
            self._fail(partial(ConnectError, self._why(error.__cause__ or error)), lost=True)
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

    # -- what the tasks do ----------------------------------------------------------------------

    def _take(self, event: wire.Event) -> None:
        if isinstance(event, wire.ConnectionClosed):
            self._fail(partial(ConnectError, self._why(None)), lost=True)
        elif isinstance(event, wire.Welcome):
            self.welcome = event
            for _ in range(min(event.max_streams, self._connection.limits.max_streams)):
                self._room.release()
            self._greeted.set()
        elif isinstance(event, wire.GoAway):
            self.going_away = event
            self._check_over()
        elif isinstance(event, wire.Ping):
            if len(self._out) <= _MOST_PONGS:
                self._send(wire.Pong(event.payload))
        elif isinstance(event, wire.Pong):
            if (answered := self._pings.get(event.payload)) is not None:
                answered.set()
        elif isinstance(event, wire.Error) and event.stream == 0:
            self._fail(partial(refusal, event), lost=event.retry or event.code in _PASSING)
        else:
            self._take_on_stream(event)

    def _take_on_stream(self, event: wire.Frame) -> None:
        number: int = getattr(event, "stream", 0)
        if isinstance(event, wire.Error) and event.code == wire.ErrorCode.SHUTTING_DOWN:
            self._leaving = True
        channel = self._channels[number]
        if not self._connection.is_open(number):
            del self._channels[number]
            self._room.release()
            self._emptied.unpark_all()
            self._check_over()
        channel.put(event)

    def _begin(self, channel: Channel) -> None:
        """Use the room that was taken, or give it back."""
        number = self._next_number
        try:
            self._check_usable()
            self._send(channel.frame(number))
        except wire.LocalProtocolError as error:
            self._room.release()
            raise InvalidRequest(f"the request cannot be sent: {error}") from None
        except BaseException:
            self._room.release()
            raise
        self._next_number += 1
        self._channels[number] = channel
        channel.bind(self, number)

    def _check_over(self) -> None:
        if (self.going_away is not None or self._leaving) and not self._channels:
            self.over.set()

    def _send(self, event: wire.Frame) -> None:
        self._queue_bytes(self._connection.send(event))

    def _queue_bytes(self, data: bytes) -> None:
        self._out += data
        self._writer_wakes.unpark_all()

    def _check_usable(self) -> None:
        if self.failure is not None:
            raise self.failure()
        if self.going_away is not None:
            raise ShuttingDown(
                self.going_away.message or f"{self.name} is shutting down",
                retry=True,
            )

    def _fail(self, failure: Callable[[], LlcudaError], *, lost: bool = False) -> None:
        if self.failure is not None:
            return
        self.failure = failure
        self.lost = lost
        channels = tuple(self._channels.values())
        self._channels.clear()
        for channel in channels:
            self._room.release()
            channel.fail(failure, lost=lost)
        self._emptied.unpark_all()
        for answered in self._pings.values():
            answered.set()
        self._greeted.set()
        self._failed.set()
        self.over.set()

    def _why(self, error: BaseException | None) -> str:
        """Why the connection ended between two frames, in one line."""
        if self.welcome is None:
            return explain_greeting(
                self.name,
                self._first_bytes,
                f"{self.name} closed the connection without a greeting: "
                "it is no llcuda-server, or it wants TLS (--tls)",
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
            return explain_greeting(
                self.name,
                self._first_bytes,
                f"{self.name} is not an llcuda-server that this client knows: {error.message}",
            )
        if error.code == wire.ErrorCode.TRUNCATED_FRAME:
            return f"the connection to {self.name} was lost in the middle of a frame"
        return f"{self.name} broke the protocol: {error.message} ({error.code})"
