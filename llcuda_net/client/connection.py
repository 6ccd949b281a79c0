"""One connection of the client: a reading and a writing task, which serve its channels.

Rules of this file:
- Only the writing task sends; see `carrier.py`.
- Only the reading task receives. It never waits for a consumer: the credit given for a channel
  bounds what the channel may hold.
- Both run shielded, so that the last frames (cancel) still arrive, within a second.
- A connection fails once, with one reason, which every channel then gets. `lost` says whether
  another connection may go on where it stopped. `reconnecting.py` does that: nothing here is sent
  again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import trio

import llcuda_protocol as wire
from llcuda_net.client.carrier import Carrier
from llcuda_net.client.channel import Channel
from llcuda_net.client.chat.upload import Upload
from llcuda_net.client.dial import explain_greeting
from llcuda_net.client.requests import LEAVING, TAKES, refusal
from llcuda_net.errors import (
    ConnectError,
    FrameTooLarge,
    InvalidRequest,
    LlcudaError,
    ShuttingDown,
    Unauthorized,
)

#: Seconds that a goodbye may take: the last frames, and the closing of the socket.
GOODBYE = 1.0
_CHUNK = 65_536
_MOST_PONGS = 1 << 20  # unsent bytes above which pings are no longer answered
#: Codes that end a connection though another one may succeed.
_PASSING = {
    wire.ErrorCode.HANDSHAKE_TIMEOUT,
    wire.ErrorCode.TOO_MANY_CONNECTIONS,
    wire.ErrorCode.TRUNCATED_FRAME,
    *LEAVING,
}


class ServerConnection:
    """The connection, over any trio stream.

    Args:
        transport: the open byte stream, which the connection closes.
        name: the server's name in messages.
        keepalive: seconds of silence after which the server is pinged; after as many again without
            a byte from it the connection fails.

    Attributes:
        failure: makes the exception that says why it failed; None while it has not.
        lost: whether another connection may succeed where this one failed.
        over: set when it has failed, or takes no more requests and has none left.
        going_away: the server's announcement that it stops.
        welcome: the server's greeting; None before it.
    """

    def __init__(self, transport: trio.abc.Stream, name: str, keepalive: float) -> None:
        self.name = name
        self.failure: Callable[[], LlcudaError] | None = None
        self.lost = False
        self.over = trio.Event()
        self.going_away: wire.GoAway | None = None
        self.welcome: wire.Welcome | None = None
        self._transport = transport
        self._keepalive = keepalive
        self._carrier = Carrier(transport)
        self._protocol = self._carrier.protocol
        self._channels: dict[int, Channel | Upload] = {}
        self._next_number = 1
        self._room = trio.Semaphore(0)
        self._emptied = trio.lowlevel.ParkingLot()
        self._greeted = trio.Event()
        self._leaving = ""  # the code with which the server said on a stream that it stops
        self._failed = trio.Event()
        self._first_bytes = b""
        self._pings: dict[bytes, trio.Event] = {}
        self._ping_count = 0
        self._tasks = trio.CancelScope(shield=True)

    def __repr__(self) -> str:
        if self.failure is not None:
            state = f"failed: {self.failure()}"
        elif self.welcome is None:
            state = "not greeted"
        else:
            state = "open" if self.usable else "going away"
        return (
            f"<ServerConnection to {self.name} {state}; {len(self._channels)} streams, "
            f"{self._carrier.unsent} bytes unsent>"
        )

    @property
    def usable(self) -> bool:
        """Whether it takes requests."""
        greeted = self.welcome is not None and self.failure is None
        return greeted and self.going_away is None and not self._leaving

    @property
    def shuts_down(self) -> bool:
        """Whether the server said so."""
        return self.going_away is not None or self._leaving == wire.ErrorCode.SHUTTING_DOWN

    @property
    def idle(self) -> bool:
        """Whether no request is open."""
        return not self._channels

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Serve the connection until it fails or is stopped; shielded from cancellation."""
        with self._tasks:
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._write)
                    await self._read()
                    with trio.move_on_after(GOODBYE):
                        await self._carrier.flush()
                    nursery.cancel_scope.cancel()
            finally:
                self._fail(partial(ConnectError, f"the connection to {self.name} is closed"))
                with trio.move_on_after(GOODBYE, shield=True):
                    await self._transport.aclose()

    def stop(self) -> None:
        """Close it."""
        self._tasks.cancel()

    async def greet(
        self, token: str | None, timeout: float, peer: dict[str, Any] | None = None
    ) -> None:
        """Greet the server; the connection is usable afterwards.

        Args:
            token: the secret, for a server that requires one.
            timeout: seconds to wait for the server's greeting.
            peer: of a server that greets another one of its cluster.

        Raises:
            ConnectError: there is no llcuda-server at the other end.
            RequestError: the server refused the connection.
        """
        limits = self._protocol.limits
        hello = wire.Hello(
            list(wire.VERSIONS),
            limits.max_frame,
            limits.max_streams,
            token,
            agent="llcuda-net",
            features=[*TAKES],
            peer=peer,
        )
        try:
            self._carrier.send(hello)
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
            await self._carrier.flush()
            while self._channels:
                await self._emptied.park()
        self.stop()

    async def open(self, channel: Channel) -> None:
        """Send a channel's request; wait while as many streams are open as the server allows.

        What is too large for its frame is uploaded before.

        Raises:
            ConnectError: the connection is lost.
            RequestError: the server is going away, or refuses an upload, or the request cannot be
                put into a frame.
        """
        uploads = {}
        for data in channel.request.uploads(self.welcome.features if self.welcome else ()):
            uploads[id(data)] = await self._upload(data)
        await self._room.acquire()
        self._begin(channel, uploads)

    def open_nowait(self, channel: Channel) -> bool:
        """The same if the server allows another stream now; otherwise False.

        Raises:
            RequestError: as `open`.
        """
        try:
            self._room.acquire_nowait()
        except trio.WouldBlock:
            return False
        self._begin(channel, {})
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
            self._carrier.send(wire.Ping(payload))
            await answered.wait()
        finally:
            del self._pings[payload]
        if self.failure is not None:
            raise self.failure()
        return trio.current_time() - started

    # -- the tasks ------------------------------------------------------------------------------

    async def _read(self) -> None:
        """Take what arrives until the connection has failed."""
        protocol = self._protocol
        try:
            while self.failure is None:
                data = await self._receive()
                if not self._first_bytes:
                    self._first_bytes = bytes(data[:64])
                protocol.receive_data(data)
                while (event := protocol.next_event()) is not None:
                    self._take(event)
                    if self.failure is not None:
                        break
        except wire.RemoteProtocolError as error:
            self._carrier.send_bytes(error.reply)
            lost = error.code == wire.ErrorCode.TRUNCATED_FRAME
            self._fail(partial(ConnectError, self._explain(error)), lost=lost)
        except (trio.BrokenResourceError, trio.ClosedResourceError, OSError) as error:
            self._fail(partial(ConnectError, self._why(error.__cause__ or error)), lost=True)

    async def _receive(self) -> bytes | bytearray:
        with trio.move_on_after(self._keepalive):
            return await self._transport.receive_some(_CHUNK)
        if self._greeted.is_set():
            self._carrier.send(wire.Ping())
        with trio.move_on_after(self._keepalive):
            return await self._transport.receive_some(_CHUNK)
        silence = f"{self.name} has been silent for {2 * self._keepalive:g} s: gave it up"
        self._fail(partial(ConnectError, silence), lost=True)
        return b""

    async def _write(self) -> None:
        try:
            await self._carrier.run()
        except (trio.BrokenResourceError, trio.ClosedResourceError, OSError) as error:
            # The server may have sent a reason before it closed: let the reader find that first.
            with trio.move_on_after(GOODBYE):
                await self._failed.wait()
            self._fail(partial(ConnectError, self._why(error.__cause__ or error)), lost=True)
            self._tasks.cancel()

    # -- what the tasks do ----------------------------------------------------------------------

    def _take(self, event: wire.Event) -> None:
        if isinstance(event, wire.ConnectionClosed):
            self._fail(partial(ConnectError, self._why(None)), lost=True)
        elif isinstance(event, wire.Welcome):
            self.welcome = event
            for _ in range(min(event.max_streams, self._protocol.limits.max_streams)):
                self._room.release()
            self._greeted.set()
        elif isinstance(event, wire.GoAway):
            self.going_away = event
            self._check_over()
        elif isinstance(event, wire.Ping):
            if self._carrier.unsent <= _MOST_PONGS:
                self._carrier.send(wire.Pong(event.payload))
        elif isinstance(event, wire.Pong):
            if (answered := self._pings.get(event.payload)) is not None:
                answered.set()
        elif isinstance(event, wire.Error) and event.stream == 0:
            self._fail(partial(refusal, event), lost=event.retry or event.code in _PASSING)
        elif not isinstance(event, wire.Invalid):  # which only a server gets
            self._take_on_stream(event)

    def _take_on_stream(self, event: wire.Frame) -> None:
        number: int = getattr(event, "stream", 0)
        if isinstance(event, wire.Error) and event.code in LEAVING:
            self._leaving = event.code
        channel = self._channels[number]
        if not self._protocol.is_open(number):
            del self._channels[number]
            self._room.release()
            self._emptied.unpark_all()
            self._check_over()
        channel.put(event)

    async def _upload(self, data: bytes) -> int:
        """Upload data on a stream of its own; returns the number by which a request names it."""
        assert self.welcome is not None
        most = self.welcome.max_upload
        if most is not None and len(data) > most:
            raise FrameTooLarge(
                f"an image or recording of {len(data)} bytes does not fit: "
                f"{self.name} takes at most {most}"
            )
        await self._room.acquire()
        number = self._next_number
        upload = Upload(number, data, partial(self._carrier.cancel, number, detach=False))
        try:
            self._check_usable()
            self._carrier.upload(upload)
        except BaseException:
            self._room.release()
            raise
        self._next_number += 1
        self._channels[number] = upload
        try:
            await upload.ended.wait()
        finally:
            upload.leave()
        if upload.failure is not None:
            raise upload.failure()
        return number

    def _begin(self, channel: Channel, uploads: Mapping[int, int]) -> None:
        """Send on the stream that was acquired, or release it again."""
        number = self._next_number
        try:
            self._check_usable()
            self._carrier.send(channel.frame(number, uploads))
        except wire.FrameTooLargeError as error:
            self._room.release()
            raise FrameTooLarge(f"the request does not fit: {error}") from None
        except wire.LocalProtocolError as error:
            self._room.release()
            raise InvalidRequest(f"the request cannot be sent: {error}") from None
        except BaseException:
            self._room.release()
            raise
        self._next_number += 1
        self._channels[number] = channel
        channel.bind(self._carrier, number)

    def _check_over(self) -> None:
        if (self.going_away is not None or self._leaving) and not self._channels:
            self.over.set()

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
        self._carrier.close()
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
