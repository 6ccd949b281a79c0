"""The options that name the server, and the connection that they describe."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from llcuda_net.cli.common import fail, read_token

if TYPE_CHECKING:
    from llcuda_net import sync


#: HOST:PORT where neither an option nor the environment names a server.
DEFAULT_SERVER = "127.0.0.1:9000"


def add(parser: argparse.ArgumentParser) -> None:
    """HOST:PORT, or --server; TLS and the token."""
    parser.add_argument(
        "address", nargs="?", metavar="HOST:PORT", help=f"default: {DEFAULT_SERVER}"
    )
    where = parser.add_argument_group("where to connect")
    where.add_argument("--server", metavar="HOST:PORT", help="the same, as an option")
    where.add_argument("--tls", action="store_true", help="connect with TLS")
    where.add_argument("--tls-ca", metavar="FILE", help="trust this PEM file (implies --tls)")
    where.add_argument("--token-file", metavar="FILE", help="a file that holds the token")


class Dialler:
    """Opens connections to the server that the options name.

    Attributes:
        server: its HOST:PORT, as it was given.

    Raises:
        CommandError: the options contradict each other, or the token file cannot be read.
    """

    def __init__(self, arguments: argparse.Namespace) -> None:
        if arguments.address is not None and arguments.server is not None:
            fail("give HOST:PORT or --server, not both")
        given: str | None = arguments.address or arguments.server
        self.server = given or os.environ.get("LLCUDA_SERVER") or DEFAULT_SERVER
        self._tls: bool = arguments.tls
        self._tls_ca: str | None = arguments.tls_ca
        self._token = read_token(arguments.token_file)

    def __call__(self) -> sync.Client:
        """A connection that does not reconnect when it is lost.

        Raises:
            ConfigError: the address or the PEM file is wrong.
            ConnectError: no llcuda-server could be reached there.
            RequestError: the server refused the connection.
        """
        from llcuda_net import sync

        return sync.connect(
            self.server, tls=self._tls, tls_ca=self._tls_ca, token=self._token, reconnect=0
        )
