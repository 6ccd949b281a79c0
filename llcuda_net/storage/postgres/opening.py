"""Opens a store in PostgreSQL where psycopg is installed: it is in the extra `cluster`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from llcuda_net.errors import MissingExtra
from llcuda_net.storage.results.interface import Store

#: How a connection URL begins; --store with another value is no PostgreSQL.
SCHEMES = ("postgresql://", "postgres://")


def open_postgres(url: str, write: bool) -> Store:
    """The store of a database.

    Args:
        write: as of PostgresStore.

    Raises:
        StorageError: as of PostgresStore.
        MissingExtra: psycopg is not installed.
    """
    with needs_psycopg():
        from llcuda_net.storage.postgres.store import PostgresStore
    return PostgresStore(url, write=write)


@contextlib.contextmanager
def needs_psycopg() -> Iterator[None]:
    """Around imports of what imports psycopg.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        yield
    except ImportError as error:  # of psycopg, or of the libpq that it needs
        raise MissingExtra(
            f"--store postgresql://… needs psycopg ({error}): pip install 'llcuda-net[cluster]'"
        ) from error
