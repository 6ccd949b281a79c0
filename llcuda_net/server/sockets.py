"""The sockets of a server: listeners, TLS, and how many descriptors it may have.

A service manager may have opened some already (systemd's socket activation, sd_listen_fds(3)): then
clients find an open port while the server starts, and while it starts anew.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import socket
import ssl
from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import trio

from llcuda_net.config.settings import Settings
from llcuda_net.errors import ConfigError, ListenError
from llcuda_net.util.address import Address, is_loopback
from llcuda_net.util.text_files import read_text

T_resource = TypeVar("T_resource", bound=trio.abc.AsyncResource)

_DESCRIPTORS = 65_536
#: Connections that wait to be accepted, as many as the system allows.
_BACKLOG = 65_535
#: Descriptors that clients do not get: for health checks and scrapes, upstreams, and files. Of a
#: small limit it is half.
RESERVED = 128
#: The first descriptor that a service manager passes, and how it names one for --metrics-port.
_FIRST, MONITORING = 3, "metrics"


def raise_descriptor_limit() -> None:
    """Take as many descriptors as we may: the soft limit is often fewer than our connections."""
    with contextlib.suppress(OSError, ValueError):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        # No more than can be of use: a hard limit may be a thousand million.
        wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS)
        if soft != resource.RLIM_INFINITY and soft < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class SparingListener(trio.abc.Listener[T_resource]):
    """Accepts clients while descriptors are left for others.

    With none left, the monitoring port could not accept either, and a health check that fails
    restarts the server.

    Args:
        listener: accepts them.
        make_room: called when few are left, to end connections that nobody needs.
    """

    def __init__(
        self, listener: trio.abc.Listener[T_resource], make_room: Callable[[], None]
    ) -> None:
        self._listener = listener
        self._make_room = make_room

    def __repr__(self) -> str:
        return f"<SparingListener {self._listener!r}>"

    async def accept(self) -> T_resource:
        """The next client.

        Raises:
            OSError: EMFILE, as the system says it a little later: no more for now.
        """
        lowest = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)  # a new one is the lowest free
        os.close(lowest)
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if limit != resource.RLIM_INFINITY and lowest >= limit - min(RESERVED, limit // 2):
            self._make_room()
            raise OSError(errno.EMFILE, "no descriptors are left for clients")
        return await self._listener.accept()

    async def aclose(self) -> None:
        """Close it."""
        await self._listener.aclose()


@dataclass(frozen=True, slots=True)
class PassedSockets:
    """Sockets that a service manager opened for us, and listens on.

    Attributes:
        serving: for clients.
        monitoring: in place of --metrics-port; those that are named "metrics".
    """

    serving: tuple[socket.socket, ...] = ()
    monitoring: tuple[socket.socket, ...] = ()

    @classmethod
    def take(
        cls, environment: MutableMapping[str, str] = os.environ, first: int = _FIRST
    ) -> PassedSockets:
        """By the variables of the environment, which are removed from it: they are for us alone.

        Args:
            first: the lowest descriptor; another one in tests.

        Raises:
            ConfigError: one of them is no TCP socket that listens.
        """
        pid = environment.pop("LISTEN_PID", "")
        count = environment.pop("LISTEN_FDS", "")
        names = environment.pop("LISTEN_FDNAMES", "").split(":")
        if pid != str(os.getpid()) or not count.isdecimal():
            return cls()
        found: dict[bool, list[socket.socket]] = {False: [], True: []}
        for number in range(int(count)):
            name = names[number] if number < len(names) else ""
            found[name == MONITORING].append(_passed(first + number, name))
        return cls(tuple(found[False]), tuple(found[True]))

    def settings(self, given: Settings) -> Settings:
        """The settings, with the addresses at which these listen in place of those given.

        Where one of several is beyond loopback, that one: it decides who may come in.
        """
        out = given
        if self.serving:
            address = _widest(self.serving)
            out = replace(out, host=address.host, port=address.port)
        if self.monitoring:
            address = _widest(self.monitoring)
            out = replace(out, metrics_host=address.host, metrics_port=address.port)
        return out


def _passed(descriptor: int, name: str) -> socket.socket:
    what = f"descriptor {descriptor}{f' ({name})' if name else ''} of the service manager"
    try:
        os.set_inheritable(descriptor, False)
        out = socket.socket(fileno=descriptor)
    except OSError as error:
        raise ConfigError(f"{what} is no socket: {error.strerror}") from None
    listens = out.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    if out.family not in (socket.AF_INET, socket.AF_INET6) or not listens:
        out.detach()
        raise ConfigError(
            f"{what} is no TCP socket that listens: write ListenStream=ADDRESS:PORT and Accept=no "
            "in the .socket unit"
        )
    return out


def _widest(sockets: Sequence[socket.socket]) -> Address:
    addresses = [Address(*one.getsockname()[:2]) for one in sockets]
    return next((one for one in addresses if not is_loopback(one.host)), addresses[0])


def listeners_of(sockets: Sequence[socket.socket]) -> Sequence[trio.SocketListener]:
    """Listeners on sockets that listen already."""
    return [trio.SocketListener(trio.socket.from_stdlib_socket(one)) for one in sockets]


def tls_context(settings: Settings) -> ssl.SSLContext | None:
    """What --tls-cert and --tls-key give; None without them.

    Raises:
        ConfigError: they cannot be read, or are no certificate and key.
    """
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    read_text(settings.tls_cert, "certificate")
    read_text(settings.tls_key, "private key")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        # A password of nothing: without one, OpenSSL would ask for it on the terminal.
        context.load_cert_chain(settings.tls_cert, settings.tls_key, password="")
    except ssl.SSLError as error:
        reason = error.reason or "not PEM"
        raise ConfigError(
            f"{settings.tls_cert} and {settings.tls_key} are no certificate and key: {reason}"
        ) from None
    return context


async def open_listeners(
    host: str, port: int, kind: str = "", *, shared: bool = False
) -> Sequence[trio.SocketListener]:
    """Listeners on an address that --{kind}host and --{kind}port gave.

    Args:
        shared: other processes listen there, too; the port must not be 0.

    Raises:
        ListenError: the address cannot be had.
    """
    try:
        if shared:
            return await _open_shared(host, port)
        return await trio.open_tcp_listeners(port, host=host)
    except (OSError, UnicodeError) as error:  # the latter for a name that no DNS could hold
        reason = getattr(error, "strerror", None) or str(error)
        raise ListenError(
            f"cannot listen on {Address(host, port)}: {reason}; "
            f"choose another --{kind}port or --{kind}host"
        ) from None


async def _open_shared(host: str, port: int) -> Sequence[trio.SocketListener]:
    found = await trio.socket.getaddrinfo(
        host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    out = []
    for family, _, _, _, address in found:
        sock = trio.socket.socket(family, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # whatever still closes
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        await sock.bind(address)
        sock.listen(_BACKLOG)
        out.append(trio.SocketListener(sock))
    return out


def address_of(listener: trio.SocketListener | trio.SSLListener[trio.SocketStream]) -> str:
    """Where it listens, as HOST:PORT."""
    inner = listener.transport_listener if isinstance(listener, trio.SSLListener) else listener
    assert isinstance(inner, trio.SocketListener)
    name = inner.socket.getsockname()
    return str(Address(name[0], name[1]))
