"""A connection that is made again when it is lost, and requests that outlive the loss.

Tasks, all in the one nursery that the client's block opens:

    nursery
    ├── `ServerConnection.run`, shielded; two of them while one connection ends and the next begins
    ├── one task for each request that is sent again with uploads, until it is sent
    └── the watcher, only where there is a way to redial: it sleeps while the connection is up

A connection that fails passes each of its channels to `lost`. The watcher then pauses, dials,
greets, sends what the lost channels need to go on (all over one connection), and wakes the tasks
that wait to send a new request. It does the same for a connection that the server is leaving, once
no stream is left on it.

Nobody waits longer than `reconnect` seconds: a lost channel has a deadline, which is lifted when
the server answers it, and a new request has a timeout of its own. The pauses between attempts
double from `PAUSE` to `LONGEST_PAUSE`. They start again at zero when the server has answered a
request, not when it has merely accepted the connection: so a server that crashes at each request
is not sent requests without pause.

Leaving the block ends the watcher at once, whatever it waits for, and then the connection.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import trio

from llcuda_net.client.channel import Channel
from llcuda_net.client.connection import ServerConnection
from llcuda_net.client.notices import Notices
from llcuda_net.client.requests import Request, require
from llcuda_net.errors import ConnectError, LlcudaError, RequestError, ShuttingDown, request_error

#: Seconds between attempts to connect: the first pause, and the longest.
PAUSE = 0.1
LONGEST_PAUSE = 2.0


class _Waiter:
    """A task that waits for a usable connection."""

    def __init__(self) -> None:
        self.woken = trio.Event()
        self.failure: Callable[[], LlcudaError] | None = None

    def wake(self, failure: Callable[[], LlcudaError] | None = None) -> None:
        self.failure = failure
        self.woken.set()


class ReconnectingConnection:
    """The client's connection to a server: one `ServerConnection` after another.

    Args:
        name: the server's name in messages; of several, the one that `redial` has reached last.
        token: the secret, for a server that requires one.
        timeout: seconds for one attempt to connect.
        keepalive: as for `ServerConnection`.
        reconnect: seconds for which a lost connection is tried again; 0: not at all.
        redial: opens another byte stream to the same server, or to the next one; None: a lost
            connection stays lost.
        servers: how many `redial` has. The first greeting is asked of each, until one greets.
        on_note: called with one line for a person when the connection is lost, and what becomes
            of it.
    """

    def __init__(
        self,
        name: str | Callable[[], str],
        *,
        token: str | None,
        timeout: float,
        keepalive: float,
        reconnect: float = 0.0,
        redial: Callable[[], Awaitable[trio.abc.Stream]] | None = None,
        servers: int = 1,
        on_note: Callable[[str], object] | None = None,
    ) -> None:
        self._name = name
        self._token = token
        self._timeout = timeout
        self._keepalive = keepalive
        self._reconnect = reconnect
        self._redial = redial if reconnect > 0 else None
        self._next = redial
        self._servers = servers
        self._notices = Notices(on_note)
        self._connection: ServerConnection
        self._nursery: trio.Nursery
        self._watching = trio.CancelScope()
        self._closing = False
        self._lost: list[Channel] = []
        self._waiters: list[_Waiter] = []
        self._news = trio.lowlevel.ParkingLot()
        self._pause = 0.0
        self._reason = ""  # why there is no connection now

    def __repr__(self) -> str:
        connection = getattr(self, "_connection", "not started")
        return f"<ReconnectingConnection {connection}; {len(self._lost)} requests lost>"

    @asynccontextmanager
    async def run(self, transport: trio.abc.Stream, timeout: float) -> AsyncIterator[None]:
        """Greet the server over the first byte stream, and stay connected while the body runs.

        Args:
            transport: the open byte stream, which the connection closes.
            timeout: seconds to wait for the server's greeting.

        Raises:
            ConnectError: there is no llcuda-server at the other end.
            RequestError: the server refused the connection.
        """
        # An exception of the body leaves as it is: a nursery would wrap it in a group.
        raised: BaseException | None = None
        async with trio.open_nursery() as self._nursery:
            self._connection = self._begin(transport)
            try:
                await self._greet_first(timeout)
                if self._redial is not None:
                    self._nursery.start_soon(self._watch)
                yield
            except BaseException as error:
                raised = error
            self._closing = True
            self._watching.cancel()
            await self._connection.say_goodbye()
        if raised is not None:
            try:
                raise raised
            finally:
                del raised

    @property
    def name(self) -> str:
        """The server's name in messages."""
        return self._name if isinstance(self._name, str) else self._name()

    async def _greet_first(self, timeout: float) -> None:
        """Greet the server, or one of those behind it in the list."""
        until = trio.current_time() + timeout
        for left in reversed(range(self._servers)):
            # Who takes the connection and says nothing may not use up the time of the others.
            share = max(0.0, until - trio.current_time()) / (left + 1)
            try:
                await self._connection.greet(self._token, share)
                return
            except (ConnectError, RequestError):
                passes = self._connection.failure is None or self._connection.lost
                if not left or not passes or self._next is None:
                    raise
                self._connection.stop()
                await self._connection.over.wait()
                with trio.move_on_at(until):
                    self._connection = self._begin(await self._next())
                    continue
                raise

    @property
    def features(self) -> frozenset[str]:
        """What the server announced that it serves when it was last greeted."""
        welcome = self._connection.welcome
        return frozenset(welcome.features) if welcome is not None else frozenset()

    async def open(
        self, request: Request, *, detaches: bool = False, stop: bool = False
    ) -> Channel:
        """Send a request, over the next connection if this one is lost.

        Waits while as many streams are open as the server allows.

        Args:
            request: what to send.
            detaches: whether closing the channel early lets its generation go on.
            stop: whether to cancel the generation right behind the request.

        Raises:
            ConnectError: there is no connection, and none could be made in time.
            RequestError: the server is going away, refuses the connection or is too old for the
                request, or the request cannot be put into a frame.
        """
        channel = Channel(request, self, detaches=detaches)
        if stop:
            channel.stop(detach=False)
        while True:
            connection = await self._usable()
            require(self.features, request, self.name)
            try:
                await connection.open(channel)
            except LlcudaError:
                if connection.usable or not self._worth_another(connection):
                    raise
            else:
                return channel

    async def ping(self) -> float:
        """Seconds that the server takes to answer.

        Raises:
            ConnectError: as for `open`.
        """
        while True:
            up = self._connection.failure is None
            connection = self._connection if up else await self._usable()
            try:
                return await connection.ping()
            except LlcudaError:
                if not self._worth_another(connection):
                    raise

    # -- as the owner of channels -----------------------------------------------------------------

    def lost(self, channel: Channel) -> bool:
        """The channel lost its connection. Whether it will be sent again; if not, it fails."""
        if not self._reconnects:
            return False
        if channel.wanted:
            if channel.deadline is None:
                channel.deadline = trio.current_time() + self._reconnect
            self._lost.append(channel)
            self._notices.lost(channel)
            self._news.unpark_all()
        return True

    def answered(self, channel: Channel) -> None:
        """The server has answered the channel on its present connection."""
        self._pause = 0.0
        self._notices.answered(channel)

    def forget(self, channel: Channel) -> None:
        """The channel need not be sent again."""
        if channel in self._lost:
            self._lost.remove(channel)
        self._notices.forget(channel)

    # -- waiting for a connection -----------------------------------------------------------------

    @property
    def _reconnects(self) -> bool:
        """Whether a lost connection is replaced: not where the server could not resume streams."""
        return self._redial is not None and not self._closing and "attach" in self.features

    def _worth_another(self, connection: ServerConnection) -> bool:
        """Whether what failed on this connection may succeed on another."""
        return self._reconnects and (connection.failure is None or connection.lost)

    async def _usable(self) -> ServerConnection:
        """A connection that takes requests; or, without reconnecting, the one there is."""
        if self._connection.usable or not self._reconnects:
            return self._connection
        with trio.move_on_after(self._reconnect):
            while not self._connection.usable:
                waiter = _Waiter()
                self._waiters.append(waiter)
                self._news.unpark_all()
                try:
                    await waiter.woken.wait()
                finally:
                    if waiter in self._waiters:
                        self._waiters.remove(waiter)
                if waiter.failure is not None:
                    raise waiter.failure()
            return self._connection
        self._notices.gave_up(self._reconnect)
        if self._connection.failure is None:
            raise ShuttingDown(f"{self.name} is shutting down", retry=True)
        raise self._no_connection()

    def _no_connection(self) -> ConnectError:
        failure = self._connection.failure
        why = self._reason or (str(failure()) if failure is not None else "")
        return ConnectError(f"gave up after {self._reconnect:g} s without a connection: {why}")

    # -- the watcher ------------------------------------------------------------------------------

    @trio.lowlevel.enable_ki_protection
    async def _watch(self) -> None:
        with self._watching:
            try:
                while True:
                    while not (self._lost or self._waiters):
                        self._notices.quiet()
                        await self._news.park()
                    self._notices.begin(self._why())
                    await self._rest()
                    self._expire()
                    if self._lost or self._waiters:
                        await self._mend()
            finally:
                self._closing = True
                self._refuse(partial(ConnectError, f"the connection to {self.name} is closed"))

    def _why(self) -> str:
        """What has happened to what is lost."""
        if self._connection.failure is not None:
            return "connection lost"
        if self._connection.shuts_down:
            return "the server is shutting down"
        return "the server could not go on"  # as one that has lost its lease

    async def _rest(self) -> None:
        """Pause before an attempt, not beyond the first deadline."""
        # Spread the clients of a restarted server: they should not all connect at once.
        pause = self._pause * random.uniform(0.5, 1.0)
        self._pause = min(max(2 * self._pause, PAUSE), LONGEST_PAUSE)
        await trio.sleep_until(min(trio.current_time() + pause, self._first_deadline()))

    def _first_deadline(self) -> float:
        return min((c.deadline for c in self._lost if c.deadline is not None), default=float("inf"))

    def _expire(self) -> None:
        """Give up the lost channels whose deadline has passed."""
        now = trio.current_time()
        late = [c for c in self._lost if c.deadline is not None and c.deadline <= now]
        if not late:
            return
        self._notices.gave_up(self._reconnect)
        for channel in late:
            # A server that answers and refuses has given the reason.
            refused = channel.failure if self._connection.usable else None
            channel.fail(refused or self._no_connection)

    async def _mend(self) -> None:
        """One attempt to bring lost channels and waiting tasks onto a usable connection."""
        if not self._connection.usable:
            connection = await self._connect()
            if connection is None:
                return
            self._connection = connection
            self._reason = ""
        self._send_again()
        self._wake()
        self._notices.connected()

    async def _connect(self) -> ServerConnection | None:
        """Dial and greet; None if this attempt fails."""
        assert self._redial is not None  # there is no watcher without
        connection: ServerConnection | None = None
        greeted = False
        timeout = trio.current_time() + self._timeout
        try:
            with trio.move_on_at(min(timeout, self._first_deadline())):
                await self._connection.over.wait()
                self._connection.stop()
                connection = self._begin(await self._redial())
                await connection.greet(self._token, self._timeout)
                greeted = not self._closing
        except (ConnectError, RequestError) as error:
            self._reason = str(error)
            if connection is not None and connection.failure is not None and not connection.lost:
                self._refuse(connection.failure)
        except (OSError, trio.BrokenResourceError) as error:
            self._reason = f"cannot connect to {self.name}: {error}"
        finally:
            if connection is not None and not greeted:
                connection.stop()
        if greeted:
            return connection
        if self._connection.over.is_set() and (self._lost or self._waiters):
            self._reason = self._reason or f"{self.name} does not answer"
            self._notices.retrying(self._reason)
        return None

    def _begin(self, transport: trio.abc.Stream) -> ServerConnection:
        connection = ServerConnection(transport, self.name, self._keepalive)
        self._nursery.start_soon(connection.run)
        return connection

    def _send_again(self) -> None:
        """Send what the lost channels need to go on, as far as the server allows streams."""
        other = partial(ConnectError, f"{self.name} is another server now, which cannot resume")
        for channel in tuple(self._lost):
            if not self._reconnects:
                channel.fail(other)
                continue
            if not self._connection.usable:  # it went away right after its greeting
                return
            try:
                require(self.features, channel.request, self.name)
                if channel.request.uploads(self.features):
                    self._lost.remove(channel)
                    self._nursery.start_soon(self._upload_again, self._connection, channel)
                elif self._connection.open_nowait(channel):
                    self._lost.remove(channel)
            except RequestError as error:
                channel.fail(partial(request_error, error.code, error.message, retry=error.retry))

    @trio.lowlevel.enable_ki_protection
    async def _upload_again(self, connection: ServerConnection, channel: Channel) -> None:
        """Send a lost channel whose request has uploads, which may take a while."""
        try:
            if channel.wanted:
                await connection.open(channel)
        except LlcudaError as error:
            lost = not connection.usable and self._worth_another(connection)
            channel.fail(partial(_again, error), lost=lost)

    def _refuse(self, failure: Callable[[], LlcudaError]) -> None:
        """End all that is lost, and all waiting."""
        for channel in tuple(self._lost):
            channel.fail(failure)
        self._wake(failure)

    def _wake(self, failure: Callable[[], LlcudaError] | None = None) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.wake(failure)


def _again(error: LlcudaError) -> LlcudaError:
    """The same error, without the trace of where it was raised before."""
    return error.with_traceback(None)
