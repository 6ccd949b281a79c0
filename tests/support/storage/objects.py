"""Objects for tests: empty databases of both kinds, and stores of objects in them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager

import apsw
import psycopg

from llcuda_net.cluster import leases
from llcuda_net.storage.objects.database import SqliteDatabase
from llcuda_net.storage.objects.interface import Database
from llcuda_net.storage.objects.migrations import OBJECTS
from llcuda_net.storage.objects.postgres import PostgresDatabase
from llcuda_net.storage.postgres.connection import SCHEMA, Connection, Session
from llcuda_net.storage.postgres.migrations import migrate as migrate_postgres
from llcuda_net.storage.results.migrations import migrate

#: Gives an empty database, again and again; one at a time.
Emptied = Callable[[], AbstractContextManager[Database]]
_TABLES = (
    "files, chunks, batches, lines, outcomes, conversations, entries, hidden, sessions, changes"
)


def in_memory() -> SqliteDatabase:
    """An empty database of SQLite; close its connection."""
    db = apsw.Connection(":memory:")
    migrate(db, OBJECTS)
    return SqliteDatabase(db)


@contextmanager
def emptied_sqlite() -> Iterator[Database]:
    """As Emptied."""
    db = in_memory()
    with closing(db.connection):
        yield db


def made(url: str) -> None:
    """Make the schema in a new database of PostgreSQL."""
    session = Session(url, write=True)
    migrate_postgres(session)
    session.close()


def connected(url: str) -> Connection:
    """A connection whose statements are transactions of their own."""
    connection: Connection = psycopg.connect(url, autocommit=True)
    connection.execute(f"SET search_path = {SCHEMA}")
    return connection


@contextmanager
def emptied_postgres(url: str) -> Iterator[Database]:
    """As Emptied, of a server that is a member."""
    with connected(url) as connection:
        connection.execute(f"TRUNCATE {_TABLES} RESTART IDENTITY")
        yield PostgresDatabase(connection, leases.join(connection, "test", ""))
