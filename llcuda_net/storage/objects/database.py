"""objects.db: one connection, used by one thread at a time, in transactions.

    objects = Objects(directory)
    await objects.open()                                  # under the directory's lock
    found = await objects.read(lambda db: files.find(db, id_, owner, now))
    await objects.write(lambda db: files.delete(db, id_, owner))
    await objects.aclose()

A transaction is on the disk when `write` returns. Other requests wait meanwhile, so each must be
short: what takes longer, such as deleting a large file, is done in steps.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import apsw
import structlog
import trio

from llcuda_net.errors import StorageError
from llcuda_net.storage.objects.interface import ALONE, Database
from llcuda_net.storage.objects.migrations import OBJECTS
from llcuda_net.storage.results import migrations
from llcuda_net.storage.results.connection import (
    READER_CACHE,
    as_storage_error,
    connect,
    errors,
    snapshot,
    transaction,
)
from llcuda_net.storage.results.connection import rows as all_rows

log = structlog.get_logger(__name__)

_T = TypeVar("_T")
NAME = "objects.db"
#: A file up to this size is checked when a server opens it: 10 ms per MB.
_CHECKED_BYTES = 16 << 20


class SqliteDatabase:
    """A connection as a Database: whatever runs in it, it alone changes the file."""

    shared = False
    unlocked = ""
    life: int | None = ALONE

    def __init__(self, connection: apsw.Connection) -> None:
        self.connection = connection
        self.folder: Path | None = Path(connection.filename).parent

    def __repr__(self) -> str:
        return f"<SqliteDatabase {self.connection.filename}>"

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """See Database."""
        return all_rows(self.connection, sql, values)

    def value(self, sql: str, values: Sequence[Any] = ()) -> Any:
        """See Database."""
        found = self.rows(sql, values)
        return found[0][0] if found else None

    def run(self, sql: str, values: Sequence[Any] = ()) -> int:
        """See Database."""
        self.connection.execute(sql, values)
        return self.connection.changes()

    def run_many(self, sql: str, values: Iterable[Sequence[Any]]) -> None:
        """See Database."""
        self.connection.executemany(sql, values)

    def lock(self, table: str, seq: int) -> bool:
        """See Database."""
        return self.value(f"SELECT 1 FROM {table} WHERE seq = ?", (seq,)) is not None

    def alone(self, name: str) -> None:
        """See Database."""

    def changed(self, owner: str, id_: str, kind: str) -> None:
        """See Database: there are no others."""

    def among(self, column: str, values: Collection[Any]) -> tuple[str, Any]:
        """See Database."""
        return f"{column} IN (SELECT value FROM json_each(?))", json.dumps([*values])

    def contains(self, text: str) -> str:
        """See Database."""
        return f"instr({text}, ?)"

    def gone(self, column: str) -> str:
        """See Database."""
        return "true"

    def shrink(self, pages: int) -> None:
        """See Database."""
        self.rows(f"PRAGMA incremental_vacuum({pages})")


class Objects:
    """What clients keep in one data directory; used under the directory's lock. An ObjectStore.

    Args:
        directory: must exist.
        check: called after each commit, before it is reported: raises StorageError if what was
            committed would not be found again.
        vfs: SQLite's name of a simulated disk, in tests.

    Attributes:
        path: of the file.
        failed: why nothing is written any more; None while it is.
    """

    shared = False
    life: int | None = ALONE

    def __init__(
        self,
        directory: Path,
        *,
        check: Callable[[], None] | None = None,
        vfs: str | None = None,
    ) -> None:
        self.path = directory / NAME
        self.failed: StorageError | None = None
        self._check = check
        self._vfs = vfs
        self._db: SqliteDatabase | None = None
        self._limiter = trio.CapacityLimiter(1)

    def __repr__(self) -> str:
        state = "closed" if self._db is None else "open" if self.failed is None else "failed"
        return f"<Objects {self.path}, {state}>"

    async def open(self) -> None:
        """See ObjectStore."""
        await self._run(self._open)

    async def aclose(self) -> None:
        """See ObjectStore."""
        with trio.CancelScope(shield=True):
            await self._run(self._close)

    async def read(self, question: Callable[[Database], _T]) -> _T:
        """See ObjectStore."""

        def ask() -> _T:
            with errors(f"{self.path} cannot be read"), snapshot(self._opened().connection):
                return question(self._opened())

        return await self._run(ask)

    async def write(self, change: Callable[[Database], _T]) -> _T:
        """See ObjectStore."""

        def run() -> _T:
            if self.failed is not None:
                raise StorageError(self.failed.message, self.failed.code)
            db = self._opened()
            try:
                with transaction(db.connection):
                    out = change(db)
            except (apsw.Error, UnicodeDecodeError) as error:
                raise self._note(_error_of(error, f"{self.path} cannot be written")) from error
            if self._check is not None:
                try:
                    self._check()
                except StorageError as error:
                    raise self._note(error) from error
            return out

        return await self._run(run)

    @asynccontextmanager
    async def held(self, name: str) -> AsyncIterator[None]:
        """See ObjectStore: there are no others."""
        yield

    def _note(self, error: StorageError) -> StorageError:
        if error.code in (StorageError.FAILED, StorageError.DAMAGED):
            # Never retry a failed sync: the retry would succeed without the lost pages.
            log.error("store_error", code=error.code, reason=error.message)
            self.failed = error
        return error

    async def _run(self, work: Callable[[], _T]) -> _T:
        return await trio.to_thread.run_sync(work, limiter=self._limiter)

    def _opened(self) -> SqliteDatabase:
        if self._db is None:
            raise StorageError("the store is closed")
        return self._db

    def _open(self) -> None:
        with errors(f"cannot open {self.path}"):
            db = connect(self.path, create=True, vfs=self._vfs)
            try:
                db.execute(f"PRAGMA cache_size = -{READER_CACHE}")
                migrations.migrate(db, OBJECTS)
                if self._vfs is None and self.path.stat().st_size <= _CHECKED_BYTES:
                    _check_whole(db)
            except BaseException:
                db.close()
                raise
        self._db = SqliteDatabase(db)

    def _close(self) -> None:
        if self._db is not None:
            self._db.connection.close()
            self._db = None


def _check_whole(db: apsw.Connection) -> None:
    """Damaged indices are made again; anything else needs a backup."""
    if _is_sound(db):
        return
    log.error("store_damaged", path=db.filename, indices="made again")
    with transaction(db):
        db.execute("REINDEX")
    if not _is_sound(db):
        raise StorageError(
            f"{db.filename} is damaged: restore it from a backup, or move it away to begin anew "
            "without the files, batches and conversations in it",
            StorageError.DAMAGED,
        )


def _is_sound(db: apsw.Connection) -> bool:
    return bool(db.execute("PRAGMA integrity_check(1)").get == "ok")


def _error_of(error: Exception, what: str) -> StorageError:
    if isinstance(error, apsw.Error):
        return as_storage_error(error, what)
    return StorageError(f"{what}: the file is damaged ({error})", StorageError.DAMAGED)
