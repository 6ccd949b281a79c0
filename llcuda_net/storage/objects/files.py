"""Files that clients keep, in chunks, so that a large one is never whole in memory.

A file is `uploading`, then `ready`, then perhaps `deleted`: its chunks are removed in steps, by
`sweep`, once no batch that runs reads it: until then it counts in what its owner uses. What was
uploading when a server ended is never ready.

Functions of a connection, for Objects.read and Objects.write. Times are Unix times in nanoseconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

import apsw

from llcuda_net.errors import StorageError
from llcuda_net.storage.results.connection import rows

#: Bytes of each chunk but the last.
CHUNK = 256 << 10
#: Bytes that a file counts at least: its row and its name take room, too.
LEAST = 4 << 10
#: Chunks that one step of `sweep` removes.
_STEP = 16
#: Pages that it gives back to the file system.
_PAGES = _STEP * CHUNK // 4096
_COLUMNS = "seq, id, owner, purpose, name, bytes, created, expires"
#: The states of batches that are not over: an index has them.
_OPEN = "'validating', 'in_progress', 'finalizing', 'cancelling'"
#: The files that batches still read.
_READ = f"SELECT input FROM batches WHERE state IN ({_OPEN})"
_THERE = "state = 'ready' AND (expires IS NULL OR expires > ?)"


@dataclass(frozen=True, slots=True)
class File:
    """A file that is there.

    Attributes:
        seq: its number here.
        id: its name for clients.
        owner: the name of its user.
        purpose: what its owner says it is for.
        name: as its owner calls it.
        bytes: its size.
        created, expires: when it was, and when it is deleted; None: only when that is asked.
    """

    seq: int
    id: str
    owner: str
    purpose: str
    name: str
    bytes: int
    created: int
    expires: int | None


def hash_of(data: bytes) -> bytes:
    """What a chunk, or an outcome of a batch, is compared with when it is read."""
    return blake2b(data, digest_size=16).digest()


def begin(db: apsw.Connection, id_: str, owner: str, created: int) -> int:
    """A new file, empty and uploading; its number."""
    db.execute(
        "INSERT INTO files (id, owner, state, purpose, name, bytes, created)"
        " VALUES (?, ?, 'uploading', '', '', 0, ?)",
        (id_, owner, created),
    )
    return db.last_insert_rowid()


def append(db: apsw.Connection, seq: int, first: int, chunks: Sequence[bytes]) -> None:
    """Chunks of a file that is uploading, of which the first has this number."""
    db.executemany(
        "INSERT INTO chunks (file, number, hash, data) VALUES (?, ?, ?, ?)",
        [(seq, first + i, hash_of(data), data) for i, data in enumerate(chunks)],
    )
    size = sum(map(len, chunks))
    db.execute("UPDATE files SET bytes = bytes + ? WHERE seq = ?", (size, seq))


def finish(db: apsw.Connection, seq: int, *, purpose: str, name: str, expires: int | None) -> File:
    """All chunks of a file are here: it is ready."""
    db.execute(
        "UPDATE files SET state = 'ready', purpose = ?, name = ?, expires = ? WHERE seq = ?",
        (purpose, name, expires, seq),
    )
    return File(*rows(db, f"SELECT {_COLUMNS} FROM files WHERE seq = ?", (seq,))[0])


def discard(db: apsw.Connection, seq: int) -> None:
    """Remove a file; its chunks go with the next sweeps."""
    db.execute("UPDATE files SET state = 'deleted' WHERE seq = ?", (seq,))


def used(db: apsw.Connection, owner: str) -> int:
    """Bytes that an owner's files count: those too that upload now, or that only a batch reads.

    What batches give counts from when it is answered. While it is written to files they count.
    """
    return int(
        db.execute(
            "SELECT (SELECT coalesce(sum(max(bytes, ?1)), 0) FROM files WHERE owner = ?2"
            f" AND (state IN ('ready', 'uploading') OR seq IN ({_READ})))"
            " + (SELECT coalesce(sum(bytes), 0) FROM batches WHERE owner = ?2"
            f" AND state = 'in_progress' AND state IN ({_OPEN}))",
            (LEAST, owner),
        ).get
    )


def find(db: apsw.Connection, id_: str, owner: str | None, now: int) -> File | None:
    """The file of an id, of this owner (None: anybody's); None: there is none."""
    found = rows(
        db,
        f"SELECT {_COLUMNS} FROM files WHERE id = ?1 AND owner = coalesce(?2, owner) AND "
        + _THERE.replace("?", "?3"),
        (id_, owner, now),
    )
    return File(*found[0]) if found else None


def id_of(db: apsw.Connection, seq: int) -> str:
    """The id of a file by its number, also of one that was deleted; empty: it was removed."""
    return db.execute("SELECT id FROM files WHERE seq = ?", (seq,)).get or ""


def listed(
    db: apsw.Connection,
    owner: str | None,
    now: int,
    *,
    limit: int,
    purpose: str | None = None,
    after: int | None = None,
    ascending: bool = False,
) -> list[File]:
    """Files of an owner (None: of all) by the time of their making.

    Args:
        limit: how many, at most.
        purpose: only those that are for this.
        after: the number of the file behind which they come in this order.
    """
    where, values = [_THERE], [now]
    for column, value in (("owner", owner), ("purpose", purpose)):
        if value is not None:
            where.append(f"{column} = ?")
            values.append(value)  # type: ignore[arg-type]
    if after is not None:
        where.append("seq > ?" if ascending else "seq < ?")
        values.append(after)
    order = "ASC" if ascending else "DESC"
    found = rows(
        db,
        f"SELECT {_COLUMNS} FROM files WHERE {' AND '.join(where)} ORDER BY seq {order} LIMIT ?",
        (*values, limit),
    )
    return [File(*one) for one in found]


def chunk(db: apsw.Connection, seq: int, number: int) -> bytes:
    """One chunk of a file; empty behind the last.

    Raises:
        StorageError: it is not what was stored.
    """
    found = rows(db, "SELECT hash, data FROM chunks WHERE file = ? AND number = ?", (seq, number))
    if not found:
        return b""
    hash_, data = found[0]
    if hash_of(data) != hash_:
        raise StorageError(
            f"part {number} of the file {id_of(db, seq)} is damaged: upload it again",
            StorageError.DAMAGED,
        )
    return bytes(data)


def part(db: apsw.Connection, seq: int, start: int, size: int) -> bytes:
    """Bytes of a file, from `start` on; fewer where it ends before.

    Raises:
        StorageError: as `chunk`.
    """
    first, offset = divmod(start, CHUNK)
    data = b"".join(
        chunk(db, seq, number) for number in range(first, (start + size + CHUNK - 1) // CHUNK)
    )
    return data[offset : offset + size]


def abandon(db: apsw.Connection) -> None:
    """At a start: what was uploading is not, any more."""
    db.execute("UPDATE files SET state = 'deleted' WHERE state = 'uploading'")


def sweep(db: apsw.Connection, now: int) -> bool:
    """Remove some of what was deleted, or has expired; whether there is more to do."""
    db.execute(
        "UPDATE files SET state = 'deleted'"
        " WHERE expires IS NOT NULL AND expires <= ? AND state = 'ready'",
        (now,),
    )
    found = rows(
        db,
        f"SELECT seq FROM files WHERE state = 'deleted' AND seq NOT IN ({_READ})"
        " ORDER BY seq LIMIT 1",
    )
    if not found:
        return False
    (seq,) = found[0]
    db.execute(
        "DELETE FROM chunks WHERE id IN (SELECT id FROM chunks WHERE file = ? LIMIT ?)",
        (seq, _STEP),
    )
    if db.changes() < _STEP:
        db.execute("DELETE FROM files WHERE seq = ?", (seq,))
    db.execute(f"PRAGMA incremental_vacuum({_PAGES})").fetchall()
    return True
