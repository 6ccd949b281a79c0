"""The ports of several processes: one that they share, and one of each alone.

Linux gives each new connection to one of the sockets that listen on a port with SO_REUSEPORT. Any
process of the same user may add one, also by mistake. So the port is first had for itself alone,
which fails where anybody listens; and then it is held, bound and not listening, so that a process
that is not one of ours, and does not share, finds it taken while ours are started again.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence

from llcuda_net.errors import ListenError
from llcuda_net.util.address import Address

#: Attempts at a free port on all addresses of a name.
_ATTEMPTS = 20


def hold(host: str, port: int) -> tuple[list[socket.socket], int]:
    """Hold a port, which sockets with SO_REUSEPORT may then share; 0: a free one.

    Returns:
        Sockets that are bound to it, one for each address of the host, and the port.

    Raises:
        ListenError: the address cannot be had.
    """
    addresses = _addresses(host, port)
    for attempt in range(_ATTEMPTS):
        held: list[socket.socket] = []
        try:
            found = port
            for family, address in addresses:
                with _bound(family, (address[0], found, *address[2:]), shared=False) as alone:
                    alone.listen(1)
                    found = alone.getsockname()[1]
                held.append(_bound(family, (address[0], found, *address[2:]), shared=True))
            return held, found
        except OSError as error:
            for one in held:
                one.close()
            if port or attempt == _ATTEMPTS - 1:
                raise _refused(host, port, error) from None
    raise AssertionError("the last attempt returns or raises")


def _addresses(host: str, port: int) -> Sequence[tuple[socket.AddressFamily, tuple[object, ...]]]:
    try:
        found = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (OSError, UnicodeError) as error:
        raise _refused(host, port, error) from None
    return [(family, address) for family, _, _, _, address in found]


def _bound(
    family: socket.AddressFamily, address: tuple[object, ...], *, shared: bool
) -> socket.socket:
    out = socket.socket(family, socket.SOCK_STREAM)
    try:
        out.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            out.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            out.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        out.bind(address)
    except BaseException:
        out.close()
        raise
    return out


def _refused(host: str, port: int, error: Exception) -> ListenError:
    reason = getattr(error, "strerror", None) or str(error)
    return ListenError(
        f"cannot listen on {Address(host, port)}: {reason}; choose another --port or --host"
    )
