"""Opening the byte stream to a server, plain or TLS, with one clear line for each way to fail.

That includes the peer that answers but is no llcuda-server: its first bytes name what it is.

Servers that share a database are tried in turn, until one can be reached: each goes on with what
another one has begun. The one behind that which was reached last comes first: that one is gone, or
about to go.
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Sequence
from pathlib import Path

import trio

from llcuda_net.errors import ConfigError, ConnectError
from llcuda_net.util.address import Address, parse_addresses

#: How other servers begin, and what they are.
_OTHER_SERVERS = {
    b"HTTP/": "an HTTP server",
    b"<": "an HTTP server",
    b"SSH-": "an SSH server",
    b"220": "a mail or FTP server",
}
#: Seconds that one server of several is given at least.
_LEAST = 1.0


def addresses_of(server: str | Address | Sequence[str | Address]) -> tuple[Address, ...]:
    """The addresses that a caller names: one, several with commas between, or a list of such.

    Raises:
        ConfigError: one of them is no address, or there is none.
    """
    if isinstance(server, Address):
        return (server,)
    if isinstance(server, str):
        return parse_addresses(server)
    found: dict[Address, None] = {}
    for one in server:
        found.update(dict.fromkeys(addresses_of(one)))
    if not found:
        raise ConfigError("the list of servers is empty")
    return tuple(found)


def tls_context(tls: bool | ssl.SSLContext, authority: str | Path | None) -> ssl.SSLContext | None:
    """What to verify the server with; None for a plain connection.

    Args:
        tls: whether to use TLS, or the context to use as it is.
        authority: a PEM file with the certificates to trust in place of the system's; implies TLS.

    Raises:
        ConfigError: the file cannot be read or holds no certificate.
    """
    if isinstance(tls, ssl.SSLContext):
        return tls
    if authority is None:
        return ssl.create_default_context() if tls else None
    try:
        return ssl.create_default_context(cafile=str(authority))
    except ssl.SSLError:
        raise ConfigError(f"{authority} holds no certificate in PEM format") from None
    except OSError as error:
        raise ConfigError(f"cannot read {authority}: {error.strerror or error}") from None


async def dial(address: Address, context: ssl.SSLContext | None) -> trio.abc.Stream:
    """A stream to the address, its TLS handshake done where a context is given.

    Raises:
        ConnectError: nobody listens there, the name is not known, or TLS fails.
    """
    try:
        plain = await trio.open_tcp_stream(address.host, address.port)
    except (OSError, UnicodeError) as error:
        raise ConnectError(_unreachable(address, error)) from None
    if context is None:
        return plain
    # https_compatible: a frame cut off is noticed by the protocol, so close_notify adds nothing.
    stream = trio.SSLStream(plain, context, server_hostname=address.host, https_compatible=True)
    try:
        await stream.do_handshake()
    except (trio.BrokenResourceError, OSError) as error:
        await trio.aclose_forcefully(plain)
        raise ConnectError(_no_tls(address, error.__cause__ or error)) from None
    except BaseException:
        await trio.aclose_forcefully(plain)
        raise
    return stream


class Servers:
    """Dials one of several servers.

    Args:
        addresses: of each, the preferred one first.
        context: what to verify them with; None for plain connections.
        timeout: seconds for all of them together.
    """

    def __init__(
        self, addresses: Sequence[Address], context: ssl.SSLContext | None, timeout: float
    ) -> None:
        self._addresses = tuple(addresses)
        self._context = context
        self._share = max(_LEAST, timeout / len(self._addresses))
        self._next = 0
        self._reached = self._addresses[0]

    def __len__(self) -> int:
        return len(self._addresses)

    def __str__(self) -> str:
        return ", ".join(map(str, self._addresses))

    def __repr__(self) -> str:
        return f"<Servers {self}; {self._reached} was reached last>"

    @property
    def name(self) -> str:
        """HOST:PORT of the one that was reached last; before that, of the first one."""
        return str(self._reached)

    async def dial(self) -> trio.abc.Stream:
        """A stream to the next one that can be reached.

        Raises:
            ConnectError: none can; the message says why, of each.
        """
        if len(self) == 1:
            return await dial(self._reached, self._context)
        failures = []
        for _ in range(len(self)):
            address = self._addresses[self._next]
            self._next = (self._next + 1) % len(self)
            try:
                with trio.fail_after(self._share):
                    stream = await dial(address, self._context)
            except trio.TooSlowError:
                failures.append(f"{address} does not answer")
            except ConnectError as error:
                failures.append(str(error).partition("; ")[0])
            else:
                self._reached = address
                return stream
        raise ConnectError(f"no server can be reached: {'; '.join(failures)}")


def explain_greeting(name: str, first: bytes, otherwise: str) -> str:
    """One line about a peer that did not greet as an llcuda-server does.

    Args:
        name: what messages call the server.
        first: the first bytes that it sent.
        otherwise: the line for bytes that are not recognised.
    """
    if first.startswith((b"\x15\x03", b"\x16\x03")):
        return f"{name} wants TLS: add --tls (in Python, tls=True)"
    for start, kind in _OTHER_SERVERS.items():
        if first.startswith(start):
            return f"{name} is {kind}, not an llcuda-server: check the address"
    return otherwise


def _unreachable(address: Address, error: Exception) -> str:
    if isinstance(error, socket.gaierror | UnicodeError):
        return f"cannot find the host {address.host!r}: check the name"
    # trio tries every address of a name, and groups their errors when there are several.
    cause: BaseException = error.__cause__ or error
    while isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    number = getattr(cause, "errno", None)
    reason = (os.strerror(number) if number else str(cause)).lower()
    return f"cannot connect to {address}: {reason}; is llcuda-server running there?"


def _no_tls(address: Address, error: BaseException) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"the certificate of {address} is not trusted: {error.verify_message.rstrip('.')}; "
            "name the authority that signed it with --tls-ca FILE (in Python, tls_ca=FILE)"
        )
    reason = getattr(error, "reason", None) or ""  # none where the connection was just closed
    if "ALERT" in reason:
        alert = reason.lower().replace("_", " ")
        return f"the TLS handshake with {address} failed: {alert}"
    return f"{address} does not speak TLS: leave --tls out (in Python, tls=False)"
