"""Batches: many requests in a file, what came of each, and how far all of them are.

    validating --> in_progress --> finalizing --> completed, expired
    validating --> failed
    validating, in_progress --> cancelling --> cancelled
    finalizing --> failed, where its owner may not have more: what was answered is in its files

What came of a line is one row, so that it is in the output once, however often a server ends. The
rows of a batch that is over are removed in steps, by `sweep`.

Functions of a connection, for Objects.read and Objects.write. Times are Unix times in nanoseconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import apsw
import msgspec

from llcuda_net.storage.objects.files import File, hash_of
from llcuda_net.storage.results.connection import rows

VALIDATING, IN_PROGRESS, FINALIZING, CANCELLING = (
    "validating",
    "in_progress",
    "finalizing",
    "cancelling",
)
COMPLETED, FAILED, EXPIRED, CANCELLED = "completed", "failed", "expired", "cancelled"
#: States in which there is still something to do.
OPEN = (VALIDATING, IN_PROGRESS, FINALIZING, CANCELLING)
_OPEN = ", ".join(f"'{state}'" for state in OPEN)
#: Rows of lines, and of outcomes, that one step of `sweep` removes.
_LINES, _OUTCOMES = 5000, 200
_COLUMNS = (
    "seq, id, owner, state, ends, endpoint, input, input_id, output, error, created, expires,"
    " total, completed, failed, input_tokens, output_tokens, details"
)


class Details(msgspec.Struct, omit_defaults=True):
    """What is read of a batch only to be shown.

    Attributes:
        window: the time it was given, as it was asked for.
        metadata: its client's.
        output_life: nanoseconds after which its output expires; None: never.
        times: when it came into each state after the first.
        errors: why it failed: code, message, param, line.
    """

    window: str
    metadata: dict[str, str] | None = None
    output_life: int | None = None
    times: dict[str, int] = {}
    errors: list[dict[str, Any]] = []


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch as it is now.

    Attributes:
        seq: its number here.
        id: its name for clients.
        owner: the name of its user.
        state: as above.
        ends: the state in which it will be over, or is.
        endpoint: the path of all its requests.
        input: the number of its file; input_id: the id of that.
        output, error: ids of files, once it is over and has such lines.
        created, expires: when it was, and when its time is over.
        total: its lines; 0 until they are checked.
        completed, failed: lines that are over.
        input_tokens, output_tokens: that those took.
    """

    seq: int
    id: str
    owner: str
    state: str
    ends: str
    endpoint: str
    input: int
    input_id: str
    output: str | None
    error: str | None
    created: int
    expires: int
    total: int
    completed: int
    failed: int
    input_tokens: int
    output_tokens: int
    details: Details

    @property
    def open(self) -> bool:
        """Whether there is still something to do."""
        return self.state in OPEN


@dataclass(frozen=True, slots=True)
class Line:
    """A request of a batch: its number, where it is in the input, and its client's name for it."""

    number: int
    start: int
    size: int
    custom_id: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a line: a line of the output, or, where it failed, of the error file.

    It is empty where it was damaged since.
    """

    number: int
    failed: bool
    data: bytes
    input_tokens: int = 0
    output_tokens: int = 0


def _batches(db: apsw.Connection, rest: str, values: Sequence[Any]) -> list[Batch]:
    found = rows(db, f"SELECT {_COLUMNS} FROM batches {rest}", values)
    return [Batch(*(*one[:-1], msgspec.json.decode(one[-1], type=Details))) for one in found]


def create(
    db: apsw.Connection,
    id_: str,
    file: File,
    *,
    owner: str,
    endpoint: str,
    details: Details,
    created: int,
    expires: int,
    key: str | None = None,
) -> Batch:
    """A new batch."""
    db.execute(
        "INSERT INTO batches (id, owner, key, state, ends, endpoint, input, input_id, created,"
        " expires, total, completed, failed, input_tokens, output_tokens, swept, details)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, 0, 0, 0, 0, 0, ?)",
        (
            id_,
            owner,
            key,
            VALIDATING,
            COMPLETED,
            endpoint,
            file.seq,
            file.id,
            created,
            expires,
            msgspec.json.encode(details),
        ),
    )
    return get(db, db.last_insert_rowid())


def get(db: apsw.Connection, seq: int) -> Batch:
    """The batch of a number, which there is."""
    return _batches(db, "WHERE seq = ?", (seq,))[0]


def find(db: apsw.Connection, id_: str, owner: str | None) -> Batch | None:
    """The batch of an id, of this owner (None: anybody's); None: there is none."""
    found = _batches(db, "WHERE id = ?1 AND owner = coalesce(?2, owner)", (id_, owner))
    return found[0] if found else None


def by_key(db: apsw.Connection, key: str, owner: str) -> Batch | None:
    """What an owner's idempotency key means; None: nothing."""
    found = _batches(db, "WHERE owner = ? AND key = ?", (owner, key))
    return found[0] if found else None


def listed(
    db: apsw.Connection,
    owner: str | None,
    *,
    limit: int,
    after: int | None = None,
    ascending: bool = False,
) -> list[Batch]:
    """Batches of an owner (None: of all) by the time of their making.

    Args:
        after: the number of the batch behind which they come in this order.
    """
    where = ["true"]
    values: list[Any] = []
    if owner is not None:
        where.append("owner = ?")
        values.append(owner)
    if after is not None:
        where.append("seq > ?" if ascending else "seq < ?")
        values.append(after)
    order = "ASC" if ascending else "DESC"
    return _batches(
        db, f"WHERE {' AND '.join(where)} ORDER BY seq {order} LIMIT ?", (*values, limit)
    )


def unfinished(db: apsw.Connection, owner: str | None = None) -> list[Batch]:
    """Batches of an owner (None: of all) that have still something to do, oldest first."""
    return _batches(
        db, f"WHERE state IN ({_OPEN}) AND owner = coalesce(?, owner) ORDER BY seq", (owner,)
    )


def _enter(db: apsw.Connection, seq: int, state: str, now: int, **changes: Any) -> None:
    """Set a state, note when, and change columns; `errors` is one of the details."""
    details = get(db, seq).details
    details.times[state] = now
    details.errors = changes.pop("errors", details.errors)
    changes |= {"state": state, "details": msgspec.json.encode(details)}
    names = ", ".join(f"{name} = ?" for name in changes)
    db.execute(f"UPDATE batches SET {names} WHERE seq = ?", (*changes.values(), seq))


# -- lines ----------------------------------------------------------------------------------------


def forget_lines(db: apsw.Connection, seq: int) -> None:
    """Of a check that did not come to its end."""
    db.execute("DELETE FROM lines WHERE batch = ?", (seq,))


def add_lines(db: apsw.Connection, seq: int, lines: Iterable[Line]) -> None:
    """Lines that were checked."""
    db.executemany(
        "INSERT INTO lines VALUES (?, ?, ?, ?, ?)",
        [(seq, one.number, one.start, one.size, one.custom_id) for one in lines],
    )


def begin(db: apsw.Connection, seq: int, total: int, now: int) -> None:
    """All lines are right: they may be asked. Nothing happens where it was cancelled meanwhile."""
    if get(db, seq).state == VALIDATING:
        _enter(db, seq, IN_PROGRESS, now, total=total)
    else:
        db.execute("UPDATE batches SET total = ? WHERE seq = ?", (total, seq))


def fail(db: apsw.Connection, seq: int, errors: list[dict[str, Any]], now: int) -> None:
    """Some lines are wrong: none is asked. One that was cancelled meanwhile is cancelled."""
    if get(db, seq).state == VALIDATING:
        _enter(db, seq, FAILED, now, errors=errors, ends=FAILED)
    else:
        _enter(db, seq, CANCELLED, now)


def line(db: apsw.Connection, seq: int, number: int) -> Line:
    """One line, which there is."""
    found = rows(
        db,
        "SELECT number, start, size, custom_id FROM lines WHERE batch = ? AND number = ?",
        (seq, number),
    )
    return Line(*found[0])


def missing(db: apsw.Connection, seq: int, first: int, limit: int) -> list[Line]:
    """Lines that are not over, from this number on."""
    found = rows(
        db,
        "SELECT number, start, size, custom_id FROM lines WHERE batch = ?1 AND number >= ?2"
        " AND NOT EXISTS (SELECT 1 FROM outcomes WHERE batch = ?1 AND number = lines.number)"
        " ORDER BY number LIMIT ?3",
        (seq, first, limit),
    )
    return [Line(*one) for one in found]


# -- outcomes -------------------------------------------------------------------------------------


def record(db: apsw.Connection, seq: int, outcomes: Iterable[Outcome]) -> None:
    """What came of lines; the first outcome of a line counts, and no other."""
    completed = failed = input_tokens = output_tokens = size = 0
    for one in outcomes:
        db.execute(
            "INSERT OR IGNORE INTO outcomes (batch, number, failed, hash, data)"
            " VALUES (?, ?, ?, ?, ?)",
            (seq, one.number, int(one.failed), hash_of(one.data), one.data),
        )
        if db.changes():
            completed += not one.failed
            failed += one.failed
            input_tokens += one.input_tokens
            output_tokens += one.output_tokens
            size += len(one.data)
    db.execute(
        "UPDATE batches SET completed = completed + ?, failed = failed + ?,"
        " input_tokens = input_tokens + ?, output_tokens = output_tokens + ?, bytes = bytes + ?"
        " WHERE seq = ?",
        (completed, failed, input_tokens, output_tokens, size, seq),
    )


def outcomes(db: apsw.Connection, seq: int, first: int, most: int) -> list[Outcome]:
    """What came of lines, in their order, from this number on.

    Args:
        most: bytes after which no more are read; one is always.
    """
    out, size = [], 0
    for number, failed, hash_, data in db.execute(
        "SELECT number, failed, hash, data FROM outcomes WHERE batch = ? AND number >= ?"
        " ORDER BY number",
        (seq, first),
    ):
        sound = hash_of(data) == hash_
        out.append(Outcome(number, bool(failed) or not sound, bytes(data) if sound else b""))
        size += len(data)
        if size >= most:
            break
    return out


# -- its end --------------------------------------------------------------------------------------


def cancel(db: apsw.Connection, seq: int, now: int) -> Batch:
    """Ask nothing more of a batch; one that is about to be over, or is, stays as it is."""
    if get(db, seq).state in (VALIDATING, IN_PROGRESS):
        _enter(db, seq, CANCELLING, now, ends=CANCELLED)
    return get(db, seq)


def finalize(
    db: apsw.Connection, seq: int, ends: str, now: int, errors: Sequence[dict[str, Any]] = ()
) -> None:
    """No more lines are asked; one that is being cancelled stays so.

    Args:
        errors: why it fails.
    """
    if get(db, seq).state == IN_PROGRESS:
        _enter(db, seq, FINALIZING, now, ends=ends, errors=[*errors])


def finish(db: apsw.Connection, seq: int, output: str | None, error: str | None, now: int) -> Batch:
    """Its files are written: it is over."""
    _enter(db, seq, get(db, seq).ends, now, output=output, error=error)
    return get(db, seq)


def sweep(db: apsw.Connection) -> bool:
    """Remove some rows of batches that are over; whether there is more to do."""
    found = rows(
        db,
        f"SELECT seq FROM batches WHERE swept = 0 AND state NOT IN ({_OPEN}) ORDER BY seq LIMIT 1",
    )
    if not found:
        return False
    (seq,) = found[0]
    db.execute(
        "DELETE FROM outcomes WHERE id IN (SELECT id FROM outcomes WHERE batch = ? LIMIT ?)",
        (seq, _OUTCOMES),
    )
    left = db.changes() == _OUTCOMES
    db.execute(
        "DELETE FROM lines WHERE batch = ?1 AND number IN"
        " (SELECT number FROM lines WHERE batch = ?1 LIMIT ?2)",
        (seq, _LINES),
    )
    if not left and db.changes() < _LINES:
        db.execute("UPDATE batches SET swept = 1 WHERE seq = ?", (seq,))
    return True
