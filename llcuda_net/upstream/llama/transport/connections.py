"""Connections to one server, of which some are open before they are needed.

A short request gives its connection back. A token stream closes its own, since that is what frees
the slot, and has the next one opened in its place. None waits for long: a server closes idle
connections without a word, and llama-server keeps a thread for each.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import math
import os
import socket
import ssl
from collections import deque
from collections.abc import Iterator

import trio

from llcuda_net.config.upstreams import BaseUrl

#: Seconds for a connection to be made.
CONNECT_TIMEOUT = 5.0
#: Seconds for which a connection waits to be used: llama-server closes it after 5.
IDLE = 4.0
#: Seconds for which the address of a name is remembered.
RESOLVED = 30.0
#: Most connections that wait while nothing is known of slots, and in any case.
_UNKNOWN, _MOST = 2, 64

Connection = trio.SocketStream | trio.SSLStream[trio.SocketStream]


class Connections:
    """Opens connections to a server, and keeps some.

    Args:
        url: where it is.
        tls: what the connections are encrypted with; None: they are not.

    Attributes:
        slots: how many requests the server works at, at once; None: that is not known. No more
            connections than that wait and carry token streams together, so that the server has a
            thread for each.
    """

    def __init__(self, url: BaseUrl, tls: ssl.SSLContext | None) -> None:
        self.slots: int | None = None
        self._tls = tls
        self._streams = 0
        self._ended = 0  # token streams in whose place no connection was opened yet
        self._closed = False
        #: Each with the time from which on it is too old; the newest last.
        self._idle: deque[tuple[float, Connection]] = deque()
        self.move(url)

    def __repr__(self) -> str:
        return f"<Connections to {self._url}: {len(self._idle)} idle, {self._streams} streams>"

    def move(self, url: BaseUrl) -> None:
        """The server is at another address now."""
        self.drop()
        self._url = url
        self._address = _literal(url)
        self._known_until = -math.inf if self._address is None else math.inf

    def close(self) -> None:
        """Close all that wait, for good."""
        self._closed = True
        self.drop()

    def drop(self) -> None:
        """Close all that wait: another process may answer from now on."""
        while self._idle:
            _close(self._idle.pop()[1])

    def prune(self) -> None:
        """Close those that have waited for too long."""
        now = trio.current_time()
        while self._idle and self._idle[0][0] <= now:
            _close(self._idle.popleft()[1])

    # -- those that wait ------------------------------------------------------------------------

    async def idle(self) -> Connection | None:
        """One that has waited and, as far as can be seen, is still open; None: there is none.

        Gives other tasks no turn, unless the connection is still being made.
        """
        self.prune()
        while self._idle:
            _, stream = self._idle.pop()
            if _socket(stream).is_readable():  # an end, or what nobody has asked for
                _close(stream)
                continue
            if isinstance(stream, trio.SSLStream):
                return stream
            with contextlib.suppress(OSError), trio.move_on_after(CONNECT_TIMEOUT):
                await _made(stream)
                return stream
        return None

    def keep(self, stream: Connection) -> None:
        """Keep one that has been answered, if there is room for it."""
        self.prune()
        if len(self._idle) < self._room:
            self._idle.append((trio.current_time() + IDLE, stream))
        else:
            _close(stream)

    @property
    def _room(self) -> int:
        if self.slots is None:
            return _UNKNOWN
        return min(max(1, self.slots - self._streams), _MOST)

    @contextlib.contextmanager
    def streaming(self) -> Iterator[None]:
        """Enclose a token stream. When its connection is closed, the next one is opened.

        Not at once: where many are cancelled together, all are closed first.
        """
        self._streams += 1
        try:
            yield
        finally:
            self._streams -= 1
            self._ended += 1
            token = trio.lowlevel.current_trio_token()
            token.run_sync_soon(self._open_ahead, idempotent=True)

    def _open_ahead(self) -> None:
        """Begin to open connections, if there is room; they are looked at when they are needed."""
        ended, self._ended = self._ended, 0
        if self._closed or self._tls is not None or self.slots is None:
            return
        self.prune()
        for _ in range(min(ended, self._room - len(self._idle))):
            try:
                stream = self._begun()
            except OSError:  # no descriptor, or no server: that is seen in time
                return
            if stream is not None:
                self._idle.append((trio.current_time() + IDLE, stream))

    # -- new ones -------------------------------------------------------------------------------

    async def open(self) -> Connection:
        """A new connection.

        Raises:
            OSError, trio.BrokenResourceError: there is none.
        """
        try:
            with trio.fail_after(CONNECT_TIMEOUT):
                stream = await self._plain()
                if self._tls is None:
                    return stream
                tls = trio.SSLStream(
                    stream, self._tls, server_hostname=self._url.host, https_compatible=True
                )
                try:
                    await tls.do_handshake()
                except BaseException:
                    await trio.aclose_forcefully(tls)
                    raise
                return tls
        except trio.TooSlowError:
            raise OSError(f"no connection within {CONNECT_TIMEOUT:g} s") from None

    async def _plain(self) -> trio.SocketStream:
        """A connection to where the last one went, or else to what the name means now."""
        try:
            if (stream := self._begun()) is not None:
                await _made(stream)
                return stream
        except OSError:
            if self._known_until == math.inf:
                raise  # it has no other address
            self._address = None
        url = self._url
        stream = await trio.open_tcp_stream(url.host, url.port)
        if url is self._url:
            self._address = stream.socket.family, stream.socket.getpeername()
            self._known_until = trio.current_time() + RESOLVED
        return stream

    def _begun(self) -> trio.SocketStream | None:
        """One that connects to the known address; None: none is known.

        Raises:
            OSError: it cannot.
        """
        if self._address is None or trio.current_time() > self._known_until:
            return None
        family, address = self._address
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                sock.connect(address)
            return trio.SocketStream(trio.socket.from_stdlib_socket(sock))
        except BaseException:
            sock.close()
            raise


async def _made(stream: trio.SocketStream) -> None:
    """Return when a stream is connected; gives other tasks no turn if it is. Else it is closed.

    Raises:
        OSError: it is not, and will not be.
    """
    sock = stream.socket
    try:
        try:
            sock.getpeername()
        except OSError as error:
            if error.errno != errno.ENOTCONN:
                raise
            await trio.lowlevel.wait_writable(sock)
            if failed := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                raise OSError(failed, os.strerror(failed)) from None
    except BaseException:
        sock.close()
        raise


def _literal(url: BaseUrl) -> tuple[int, tuple[str, int]] | None:
    """Family and address of a URL that names an address; None where it is a name."""
    try:
        version = ipaddress.ip_address(url.host).version
    except ValueError:
        return None
    return (socket.AF_INET if version == 4 else socket.AF_INET6), (url.host, url.port)


def _socket(stream: Connection) -> trio.socket.SocketType:
    return stream.transport_stream.socket if isinstance(stream, trio.SSLStream) else stream.socket


def _close(stream: Connection) -> None:
    """Close a connection at once, without the farewell of TLS."""
    _socket(stream).close()
