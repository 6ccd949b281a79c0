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

from llcuda_net.errors import StorageError
from llcuda_net.storage.objects.interface import Database

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


def begin(db: Database, id_: str, owner: str, created: int) -> int:
    """A new file, empty and uploading; its number.

    Raises:
        StorageError: this server is no member of its cluster now.
    """
    if db.life is None:
        raise StorageError(
            "this server is cut off from its cluster: ask again, or another one", StorageError.BUSY
        )
    db.run(
        "INSERT INTO files (id, owner, state, purpose, name, bytes, created, server)"
        " VALUES (?, ?, 'uploading', '', '', 0, ?, ?) ON CONFLICT (id) DO NOTHING",
        (id_, owner, created, db.life),
    )
    return int(db.value("SELECT seq FROM files WHERE id = ?", (id_,)))


def append(db: Database, seq: int, first: int, chunks: Sequence[bytes]) -> None:
    """Chunks of a file that is uploading, of which the first has this number.

    Raises:
        StorageError: it was given up, as what a server uploads is that others hold for gone.
    """
    size = 0
    for number, data in enumerate(chunks, first):
        added = db.run(
            "INSERT INTO chunks (file, number, hash, data) VALUES (?, ?, ?, ?)"
            " ON CONFLICT (file, number) DO NOTHING",
            (seq, number, hash_of(data), data),
        )
        size += added * len(data)
    if not db.run(
        "UPDATE files SET bytes = bytes + ? WHERE seq = ? AND state = 'uploading'", (size, seq)
    ):
        raise _given_up()


def finish(db: Database, seq: int, *, purpose: str, name: str, expires: int | None) -> File:
    """All chunks of a file are here: it is ready.

    Raises:
        StorageError: as `append`.
    """
    if not db.run(
        "UPDATE files SET state = 'ready', purpose = ?, name = ?, expires = ?"
        " WHERE seq = ? AND state IN ('uploading', 'ready')",
        (purpose, name, expires, seq),
    ):
        raise _given_up()
    return File(*db.rows(f"SELECT {_COLUMNS} FROM files WHERE seq = ?", (seq,))[0])


def discard(db: Database, seq: int) -> None:
    """Remove a file; its chunks go with the next sweeps."""
    db.run("UPDATE files SET state = 'deleted' WHERE seq = ?", (seq,))


def used(db: Database, owner: str) -> int:
    """Bytes that an owner's files count: those too that upload now, or that only a batch reads.

    What batches give counts from when it is answered. While it is written to files they count.
    """
    return int(
        db.value(
            "SELECT (SELECT coalesce(sum(CASE WHEN bytes < ? THEN ? ELSE bytes END), 0)"
            " FROM files WHERE owner = ?"
            f" AND (state IN ('ready', 'uploading') OR seq IN ({_READ})))"
            " + (SELECT coalesce(sum(bytes), 0) FROM batches WHERE owner = ?"
            f" AND state = 'in_progress' AND state IN ({_OPEN}))",
            (LEAST, LEAST, owner, owner),
        )
    )


def find(
    db: Database, id_: str, owner: str | None, now: int, *, to_use: bool = False
) -> File | None:
    """The file of an id, of this owner (None: anybody's); None: there is none.

    Args:
        to_use: nobody deletes it until the end of the transaction.
    """
    mine, values = ("", [id_, now]) if owner is None else (" AND owner = ?", [id_, now, owner])
    sql = f"SELECT {_COLUMNS} FROM files WHERE id = ? AND {_THERE}{mine}"
    found = db.rows(sql, values)
    if found and to_use and db.shared:
        db.lock("files", found[0][0])
        found = db.rows(sql, values)  # as it is now
    return File(*found[0]) if found else None


def id_of(db: Database, seq: int) -> str:
    """The id of a file by its number, also of one that was deleted; empty: it was removed."""
    return db.value("SELECT id FROM files WHERE seq = ?", (seq,)) or ""


def listed(
    db: Database,
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
    found = db.rows(
        f"SELECT {_COLUMNS} FROM files WHERE {' AND '.join(where)} ORDER BY seq {order} LIMIT ?",
        (*values, limit),
    )
    return [File(*one) for one in found]


def chunk(db: Database, seq: int, number: int) -> bytes:
    """One chunk of a file; empty behind the last.

    Raises:
        StorageError: it is not what was stored.
    """
    found = db.rows("SELECT hash, data FROM chunks WHERE file = ? AND number = ?", (seq, number))
    if not found:
        return b""
    hash_, data = found[0]
    if hash_of(data) != hash_:
        raise StorageError(
            f"part {number} of the file {id_of(db, seq)} is damaged: upload it again",
            StorageError.DAMAGED,
        )
    return bytes(data)


def part(db: Database, seq: int, start: int, size: int) -> bytes:
    """Bytes of a file, from `start` on; fewer where it ends before.

    Raises:
        StorageError: as `chunk`.
    """
    first, offset = divmod(start, CHUNK)
    data = b"".join(
        chunk(db, seq, number) for number in range(first, (start + size + CHUNK - 1) // CHUNK)
    )
    return data[offset : offset + size]


def abandon(db: Database) -> None:
    """What a server uploaded that is gone is not uploading any more."""
    gone = db.gone("files.server")
    db.run(f"UPDATE files SET state = 'deleted' WHERE state = 'uploading' AND {gone}")


def sweep(db: Database, now: int) -> bool:
    """Remove some of what was deleted, or has expired; whether there is more to do."""
    db.run(
        "UPDATE files SET state = 'deleted'"
        " WHERE expires IS NOT NULL AND expires <= ? AND state = 'ready'",
        (now,),
    )
    found = db.rows(
        f"SELECT seq FROM files WHERE state = 'deleted' AND seq NOT IN ({_READ})"
        f" ORDER BY seq LIMIT 1{db.unlocked}",
    )
    if not found:
        return False
    (seq,) = found[0]
    removed = db.run(
        "DELETE FROM chunks WHERE id IN (SELECT id FROM chunks WHERE file = ? LIMIT ?)",
        (seq, _STEP),
    )
    if removed < _STEP:
        db.run("DELETE FROM files WHERE seq = ?", (seq,))
    db.shrink(_PAGES)
    return True


def _given_up() -> StorageError:
    return StorageError("the upload was given up meanwhile: begin it again", StorageError.BUSY)
