"""The line to a server: one link after another, and requests that outlive them.

Tasks, all in the one nursery that the client's block opens:

    nursery of the line
    ├── the link's task (`ServerConnection.run`), shielded; while one ends and the next begins, one
    of each
    └── the watcher, only where there is something to dial: it sleeps while all is well

A link that fails hands each of its channels to `lost`. The watcher then waits a moment, dials,
greets, sends what the lost channels need to go on (one link for all of them), and lets those in
that wait to send something new. It does the same for a link that the server is leaving, once
nothing is left on it.

Nobody waits longer than `reconnect` seconds: a lost channel has a deadline, which is lifted when
the server answers it, and a new request a timeout of its own. The pauses between attempts double
from `PAUSE` to `LONGEST_PAUSE`; they begin anew when the server has answered a request, and not
when it merely let us in: one that falls over each time it is asked is not asked without pause.

Leaving the block ends the watcher at once, whatever it waits for, and then the link.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import trio

from llcuda_net.client.channel import Channel
from llcuda_net.client.connection import ServerConnection
from llcuda_net.client.notices import Notes
from llcuda_net.client.requests import Request, require
from llcuda_net.errors import ConnectError, LlcudaError, RequestError, ShuttingDown, request_error

#: Seconds between attempts to connect: the first pause, and the longest.
PAUSE = 0.1
LONGEST_PAUSE = 2.0


class _Waiter:
    """A task that waits for a usable link."""

    def __init__(self) -> None:
        self.woken = trio.Event()
        self.failure: Callable[[], LlcudaError] | None = None

    def wake(self, failure: Callable[[], LlcudaError] | None = None) -> None:
        self.failure = failure
        self.woken.set()


class ReconnectingConnection:
    """What a client talks through.

    Args:
        name: the server's name in messages.
        token: the secret that the server may want.
        timeout: seconds for one attempt to connect.
        keepalive: as for `ServerConnection`.
        reconnect: seconds for which a lost connection is tried again; 0: not at all.
        redial: opens another byte stream to the same server; None: there is no way to.
        on_note: called with one line for a person when the connection is lost, and what becomes
            of it.
    """

    def __init__(
        self,
        name: str,
        *,
        token: str | None,
        timeout: float,
        keepalive: float,
        reconnect: float = 0.0,
        redial: Callable[[], Awaitable[trio.abc.Stream]] | None = None,
        on_note: Callable[[str], object] | None = None,
    ) -> None:
        self.name = name
        self._token = token
        self._timeout = timeout
        self._keepalive = keepalive
        self._reconnect = reconnect
        self._redial = redial if reconnect > 0 else None
        self._notes = Notes(on_note)
        self._link: ServerConnection
        self._nursery: trio.Nursery
        self._watching = trio.CancelScope()
        self._closing = False
        self._lost: list[Channel] = []
        self._waiters: list[_Waiter] = []
        self._news = trio.lowlevel.ParkingLot()
        self._pause = 0.0
        self._reason = ""  # why there is no link now

    @asynccontextmanager
    async def run(self, transport: trio.abc.Stream, timeout: float) -> AsyncIterator[None]:
        """Greet the server over the first byte stream, and keep the line while the body runs.

        Args:
            transport: the open byte stream, which the line closes.
            timeout: seconds to wait for the server's greeting.

        Raises:
            ConnectError: there is no llcuda-server at the other end.
            RequestError: the server refused the connection.
        """
        # An exception of the body leaves as it is: a nursery would wrap it in a group.
        raised: BaseException | None = None
        async with trio.open_nursery() as self._nursery:
            self._link = self._begin(transport)
            try:
                await self._link.greet(self._token, timeout)
                if self._redial is not None:
                    self._nursery.start_soon(self._watch)
                yield
            except BaseException as error:
                raised = error
            self._closing = True
            self._watching.cancel()
            await self._link.say_goodbye()
        if raised is not None:
            try:
                raise raised
            finally:
                del raised

    @property
    def features(self) -> frozenset[str]:
        """What the server said it serves when it was last greeted."""
        welcome = self._link.welcome
        return frozenset(welcome.features) if welcome is not None else frozenset()

    async def open(
        self, request: Request, *, detaches: bool = False, stop: bool = False
    ) -> Channel:
        """Send a request, over the next link if need be; wait for room to do so.

        Args:
            request: what to ask.
            detaches: whether closing the channel early lets its generation go on.
            stop: whether to ask the server to stop it right behind the request.

        Raises:
            ConnectError: there is no connection, and none could be made in time.
            RequestError: the server is going away or lets us in no more, is too old for it, or the
                request cannot be put into a frame.
        """
        channel = Channel(request, self, detaches=detaches)
        if stop:
            channel.stop(detach=False)
        while True:
            link = await self._usable()
            require(self.features, request, self.name)
            try:
                await link.open(channel)
            except LlcudaError:
                if link.usable or not self._mends(link):
                    raise
            else:
                return channel

    async def ping(self) -> float:
        """Seconds that the server takes to answer.

        Raises:
            ConnectError: as for `open`.
        """
        while True:
            link = self._link if self._link.failure is None else await self._usable()
            try:
                return await link.ping()
            except LlcudaError:
                if not self._mends(link):
                    raise

    # -- what channels call -----------------------------------------------------------------------

    def lost(self, channel: Channel) -> bool:
        """Whether the channel will be sent again; if not, it has failed."""
        if not self._again:
            return False
        if channel.wanted:
            if channel.deadline is None:
                channel.deadline = trio.current_time() + self._reconnect
            self._lost.append(channel)
            self._notes.lost(channel)
            self._news.unpark_all()
        return True

    def settled(self, channel: Channel) -> None:
        """The server has answered a channel on its present link."""
        self._pause = 0.0
        self._notes.settled(channel)

    def forget(self, channel: Channel) -> None:
        """The channel need not be sent again."""
        if channel in self._lost:
            self._lost.remove(channel)
        self._notes.forget(channel)

    # -- waiting for a link -----------------------------------------------------------------------

    @property
    def _again(self) -> bool:
        """Whether links that are lost are replaced: not with servers that could not go on."""
        return self._redial is not None and not self._closing and "attach" in self.features

    def _mends(self, link: ServerConnection) -> bool:
        """Whether what failed with this link is worth another."""
        return self._again and (link.failure is None or link.lost)

    async def _usable(self) -> ServerConnection:
        """The link, once there is one that takes requests; or one that says why it does not."""
        if self._link.usable or not self._again:
            return self._link
        with trio.move_on_after(self._reconnect):
            while not self._link.usable:
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
            return self._link
        self._notes.gave_up(self._reconnect)
        if self._link.failure is None:
            raise ShuttingDown(f"{self.name} is shutting down", retry=True)
        raise self._no_connection()

    def _no_connection(self) -> ConnectError:
        failure = self._link.failure
        why = self._reason or (str(failure()) if failure is not None else "")
        return ConnectError(f"gave up after {self._reconnect:g} s without a connection: {why}")

    # -- the watcher ------------------------------------------------------------------------------

    @trio.lowlevel.enable_ki_protection
    async def _watch(self) -> None:
        with self._watching:
            try:
                while True:
                    while not (self._lost or self._waiters):
                        self._notes.quiet()
                        await self._news.park()
                    self._notes.tell_loss(going_away=self._link.failure is None)
                    await self._rest()
                    self._expire()
                    if self._lost or self._waiters:
                        await self._mend()
            finally:
                self._closing = True
                self._refuse(partial(ConnectError, f"the connection to {self.name} is closed"))

    async def _rest(self) -> None:
        """Pause before an attempt, not beyond the first deadline."""
        # Not all clients of a server that has come back shall knock in the same instant.
        pause = self._pause * random.uniform(0.5, 1.0)
        self._pause = min(max(2 * self._pause, PAUSE), LONGEST_PAUSE)
        await trio.sleep_until(min(trio.current_time() + pause, self._first_deadline()))

    def _first_deadline(self) -> float:
        return min((c.deadline for c in self._lost if c.deadline is not None), default=float("inf"))

    def _expire(self) -> None:
        """Give up the lost channels whose time is over."""
        now = trio.current_time()
        late = [c for c in self._lost if c.deadline is not None and c.deadline <= now]
        if not late:
            return
        self._notes.gave_up(self._reconnect)
        for channel in late:
            # A server that is there, and refuses, has said why.
            refused = channel.failure if self._link.usable else None
            channel.fail(refused or self._no_connection)

    async def _mend(self) -> None:
        """One attempt to bring all that is lost, and all who wait, onto a usable link."""
        if not self._link.usable:
            link = await self._next_link()
            if link is None:
                return
            self._link = link
            self._reason = ""
        self._send_again()
        self._wake()
        self._notes.connected()

    async def _next_link(self) -> ServerConnection | None:
        """Dial and greet; None if it came to nothing this time."""
        assert self._redial is not None  # there is no watcher without
        link: ServerConnection | None = None
        greeted = False
        timeout = trio.current_time() + self._timeout
        try:
            with trio.move_on_at(min(timeout, self._first_deadline())):
                await self._link.over.wait()
                self._link.stop()
                link = self._begin(await self._redial())
                await link.greet(self._token, self._timeout)
                greeted = not self._closing
        except (ConnectError, RequestError) as error:
            self._reason = str(error)
            if link is not None and link.failure is not None and not link.lost:
                self._refuse(link.failure)
        except (OSError, trio.BrokenResourceError) as error:
            self._reason = f"cannot connect to {self.name}: {error}"
        finally:
            if link is not None and not greeted:
                link.stop()
        if greeted:
            return link
        if self._link.over.is_set() and (self._lost or self._waiters):
            self._reason = self._reason or f"{self.name} does not answer"
            self._notes.retrying(self._reason)
        return None

    def _begin(self, transport: trio.abc.Stream) -> ServerConnection:
        link = ServerConnection(transport, self.name, self._keepalive)
        self._nursery.start_soon(link.run)
        return link

    def _send_again(self) -> None:
        """Send what the lost channels need to go on, as far as there is room."""
        other = partial(ConnectError, f"{self.name} is another server now, which cannot resume")
        for channel in tuple(self._lost):
            if not self._again:
                channel.fail(other)
                continue
            if not self._link.usable:  # it said goodbye with its greeting
                return
            try:
                require(self.features, channel.request, self.name)
                if self._link.open_nowait(channel):
                    self._lost.remove(channel)
            except RequestError as error:
                channel.fail(partial(request_error, error.code, error.message, retry=error.retry))

    def _refuse(self, failure: Callable[[], LlcudaError]) -> None:
        """End all that is lost, and all waiting."""
        for channel in tuple(self._lost):
            channel.fail(failure)
        self._wake(failure)

    def _wake(self, failure: Callable[[], LlcudaError] | None = None) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.wake(failure)
