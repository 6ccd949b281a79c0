"""The options that name the servers, and the connection that they describe."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from llcuda_net.cli.common import fail, read_token

if TYPE_CHECKING:
    import httpx

    from llcuda_net import sync


#: HOST:PORT where neither an option nor the environment names a server.
DEFAULT_SERVER = "127.0.0.1:9000"


#: What --server takes, as its help writes it.
SERVERS = "HOST:PORT[,…]"


def add(parser: argparse.ArgumentParser) -> None:
    """HOST:PORT, or --server; TLS and the token."""
    parser.add_argument(
        "address",
        nargs="?",
        metavar=SERVERS,
        help=f"one server, or several that share a database (default: {DEFAULT_SERVER})",
    )
    add_group(parser, "the same, as an option")


def add_group(parser: argparse.ArgumentParser, help_: str = f"default: {DEFAULT_SERVER}") -> None:
    """--server, TLS and the token, for a command whose arguments are something else."""
    where = parser.add_argument_group("where to connect")
    where.add_argument("--server", metavar=SERVERS, help=help_)
    where.add_argument("--tls", action="store_true", help="connect with TLS")
    where.add_argument("--tls-ca", metavar="FILE", help="trust this PEM file (implies --tls)")
    where.add_argument("--token-file", metavar="FILE", help="a file that holds the token")


class Dialler:
    """Opens connections to the server that the options name.

    Attributes:
        server: its HOST:PORT, as it was given; of several, all until one was reached.

    Raises:
        CommandError: the options contradict each other, or the token file cannot be read.
    """

    def __init__(self, arguments: argparse.Namespace) -> None:
        address: str | None = getattr(arguments, "address", None)
        if address is not None and arguments.server is not None:
            fail("give HOST:PORT or --server, not both")
        given: str | None = address or arguments.server
        self._servers = given or os.environ.get("LLCUDA_SERVER") or DEFAULT_SERVER
        self.server = self._servers
        self._tls: bool = arguments.tls
        self._tls_ca: str | None = arguments.tls_ca
        self._token = read_token(arguments.token_file)

    def http(self) -> httpx.Client:
        """A client of the HTTP on the port of the server that was reached last, or the first one.

        Raises:
            ConfigError: as `__call__`.
        """
        return http_client(self.server, self._tls, self._tls_ca, self._token)

    def __call__(self) -> sync.Client:
        """A connection that does not reconnect when it is lost.

        Raises:
            ConfigError: the address or the PEM file is wrong.
            ConnectError: no llcuda-server could be reached there.
            RequestError: the server refused the connection.
        """
        from llcuda_net import sync

        client = sync.connect(
            self._servers, tls=self._tls, tls_ca=self._tls_ca, token=self._token, reconnect=0
        )
        self.server = client.server
        return client


def http_client(server: str, tls: bool, tls_ca: str | None, token: str | None) -> httpx.Client:
    """A client of the HTTP on the port of a server, or of the first one that is named.

    Raises:
        ConfigError: the address or the PEM file is wrong.
    """
    import httpx

    from llcuda_net.client.dial import tls_context
    from llcuda_net.util.address import parse_addresses

    address, *_ = parse_addresses(server)
    context = tls_context(tls, tls_ca)
    return httpx.Client(
        base_url=f"{'http' if context is None else 'https'}://{address}",
        headers={} if token is None else {"Authorization": f"Bearer {token}"},
        timeout=httpx.Timeout(60.0, connect=10.0),
        verify=context or False,  # it is no TLS at all
        trust_env=False,  # a proxy is for what is far away, as our own protocol has it
    )
