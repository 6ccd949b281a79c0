"""Makes the cluster's object where psycopg is installed: it is in the extra `cluster`.

A server without a cluster imports this module, and nothing else of `server/cluster` or `cluster`.
"""

from __future__ import annotations

import socket
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from llcuda_net.config.settings import Settings
from llcuda_net.storage.postgres.opening import needs_psycopg
from llcuda_net.util.address import Address, parse_address
from llcuda_net.util.text_files import read_text

if TYPE_CHECKING:
    from llcuda_net.cluster.mirror import Mirror
    from llcuda_net.server.cluster.cluster import Cluster

#: Hosts to listen on that are none to reach.
_ANY = ("0.0.0.0", "::", "")


def open_mirror(url: str) -> Mirror:
    """What copies the journal to a database; it begins when the cluster is joined.

    Raises:
        MissingExtra: psycopg is not installed.
        StorageError: the URL is none.
    """
    with needs_psycopg():
        from llcuda_net.cluster.mirror import Mirror
    return Mirror(url)


async def open_cluster(settings: Settings, bound: str, folder: Path, mirror: Mirror) -> Cluster:
    """The servers on the database that the settings name, this one not among them yet.

    Where the settings name this server, too, no other one that lives may have that name.

    Args:
        bound: HOST:PORT where this server listens.
        folder: its data directory.
        mirror: copies the journal there.

    Raises:
        MissingExtra: psycopg is not installed.
        StorageError: the URL is none, or its name is taken.
    """
    with needs_psycopg():
        from llcuda_net.cluster.greeting import certificate_hash
        from llcuda_net.server.cluster.cluster import Cluster
    host = socket.gethostname() or "server"
    address = settings.advertise
    if address is None:
        where = parse_address(bound)
        address = str(Address(host, where.port) if where.host in _ANY else where)
    certificate = b""
    if settings.tls_cert is not None:
        certificate = certificate_hash(read_text(settings.tls_cert, "certificate"))
    name = settings.name or host
    cluster = Cluster(settings.store, name, address, folder, mirror, certificate)
    if settings.name is not None:
        await trio.to_thread.run_sync(cluster.membership.check_name)
    return cluster
