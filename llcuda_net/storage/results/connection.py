"""SQLite connections with this store's settings, and SQLite's errors as StorageError.

A transaction is on the disk when COMMIT returns: WAL with synchronous=FULL. The store runs the
checkpoints itself, because one commit in a thousand would wait for SQLite's automatic ones.
"""

from __future__ import annotations

import contextlib
import errno
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import apsw

from llcuda_net.errors import StorageError
from llcuda_net.storage.data_dir import create_private

#: Seconds to wait for another connection's transaction.
BUSY = 10.0
#: Seconds between attempts. SQLite's own pauses grow to 0.1 s.
_LOOK = 0.0005
#: KiB of pages that a connection keeps. One that writes fills this for certain, however large it
#: is, and one that reads forgets all at every commit of another. What is not here is in the
#: system's cache, which it drops when memory is short.
WRITER_CACHE, READER_CACHE = 8 << 10, 2 << 10
#: What SQLite raises when it meets bytes that it did not write.
_DAMAGE = (
    apsw.CorruptError,
    apsw.NotADBError,
    apsw.FormatError,
    apsw.MismatchError,
    apsw.TooBigError,
)
_WRITABLE = (
    "SQLite writes to the file and its folder, even to read: check whose they are; of a directory "
    "that is read-only, read a copy"
)


def connect(
    path: Path,
    *,
    create: bool = False,
    write: bool = True,
    durable: bool = True,
    vfs: str | None = None,
) -> apsw.Connection:
    """A connection to a database file.

    Args:
        create: make the file if it does not exist.
        write: allow changes; without it, the connection refuses them.
        durable: each commit waits for the disk.
        vfs: SQLite's name of a simulated disk, in tests. It has no shared memory, so that only one
            connection may use it.
    """
    if create and vfs is None:
        _create(path)
    flags = apsw.SQLITE_OPEN_READWRITE | (apsw.SQLITE_OPEN_CREATE if create else 0)
    connection = apsw.Connection(str(path), flags=flags, vfs=vfs)
    try:
        connection.set_busy_handler(_wait)
        if vfs is not None:
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        if create and not connection.execute("PRAGMA page_count").get:
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
            connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
        cache = WRITER_CACHE if write else READER_CACHE
        connection.execute(f"PRAGMA cache_size = -{cache}")
        connection.execute("PRAGMA temp_store = MEMORY")
        connection.execute("PRAGMA cell_size_check = ON")
        if not write:
            connection.execute("PRAGMA query_only = ON")
    except BaseException:
        connection.close()
        raise
    return connection


def _create(path: Path) -> None:
    try:
        create_private(path)
    except OSError as error:
        kind = apsw.FullError if error.errno in (errno.ENOSPC, errno.EDQUOT) else apsw.CantOpenError
        raise kind(error.strerror or str(error)) from error


def _wait(tries: int) -> bool:
    time.sleep(_LOOK)
    return tries < BUSY / _LOOK


def rows(db: apsw.Connection, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    """All rows of a statement."""
    return list(db.execute(sql, values))


@contextlib.contextmanager
def transaction(connection: apsw.Connection) -> Iterator[None]:
    """A transaction around the block; takes the write lock at once."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # SQLite itself rolls back after some errors
            connection.execute("ROLLBACK")
        raise


@contextlib.contextmanager
def snapshot(connection: apsw.Connection) -> Iterator[None]:
    """Within the block, what is read is of one moment; it must be short."""
    connection.execute("SAVEPOINT reading")
    try:
        yield
    finally:
        connection.execute("RELEASE reading")


@contextlib.contextmanager
def errors(what: str) -> Iterator[None]:
    """Raise SQLite's errors as StorageError, with a message that begins with `what`."""
    try:
        yield
    except apsw.Error as error:
        raise as_storage_error(error, what) from error
    except UnicodeDecodeError as error:  # a text column that is none
        raise StorageError(_damaged(what, error), StorageError.DAMAGED) from error


def as_storage_error(error: apsw.Error, what: str) -> StorageError:
    """The StorageError for one of SQLite's errors."""
    extended = getattr(error, "extendedresult", 0)
    if isinstance(error, apsw.FullError) or extended == apsw.SQLITE_IOERR_SHMSIZE:
        return StorageError(
            f"{what}: there is no room: free some disk space, or choose another --data-dir",
            StorageError.FULL,
        )
    if isinstance(error, apsw.BusyError | apsw.LockedError):
        return StorageError(
            f"{what}: another process has kept the store for {BUSY:g} s", StorageError.BUSY
        )
    if (
        isinstance(error, _DAMAGE)
        or extended in (apsw.SQLITE_IOERR_SHORT_READ, apsw.SQLITE_IOERR_CORRUPTFS)
        # Our statements are right, so it is the file whose schema is not.
        or (isinstance(error, apsw.SQLError) and "no such" in str(error))
    ):
        return StorageError(_damaged(what, error), StorageError.DAMAGED)
    if isinstance(error, apsw.CantOpenError | apsw.ReadOnlyError):
        return StorageError(f"{what}: {error} ({_WRITABLE})")
    return StorageError(f"{what}: {error}")


def _damaged(what: str, error: Exception) -> str:
    return (
        f"{what}: the file is damaged ({error}): `llcuda results verify` names what is; restore it"
        " from a backup"
    )
