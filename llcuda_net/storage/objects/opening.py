"""Makes the store of objects in PostgreSQL where psycopg is installed: the extra `cluster`."""

from __future__ import annotations

from llcuda_net.storage.objects.interface import ObjectStore
from llcuda_net.storage.postgres.opening import needs_psycopg


def open_objects(url: str) -> ObjectStore:
    """The objects of a database, which is not asked yet.

    Raises:
        MissingExtra: psycopg is not installed.
        StorageError: the URL is none.
    """
    with needs_psycopg():
        from llcuda_net.storage.objects.postgres import PostgresObjects
    return PostgresObjects(url)
