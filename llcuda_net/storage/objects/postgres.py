"""Objects in PostgreSQL, which the servers of a cluster share.

Transactions that change something are READ COMMITTED, and lock what interface.py says; those that
read are REPEATABLE READ, so that all they see is of one moment.

A text of PostgreSQL cannot hold the character NUL, and clients may send one: it is written as two
characters of a private area of Unicode, and so is the first of these. No statement asks for the
length or the order of a text.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from contextlib import asynccontextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Any, TypeVar

import structlog
import trio
from psycopg import IsolationLevel

from llcuda_net.errors import StorageError
from llcuda_net.storage.objects.interface import Database
from llcuda_net.storage.postgres import migrations
from llcuda_net.storage.postgres.connection import Connection, Session

log = structlog.get_logger(__name__)

_T = TypeVar("_T")
#: Transactions, and connections, of a server at a time.
_CONNECTIONS = 4
#: Seconds for which a name that another server holds is waited for, and between two looks.
_PATIENCE, _LOOK = 5.0, 0.02
_ESCAPE, _NUL, _ITSELF = "\ue00c", "\ue00c\ue00e", "\ue00c\ue00d"


class PostgresDatabase:
    """A transaction on a connection, as a Database."""

    shared = True
    unlocked = " FOR UPDATE SKIP LOCKED"
    folder: Path | None = None

    def __init__(self, connection: Connection, life: int | None) -> None:
        self.life = life
        self._connection = connection

    def __repr__(self) -> str:
        return f"<PostgresDatabase {self._connection.info.dbname}, life {self.life}>"

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """See Database."""
        found = self._connection.execute(
            _translated(sql), [_given(one) for one in values], binary=True
        ).fetchall()
        return [tuple(map(_found, row)) for row in found]

    def value(self, sql: str, values: Sequence[Any] = ()) -> Any:
        """See Database."""
        found = self.rows(sql, values)
        return found[0][0] if found else None

    def run(self, sql: str, values: Sequence[Any] = ()) -> int:
        """See Database."""
        return self._connection.execute(_translated(sql), [_given(one) for one in values]).rowcount

    def run_many(self, sql: str, values: Iterable[Sequence[Any]]) -> None:
        """See Database."""
        with self._connection.cursor() as cursor:
            cursor.executemany(_translated(sql), [[_given(one) for one in some] for some in values])

    def lock(self, table: str, seq: int) -> bool:
        """See Database."""
        return self.value(f"SELECT 1 FROM {table} WHERE seq = ? FOR UPDATE", (seq,)) is not None

    def alone(self, name: str) -> None:
        """See Database."""
        self.rows("SELECT 1 FROM pg_advisory_xact_lock(?)", (_key(name),))

    def changed(self, owner: str, id_: str, kind: str) -> None:
        """See Database."""
        self.run(
            "INSERT INTO changes (server, owner, id, kind) VALUES (?, ?, ?, ?)",
            (self.life, owner, id_, kind),
        )

    def among(self, column: str, values: Collection[Any]) -> tuple[str, Any]:
        """See Database."""
        return f"{column} = ANY(?)", [*values]

    def contains(self, text: str) -> str:
        """See Database."""
        return f"strpos({text}, ?) > 0"

    def gone(self, column: str) -> str:
        """See Database."""
        return (
            "NOT EXISTS (SELECT 1 FROM servers"
            f" WHERE servers.number = {column} AND NOT servers.fenced)"
        )

    def shrink(self, pages: int) -> None:
        """See Database: PostgreSQL does that by itself."""


class PostgresObjects:
    """What clients keep in a database; an ObjectStore.

    Args:
        url: see Session.
    """

    shared = True

    def __init__(self, url: str) -> None:
        self.life: int | None = None
        self.failed: StorageError | None = None
        self._url = url
        self._limiter = trio.CapacityLimiter(_CONNECTIONS)
        self._idle: list[Session] = []
        self._closed = False
        #: Has the advisory locks of `held`.
        self._holder = Session(url, write=True)
        self._holding = trio.CapacityLimiter(1)

    def __repr__(self) -> str:
        return f"<PostgresObjects {self._holder.place}, life {self.life}>"

    async def open(self) -> None:
        """See ObjectStore."""

        def migrate() -> None:
            session = Session(self._url, write=True)
            self._idle.append(session)
            migrations.migrate(session)

        await trio.to_thread.run_sync(migrate, limiter=self._limiter)

    async def aclose(self) -> None:
        """See ObjectStore."""
        if self._closed:
            return
        self._closed = True
        with trio.CancelScope(shield=True):
            for number in range(_CONNECTIONS):
                await self._limiter.acquire_on_behalf_of(number)
            for session in (*self._idle, self._holder):
                await trio.to_thread.run_sync(session.close)

    async def read(self, question: Callable[[Database], _T]) -> _T:
        """See ObjectStore."""

        def ask(session: Session) -> _T:
            return session.ask(
                "what clients keep cannot be read",
                lambda connection: _read(connection, question, self.life),
            )

        return await self._run(ask)

    async def write(self, change: Callable[[Database], _T]) -> _T:
        """See ObjectStore."""
        life = self.life  # as it was when this was wanted

        def run(session: Session) -> _T:
            return session.change(
                "what clients keep cannot be changed",
                lambda connection: change(PostgresDatabase(connection, life)),
            )

        return await self._run(run)

    @asynccontextmanager
    async def held(self, name: str) -> AsyncIterator[None]:
        """See ObjectStore."""
        key = _key(name)
        has = await self._take(key)
        if not has:
            log.warning("not_alone", of=name)
        try:
            yield
        finally:
            if has:
                with trio.CancelScope(shield=True):
                    await self._hold("pg_advisory_unlock", key)

    async def _take(self, key: int) -> bool:
        """Take a lock; whether it is ours."""
        for _ in range(round(_PATIENCE / _LOOK)):
            if await self._hold("pg_try_advisory_lock", key):
                return True
            await trio.sleep(_LOOK)
        return False

    async def _hold(self, function: str, key: int) -> bool:
        """Take or give back a lock; of a database that does not answer, the next request tells."""

        def ask() -> bool:
            sql = f"SELECT {function}(%s)"
            row = self._holder.ask(
                "the database cannot be asked", lambda db: db.execute(sql, (key,)).fetchone()
            )
            return row is not None and bool(row[0])

        try:
            return await trio.to_thread.run_sync(ask, limiter=self._holding)
        except StorageError as error:
            log.warning("not_alone", reason=error.message)
            return True

    async def _run(self, work: Callable[[Session], _T]) -> _T:
        if self._closed:
            raise StorageError("the store is closed")

        def in_session() -> _T:
            try:
                session = self._idle.pop()
            except IndexError:
                session = Session(self._url, write=True)
            try:
                return work(session)
            finally:
                self._idle.append(session)

        return await trio.to_thread.run_sync(in_session, limiter=self._limiter)


def _read(connection: Connection, question: Callable[[Database], _T], life: int | None) -> _T:
    connection.isolation_level = IsolationLevel.REPEATABLE_READ
    connection.read_only = True
    try:
        with connection.transaction():
            return question(PostgresDatabase(connection, life))
    finally:
        if not connection.closed:
            connection.isolation_level = None
            connection.read_only = None


@functools.lru_cache(512)
def _translated(sql: str) -> str:
    return sql.replace("%", "%%").replace("?", "%s")


def _given(value: Any) -> Any:
    """As PostgreSQL takes it."""
    if isinstance(value, str):
        if _ESCAPE in value or "\0" in value:
            return value.replace(_ESCAPE, _ITSELF).replace("\0", _NUL)
        return value
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, list):
        return [_given(one) for one in value]
    return value


def _found(value: Any) -> Any:
    """As it was given."""
    if isinstance(value, str) and _ESCAPE in value:
        return value.replace(_NUL, "\0").replace(_ITSELF, _ESCAPE)
    return value


def _key(name: str) -> int:
    """The advisory lock of a name."""
    digest = blake2b(name.encode(), digest_size=8, person=b"llcuda objects").digest()
    return int.from_bytes(digest, "big", signed=True)
