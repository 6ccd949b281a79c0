"""Connections to the other servers of the cluster: one per server and user, while they are used."""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Callable
from typing import NamedTuple

import structlog
import trio

from llcuda_net.client.connection import ServerConnection
from llcuda_net.client.dial import dial
from llcuda_net.cluster.greeting import Greeting
from llcuda_net.errors import ConfigError, ConnectError, RequestError
from llcuda_net.util.address import is_loopback, parse_address

log = structlog.get_logger(__name__)

#: Seconds for a connection and its greeting, of silence after which it is looked after, and for
#: which one that nobody uses is kept.
_TIMEOUT, _KEEPALIVE, KEPT = 3.0, 3.0, 10.0
#: Seconds between two lines of the log about one server that cannot be reached: at first, and most.
SAID_AGAIN, SAID_SELDOM = 10.0, 300.0
_MOST_UNREACHED = 64


class Place(NamedTuple):
    """A server of the cluster: the number of its life, and HOST:PORT."""

    number: int
    address: str


class _Attempt:
    """One at a connection, for all who want it meanwhile."""

    def __init__(self) -> None:
        self.over = trio.Event()
        self.connection: ServerConnection | None = None
        self.failure = "the server stops"


class Connections:
    """Opens connections to other servers, and closes those that nobody uses.

    Args:
        me: the number of this server's life now.
        secret: of the cluster.
        tls: whether the servers of the cluster use TLS.
        nursery: in which they run.
    """

    def __init__(
        self,
        me: Callable[[], int],
        secret: bytes,
        nursery: trio.Nursery,
        *,
        tls: bool,
    ) -> None:
        self._me = me
        self._secret = secret
        self._nursery = nursery
        self._context = _unverified() if tls else None
        self._open: dict[tuple[int, str | None], ServerConnection] = {}
        self._attempts: dict[tuple[int, str | None], _Attempt] = {}
        self._unreached: dict[int, _Unreached] = {}

    def __repr__(self) -> str:
        return f"<Connections {len(self._open)} open>"

    async def get(self, place: Place, user: str | None) -> ServerConnection:
        """A connection that takes requests.

        Args:
            user: for whom; None: for all, as an admin.

        Raises:
            ConnectError: the server cannot be reached, or is another one.
        """
        key = place.number, user
        found = self._open.get(key)
        if found is not None and found.usable:
            return found
        attempt = self._attempts.get(key)
        if attempt is None:
            attempt = self._attempts[key] = _Attempt()
            self._nursery.start_soon(self._attempt, key, place, attempt)
        # Who waits has the outcome of this one, also if it is that nobody answers: a machine that
        # drops what is sent to it takes some seconds of each attempt, and many may wait.
        await attempt.over.wait()
        if attempt.connection is None:
            raise ConnectError(attempt.failure)
        return attempt.connection

    def close(self) -> None:
        """Close all of them: this server is another one, or stops."""
        for connection in self._open.values():
            connection.stop()
        self._open.clear()

    async def _attempt(self, key: tuple[int, str | None], place: Place, attempt: _Attempt) -> None:
        try:
            attempt.connection = self._open[key] = await self._connect(place, key[1])
            self._nursery.start_soon(self._keep, key, attempt.connection)
        except ConnectError as error:
            attempt.failure = str(error)
        finally:
            del self._attempts[key]
            attempt.over.set()

    async def _keep(self, key: tuple[int, str | None], connection: ServerConnection) -> None:
        """Until it has failed, or nobody has used it for a while."""
        used = trio.current_time()
        while connection.failure is None:
            with trio.move_on_after(KEPT / 4):
                await connection.over.wait()
            if not connection.idle:
                used = trio.current_time()
            elif connection.over.is_set() or trio.current_time() - used >= KEPT:
                break
        connection.stop()
        if self._open.get(key) is connection:
            del self._open[key]

    async def _connect(self, place: Place, user: str | None) -> ServerConnection:
        connection: ServerConnection | None = None
        greeted = False
        try:
            with trio.fail_after(_TIMEOUT):
                transport, certificate = await self._dial(place.address)
                greeting = Greeting.new(self._me(), place.number, user, certificate)
                connection = ServerConnection(transport, place.address, _KEEPALIVE)
                self._nursery.start_soon(connection.run)
                await connection.greet(greeting.token(self._secret), _TIMEOUT, greeting.peer)
            welcome = connection.welcome
            greeted = welcome is not None and greeting.is_answered(self._secret, welcome.peer)
            if not greeted:
                raise ConnectError(f"{place.address} is no server of this cluster")
        except (ConfigError, ConnectError, RequestError, trio.TooSlowError) as error:
            reason = str(error) or "no answer"
            if place.number not in self._unreached:
                for number in [*self._unreached][: 1 - _MOST_UNREACHED]:
                    del self._unreached[number]
                self._unreached[place.number] = _Unreached()
            self._unreached[place.number].say(place, reason)
            raise ConnectError(
                f"the server of the cluster at {place.address} cannot be reached: {reason}"
            ) from None
        finally:
            if connection is not None and not greeted:
                connection.stop()
        if (before := self._unreached.pop(place.number, None)) is not None:
            before.over(place)
        return connection

    async def _dial(self, text: str) -> tuple[trio.abc.Stream, bytes]:
        """A stream, and the hash of the certificate that was shown."""
        address = parse_address(text)
        if self._context is not None:
            try:
                stream = await dial(address, self._context)
            except ConnectError:
                # Servers of one machine talk to each other without TLS.
                if not is_loopback(address.host):
                    raise
            else:
                assert isinstance(stream, trio.SSLStream)
                shown = stream.getpeercert(binary_form=True)
                return stream, hashlib.sha256(shown or b"").digest()
        return await dial(address, None), b""


class _Unreached:
    """Says that a server cannot be reached: at once, and then now and then."""

    def __init__(self) -> None:
        self._since = trio.current_time()
        self._due = self._since
        self._pause = SAID_AGAIN
        self._attempts = 0

    def say(self, place: Place, reason: str) -> None:
        """One more attempt has failed."""
        self._attempts += 1
        now = trio.current_time()
        write = log.debug
        if now >= self._due:
            write = log.info
            self._due, self._pause = now + self._pause, min(2 * self._pause, SAID_SELDOM)
        write("peer_not_reached", **place._asdict(), reason=reason, attempts=self._attempts)

    def over(self, place: Place) -> None:
        """It is reached again."""
        seconds = round(trio.current_time() - self._since, 3)
        log.info("peer_reached_again", **place._asdict(), seconds=seconds)


def _unverified() -> ssl.SSLContext:
    """For servers that prove in another way which they are: by what they say of the certificate."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
