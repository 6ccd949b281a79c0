"""Deletes old results without blocking other writers for long.

SQLite has one writer at a time, so a prune is many short transactions. Each step deletes for a few
milliseconds, returns some pages to the file system, and pauses for as long as its longest
transaction took, so that other writers get their turn.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import apsw

from llcuda_net.errors import StorageError
from llcuda_net.storage.records import Result
from llcuda_net.storage.results.connection import rows, transaction
from llcuda_net.storage.results.interface import Plan, Query, Retention, Step
from llcuda_net.storage.results.queries import (
    integers,
    oldest,
    out_of_order,
    sequence,
    total_bytes,
)

#: Transactions that return pages to the file system, after each one that deletes.
_VACUUMS = 4
#: Seconds of deleting per transaction, most results in it, and pages that another one returns.
_STEP, _STEP_RESULTS, _PAGES = 0.005, 128, 32

#: SQLite's `synchronous` between the transactions of a prune, when results are put.
AFTERWARDS = "FULL"

#: Removes results from the search index.
RemoveFromIndex = Callable[[Sequence[int]], None]
#: Returns a whole result by its number; raises StorageError where it is damaged.
Read = Callable[[int], Result | None]
#: Returns the bodies that three columns (request, log, log-probabilities) refer to.
References = Callable[[bytes | int, bytes | int, bytes | int | None], list[int]]


def plan(db: apsw.Connection, retention: Retention) -> Plan:
    """What a prune would delete; reads an index only."""
    owner = retention.owner
    count = size = 0
    newest: int | None = None
    total = 0
    if retention.max_bytes is not None:
        total = total_bytes(db, owner)
    before = retention.before
    room = retention.max_bytes
    for created, bytes_ in _sizes(db, owner):
        old = before is not None and created < before
        large = room is not None and total - size > room
        # Results created in the same nanosecond are deleted together.
        if not old and not large and created != newest:
            break
        count += 1
        size += bytes_
        newest = created
    return Plan(count, size, newest)


def steps(
    db: apsw.Connection,
    retention: Retention,
    remove: RemoveFromIndex,
    references: References,
    read: Read,
) -> Iterator[Step]:
    """Delete the results of `plan`, one step per iteration.

    Each is read first, since an index that is damaged may call a new result old.
    """
    newest = plan(db, retention).newest
    if newest is None:
        return
    at = (-1, -1)
    while True:
        batch = _batch(db, retention.owner, at, newest)
        if not batch:
            return
        if batch[-1][:2] <= at:
            raise out_of_order("the index of results")
        at = (batch[-1][0], batch[-1][1])
        going = []
        for row in batch:
            bodies = _bodies(db, row[1], newest, retention.owner, references, read)
            if bodies is not None:
                going.append((row, bodies))
        # Before the results: if the process dies here, the index holds no result that is gone.
        remove([row[1] for row, _ in going])
        done = size = 0
        brief = _BriefTransactions(db)
        with brief:
            started = time.perf_counter()
            for (created, seq, bytes_), needed in going:
                db.execute("DELETE FROM results WHERE seq = ?", (seq,))
                if db.changes():  # otherwise another prune deleted it first
                    for body in needed:
                        _release(db, body)
                    done += 1
                    size += bytes_
                if time.perf_counter() - started > _STEP:
                    at = (created, seq)  # the rest in the next step
                    break
        gone = {row[1] for row, _ in going}
        left = sum(row[1] not in gone and row[:2] <= at for row in batch)
        for _ in range(_VACUUMS):
            with brief:
                db.execute(f"PRAGMA incremental_vacuum({_PAGES})").fetchall()
        yield Step(done, size, brief.longest, left)
        time.sleep(brief.longest)


def delete(
    db: apsw.Connection, seq: int, remove: RemoveFromIndex, references: References, read: Read
) -> bool:
    """Delete one result, damaged or not; whether it was there. It is gone for good on return."""
    try:
        found = read(seq)
        columns = db.execute("SELECT input, log, logprobs FROM results WHERE seq = ?", (seq,)).get
        bodies = [] if found is None or columns is None else references(*columns)
    except StorageError as error:
        if error.code != StorageError.DAMAGED:
            raise
        bodies = []  # they cannot be known: they stay, since others may need them
    remove([seq])  # first, as in `steps`
    with transaction(db):
        db.execute("DELETE FROM results WHERE seq = ?", (seq,))
        gone = bool(db.changes())
        for body in bodies if gone else ():
            _release(db, body)
    remove([seq])  # and again: it may have been indexed meanwhile
    return gone


def _bodies(
    db: apsw.Connection,
    seq: int,
    newest: int,
    owner: str | None,
    references: References,
    read: Read,
) -> list[int] | None:
    """The bodies of a result that may go; None: it is newer than the index says, or another's.

    A damaged one goes if the row says what the index said. What bodies it has cannot be known: they
    stay, since others may need them.
    """
    try:
        found = read(seq)
        if found is None:
            return []  # another prune was faster
        if found.created > newest or owner not in (None, found.owner):
            return None
        columns = db.execute("SELECT input, log, logprobs FROM results WHERE seq = ?", (seq,)).get
        return [] if columns is None else references(*columns)
    except StorageError as error:
        if error.code != StorageError.DAMAGED:
            raise
    with contextlib.suppress(apsw.CorruptError, UnicodeDecodeError):
        row = db.execute("SELECT created, owner FROM results WHERE seq = ?", (seq,)).get
        if row is not None and type(row[0]) is int and row[0] <= newest and owner in (None, row[1]):
            return []
    return None


class _BriefTransactions:
    """Transactions that do not wait for the disk while they hold the write lock.

    A power cut may undo them, so that pruned results reappear. It cannot undo the commits of others
    after them: a commit that waits for the disk waits for all earlier commits too.

    Attributes:
        longest: most seconds that one of them held the lock.
    """

    def __init__(self, db: apsw.Connection) -> None:
        self.longest = 0.0
        self._db = db
        self._stack = contextlib.ExitStack()
        self._since = 0.0

    def __enter__(self) -> None:
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._stack.enter_context(transaction(self._db))
        self._since = time.perf_counter()  # waiting for the lock blocks nobody

    def __exit__(self, *error: Any) -> None:
        try:
            self._stack.__exit__(*error)
        finally:
            self.longest = max(self.longest, time.perf_counter() - self._since)
            self._db.execute(f"PRAGMA synchronous = {AFTERWARDS}")


def _batch(
    db: apsw.Connection, owner: str | None, after: tuple[int, int], newest: int
) -> list[tuple[int, ...]]:
    """The oldest results after a place: when they were created, their numbers and bytes."""
    if owner is None:
        sql = (
            "SELECT created, seq, size FROM results WHERE (created, seq) > (?, ?)"
            " AND created <= ? ORDER BY created, seq LIMIT ?"
        )
        return integers(rows(db, sql, (*after, newest, _STEP_RESULTS)))
    query = Query(owner=owner, until=newest + 1, limit=_STEP_RESULTS)
    return [
        (created, seq, size)
        for created, seq in oldest(db, query, after)
        if (size := _size(db, seq)) is not None
    ]


def _size(db: apsw.Connection, seq: int) -> int | None:
    found = db.execute("SELECT size FROM results WHERE seq = ?", (seq,)).get
    return None if found is None else integers([(found,)])[0][0]


def _sizes(db: apsw.Connection, owner: str | None) -> Iterator[tuple[int, int]]:
    """When each result was created, and its bytes; oldest first."""
    if owner is None:
        for row in db.execute("SELECT created, size FROM results ORDER BY created"):
            ((created, size),) = integers([row])
            yield created, size
        return
    for created, seq in sequence(db, Query(owner=owner, limit=None)):
        if (found := _size(db, seq)) is not None:
            yield created, found


def _release(db: apsw.Connection, body: int) -> None:
    left = db.execute("UPDATE bodies SET uses = uses - 1 WHERE id = ? RETURNING uses", (body,)).get
    if left == 0:
        db.execute("DELETE FROM bodies WHERE id = ?", (body,))
