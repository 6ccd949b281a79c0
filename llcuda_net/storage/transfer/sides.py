"""The two kinds of databases of objects, for one thread that copies."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import apsw

from llcuda_net.errors import StorageError
from llcuda_net.storage.objects.database import NAME, SqliteDatabase
from llcuda_net.storage.objects.interface import Database
from llcuda_net.storage.objects.migrations import OBJECTS
from llcuda_net.storage.postgres.opening import needs_psycopg
from llcuda_net.storage.results import migrations
from llcuda_net.storage.results.connection import connect, errors, transaction
from llcuda_net.storage.transfer.objects import Side

_T = TypeVar("_T")
_WHAT = "what clients keep cannot be copied"


class _Sqlite:
    def __init__(self, connection: apsw.Connection) -> None:
        self._db = SqliteDatabase(connection)

    def rows(self, sql: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        with errors(_WHAT):
            return self._db.rows(sql, values)

    def change(self, change: Callable[[Database], _T]) -> _T:
        with errors(_WHAT), transaction(self._db.connection):
            return change(self._db)


@contextmanager
def sqlite_side(directory: Path, *, write: bool) -> Iterator[Side | None]:
    """objects.db of a data directory; None: there is none, and it is only to be read.

    Raises:
        StorageError: it cannot be opened.
    """
    path = directory / NAME
    if not write and not path.exists():
        yield None
        return
    with errors(f"cannot open {path}"):
        connection = connect(path, create=write, write=write)
    with closing(connection):
        with errors(f"cannot open {path}"):
            if write:
                migrations.migrate(connection, OBJECTS)
            elif migrations.check(connection, OBJECTS) < OBJECTS[-1].number:
                raise StorageError(
                    f"{path} is of an earlier version: start llcuda-server once, which updates it",
                    StorageError.REFUSED,
                )
        yield _Sqlite(connection)


@contextmanager
def postgres_side(url: str) -> Iterator[Side]:
    """The objects of a database, whose schema is there.

    Raises:
        MissingExtra: psycopg is not installed.
        StorageError: the URL is none.
    """
    with needs_psycopg():
        from llcuda_net.storage.objects.postgres import PostgresDatabase
        from llcuda_net.storage.postgres.connection import Connection, Session

    class Postgres:
        def rows(self, sql: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
            return session.ask(_WHAT, lambda db: PostgresDatabase(db, None).rows(sql, values))

        def change(self, change: Callable[[Database], _T]) -> _T:
            def patiently(db: Connection) -> _T:
                # Meanwhile a large file is read, and compared, where it comes from.
                db.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
                return change(PostgresDatabase(db, None))

            return session.change(_WHAT, patiently)

    session = Session(url, write=True)
    with closing(session):
        yield Postgres()
