"""HOST:PORT, as people write it and as it is printed back."""

from __future__ import annotations

import ipaddress
from typing import NamedTuple

from llcuda_net.errors import ConfigError

DEFAULT_PORT = 9000
_WANTED = "write HOST:PORT, for example 127.0.0.1:9000 or [::1]:9000"


class Address(NamedTuple):
    """A host (a name or an IP address, IPv6 without brackets) and a TCP port."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def parse_address(text: str, *, default_port: int = DEFAULT_PORT, lowest_port: int = 1) -> Address:
    """Read an address.

    Args:
        text: `HOST:PORT`, or `HOST` for the default port; an IPv6 address stands in brackets.
        default_port: the port of a text that names none.
        lowest_port: 1 for an address to connect to; 0 for one to listen on, where 0 picks a port.

    Raises:
        ConfigError: the text is no address; the message says how to write one.
    """
    stripped = text.strip()
    if not stripped:
        raise ConfigError(f"the address is empty: {_WANTED}")
    if "://" in stripped or "/" in stripped:
        raise ConfigError(f"{text!r} is a URL or a path, not an address: {_WANTED}")
    if stripped.startswith("["):
        host, bracket, rest = stripped[1:].partition("]")
        if not bracket or ":" not in host or (rest and not rest.startswith(":")):
            raise ConfigError(f"{text!r} is not an address: {_WANTED}")
        port = rest[1:] if rest else None
    elif stripped.count(":") > 1:
        raise ConfigError(f"{text!r} looks like IPv6, which needs brackets: {_WANTED}")
    else:
        host, colon, rest = stripped.partition(":")
        port = rest if colon else None
    if not host or any(c.isspace() or not c.isprintable() for c in host):
        raise ConfigError(f"{text!r} has no host: {_WANTED}")
    return Address(host, default_port if port is None else _port(port, text, lowest_port))


def parse_addresses(text: str) -> tuple[Address, ...]:
    """Read a list of addresses to connect to, with commas between: each of them once.

    Raises:
        ConfigError: one of them is no address.
    """
    return tuple(dict.fromkeys(parse_address(part) for part in text.split(",")))


def _port(text: str, whole: str, lowest: int) -> int:
    # Not int() alone: it takes "+1", "1_0" and digits of other scripts.
    if text.isascii() and text.isdigit() and len(text) <= 5 and lowest <= int(text) <= 65_535:
        return int(text)
    raise ConfigError(f"{whole!r} has no port from {lowest} to 65535: {_WANTED}")


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
