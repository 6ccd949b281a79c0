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

import msgspec

from llcuda_net.storage.objects.files import File, hash_of
from llcuda_net.storage.objects.interface import Database

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
#: Outcomes that one statement reads.
_AT_ONCE = 16
_COLUMNS = (
    "seq, id, owner, state, ends, endpoint, input, input_id, output, error, created, expires,"
    " total, completed, failed, input_tokens, output_tokens, server, details"
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
        server: the life of the server that runs it; None: of none.
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
    server: int | None
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


def _batches(db: Database, rest: str, values: Sequence[Any]) -> list[Batch]:
    found = db.rows(f"SELECT {_COLUMNS} FROM batches {rest}", values)
    return [Batch(*(*one[:-1], msgspec.json.decode(one[-1], type=Details))) for one in found]


def create(
    db: Database,
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
    """A new batch, which this server runs; one that is there already stays as it is."""
    db.run(
        "INSERT INTO batches (id, owner, key, state, ends, endpoint, input, input_id, created,"
        " expires, total, completed, failed, input_tokens, output_tokens, swept, server, details)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, 0, 0, 0, 0, 0, ?, ?)"
        " ON CONFLICT (id) DO NOTHING",
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
            db.life,
            msgspec.json.encode(details),
        ),
    )
    return get(db, db.value("SELECT seq FROM batches WHERE id = ?", (id_,)))


def get(db: Database, seq: int) -> Batch:
    """The batch of a number, which there is."""
    return _batches(db, "WHERE seq = ?", (seq,))[0]


def find(db: Database, id_: str, owner: str | None) -> Batch | None:
    """The batch of an id, of this owner (None: anybody's); None: there is none."""
    found = _batches(db, "WHERE id = ?", (id_,))
    return found[0] if found and owner in (None, found[0].owner) else None


def by_key(db: Database, key: str, owner: str) -> Batch | None:
    """What an owner's idempotency key means; None: nothing."""
    found = _batches(db, "WHERE owner = ? AND key = ?", (owner, key))
    return found[0] if found else None


def listed(
    db: Database,
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


def unfinished(db: Database, owner: str | None = None) -> list[Batch]:
    """Batches of an owner (None: of all) that have still something to do, oldest first."""
    mine, values = ("", []) if owner is None else (" AND owner = ?", [owner])
    return _batches(db, f"WHERE state IN ({_OPEN}){mine} ORDER BY seq", values)


# -- whose it is ----------------------------------------------------------------------------------


def to_run(db: Database) -> list[Batch]:
    """Batches with something to do that are this server's, or that it may claim; oldest first."""
    return _batches(db, f"WHERE state IN ({_OPEN}) AND ({_free(db)}) ORDER BY seq", (db.life,))


def _free(db: Database) -> str:
    """That a batch is of the life that is given, or of none."""
    return f"server = ? OR server IS NULL OR {db.gone('batches.server')}"


def claim(db: Database, seq: int) -> bool:
    """Have a batch that nobody runs, or that a server ran that is gone; whether it is ours."""
    if db.life is None or not db.lock("batches", seq):
        return False
    sql = f"UPDATE batches SET server = ? WHERE seq = ? AND state IN ({_OPEN}) AND ({_free(db)})"
    return db.run(sql, (db.life, seq, db.life)) == 1


def is_of(db: Database, seq: int, life: int) -> bool:
    """Whether a batch is still this life's; if so, it is until the end of the transaction."""
    there = db.lock("batches", seq)
    return there and db.value("SELECT server FROM batches WHERE seq = ?", (seq,)) == life


def _locked(db: Database, seq: int) -> Batch:
    """As it is now; nobody else changes it until the end of the transaction."""
    db.lock("batches", seq)
    return get(db, seq)


def _enter(db: Database, seq: int, state: str, now: int, **changes: Any) -> None:
    """Set a state, note when, and change columns; `errors` is one of the details."""
    details = get(db, seq).details
    details.times[state] = now
    details.errors = changes.pop("errors", details.errors)
    changes |= {"state": state, "details": msgspec.json.encode(details)}
    names = ", ".join(f"{name} = ?" for name in changes)
    db.run(f"UPDATE batches SET {names} WHERE seq = ?", (*changes.values(), seq))


# -- lines ----------------------------------------------------------------------------------------


def forget_lines(db: Database, seq: int) -> None:
    """Of a check that did not come to its end."""
    db.run("DELETE FROM lines WHERE batch = ?", (seq,))


def add_lines(db: Database, seq: int, lines: Iterable[Line]) -> None:
    """Lines that were checked."""
    db.run_many(
        "INSERT INTO lines (batch, number, start, size, custom_id) VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT (batch, number) DO NOTHING",
        [(seq, one.number, one.start, one.size, one.custom_id) for one in lines],
    )


def begin(db: Database, seq: int, total: int, now: int) -> None:
    """All lines are right: they may be asked. Nothing happens where it was cancelled meanwhile."""
    if _locked(db, seq).state == VALIDATING:
        _enter(db, seq, IN_PROGRESS, now, total=total)
    else:
        db.run("UPDATE batches SET total = ? WHERE seq = ?", (total, seq))


def fail(db: Database, seq: int, errors: list[dict[str, Any]], now: int) -> None:
    """Some lines are wrong: none is asked. One that was cancelled meanwhile is cancelled."""
    if _locked(db, seq).state == VALIDATING:
        _enter(db, seq, FAILED, now, errors=errors, ends=FAILED)
    else:
        _enter(db, seq, CANCELLED, now)


def line(db: Database, seq: int, number: int) -> Line:
    """One line, which there is."""
    found = db.rows(
        "SELECT number, start, size, custom_id FROM lines WHERE batch = ? AND number = ?",
        (seq, number),
    )
    return Line(*found[0])


def missing(db: Database, seq: int, first: int, limit: int) -> list[Line]:
    """Lines that are not over, from this number on."""
    found = db.rows(
        "SELECT number, start, size, custom_id FROM lines WHERE batch = ? AND number >= ?"
        " AND NOT EXISTS (SELECT 1 FROM outcomes"
        " WHERE outcomes.batch = lines.batch AND outcomes.number = lines.number)"
        " ORDER BY number LIMIT ?",
        (seq, first, limit),
    )
    return [Line(*one) for one in found]


# -- outcomes -------------------------------------------------------------------------------------


def record(db: Database, seq: int, outcomes: Iterable[Outcome]) -> None:
    """What came of lines; the first outcome of a line counts, and no other."""
    completed = failed = input_tokens = output_tokens = size = 0
    for one in outcomes:
        if db.run(
            "INSERT INTO outcomes (batch, number, failed, hash, data)"
            " VALUES (?, ?, ?, ?, ?) ON CONFLICT (batch, number) DO NOTHING",
            (seq, one.number, int(one.failed), hash_of(one.data), one.data),
        ):
            completed += not one.failed
            failed += one.failed
            input_tokens += one.input_tokens
            output_tokens += one.output_tokens
            size += len(one.data)
    db.run(
        "UPDATE batches SET completed = completed + ?, failed = failed + ?,"
        " input_tokens = input_tokens + ?, output_tokens = output_tokens + ?, bytes = bytes + ?"
        " WHERE seq = ?",
        (completed, failed, input_tokens, output_tokens, size, seq),
    )


def outcomes(db: Database, seq: int, first: int, most: int) -> list[Outcome]:
    """What came of lines, in their order, from this number on.

    Args:
        most: bytes after which no more are read; one is always.
    """
    out, size = [], 0
    while size < most:
        # Few at a time: each may be large.
        found = db.rows(
            "SELECT number, failed, hash, data FROM outcomes WHERE batch = ? AND number >= ?"
            " ORDER BY number LIMIT ?",
            (seq, first, _AT_ONCE),
        )
        for number, failed, hash_, data in found:
            sound = hash_of(data) == hash_
            out.append(Outcome(number, bool(failed) or not sound, bytes(data) if sound else b""))
            size += len(data)
            if size >= most:
                break
        if len(found) < _AT_ONCE:
            break
        first = found[-1][0] + 1
    return out


# -- its end --------------------------------------------------------------------------------------


def cancel(db: Database, seq: int, now: int) -> Batch:
    """Ask nothing more of a batch; one that is about to be over, or is, stays as it is."""
    if _locked(db, seq).state in (VALIDATING, IN_PROGRESS):
        _enter(db, seq, CANCELLING, now, ends=CANCELLED)
    return get(db, seq)


def finalize(
    db: Database, seq: int, ends: str, now: int, errors: Sequence[dict[str, Any]] = ()
) -> None:
    """No more lines are asked; one that is being cancelled stays so.

    Args:
        errors: why it fails.
    """
    if _locked(db, seq).state == IN_PROGRESS:
        _enter(db, seq, FINALIZING, now, ends=ends, errors=[*errors])


def finish(db: Database, seq: int, output: str | None, error: str | None, now: int) -> Batch:
    """Its files are written: it is over."""
    _enter(db, seq, _locked(db, seq).ends, now, output=output, error=error)
    return get(db, seq)


def sweep(db: Database) -> bool:
    """Remove some rows of batches that are over; whether there is more to do."""
    found = db.rows(
        f"SELECT seq FROM batches WHERE swept = 0 AND state NOT IN ({_OPEN}) ORDER BY seq LIMIT 1"
        f"{db.unlocked}",
    )
    if not found:
        return False
    (seq,) = found[0]
    some = "SELECT id FROM outcomes WHERE batch = ? LIMIT ?"
    left = db.run(f"DELETE FROM outcomes WHERE id IN ({some})", (seq, _OUTCOMES)) == _OUTCOMES
    some = "SELECT number FROM lines WHERE batch = ? LIMIT ?"
    sql = f"DELETE FROM lines WHERE batch = ? AND number IN ({some})"
    if not (db.run(sql, (seq, seq, _LINES)) == _LINES or left):
        db.run("UPDATE batches SET swept = 1 WHERE seq = ?", (seq,))
    return True
