"""Copies what clients keep beside results: files, batches, conversations, and who is signed in.

An object goes with all that belongs to it in one transaction, under its id, and is compared by a
hash of all of it before that ends. One that the other database has by that id is left as it is: it
may have changed there since. So what was interrupted is done again, and does only what is left.

Rows have other numbers there, so what refers to one by its number is written anew: the chunks of a
file, the input of a batch, the entries of a conversation and which goes on from which.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Protocol, TypeVar

from llcuda_net.errors import StorageError
from llcuda_net.storage.objects.interface import ALONE, Database
from llcuda_net.storage.records import encode
from llcuda_net.storage.results.interface import Problem

_T = TypeVar("_T")
_Rows = Callable[[str, Sequence[Any]], list[tuple[Any, ...]]]
#: Objects, and rows of an object, that are read at once; and rows that are large.
_PAGE, _LARGE = 500, 16
_FILE = "id, owner, state, purpose, name, bytes, created, expires"
_BATCH = (
    "id, owner, key, state, ends, endpoint, input_id, output, error, created, expires, total,"
    " completed, failed, input_tokens, output_tokens, bytes, swept, details"
)
_CONVERSATION = (
    "id, owner, title, pinned, created, updated, metadata, size, preview, preview_of, words"
)
#: The rows that belong to an object: table, column of its number, columns, and rows at a time.
_PARTS = {
    "files": [("chunks", "file", "number, hash, data", _LARGE)],
    "batches": [
        ("lines", "batch", "number, start, size, custom_id", _PAGE),
        ("outcomes", "batch", "number, failed, hash, data", _LARGE),
    ],
    "conversations": [("hidden", "conversation", "item", _PAGE)],
}


class Side(Protocol):
    """A database of objects, for one thread."""

    def rows(self, sql: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        """The rows of a statement."""
        ...

    def change(self, change: Callable[[Database], _T]) -> _T:
        """What a function of a transaction returns; it may be run more than once."""
        ...


@dataclass
class Copied:
    """What was done: as `results.Transferred`, of objects."""

    copied: int = 0
    there: int = 0
    problems: list[Problem] = field(default_factory=list)


def count(source: Side) -> int:
    """How many objects there are."""
    tables = ("files", "batches", "conversations", "sessions")
    return sum(int(source.rows(f"SELECT count(*) FROM {table}", ())[0][0]) for table in tables)


def transfer_objects(
    source: Side, target: Side, done: Callable[[int], None] = lambda _: None
) -> Copied:
    """Copy all objects, in the order in which they were made. Blocks.

    A file that is being uploaded is left out.

    Args:
        done: told of each object.

    Raises:
        StorageError: a database cannot be read, or not be written; what is copied stays.
    """
    out = Copied()
    for table, columns in (
        ("files", _FILE),
        ("batches", _BATCH),
        ("conversations", _CONVERSATION),
    ):
        for seq, *row in _objects(source, table, columns):
            if table != "files" or row[2] != "uploading":
                _one(source, target, table, columns, seq, row, out)
            done(1)
    sql = "SELECT hash, owner, bound, created, expires FROM sessions ORDER BY hash"
    for session in source.rows(sql, ()):
        _session(target, session, out)
        done(1)
    return out


def _objects(source: Side, table: str, columns: str) -> Iterator[tuple[Any, ...]]:
    """Number and columns of each."""
    after = 0
    sql = f"SELECT seq, {columns} FROM {table} WHERE seq > ? ORDER BY seq LIMIT ?"
    while page := source.rows(sql, (after, _PAGE)):
        yield from page
        after = page[-1][0]


def _one(
    source: Side,
    target: Side,
    table: str,
    columns: str,
    seq: int,
    row: list[Any],
    out: Copied,
) -> None:
    id_ = row[0]

    def copy(db: Database) -> bool:
        """Whether it was not there."""
        if db.rows(f"SELECT 1 FROM {table} WHERE id = ?", (id_,)):
            return False
        if table == "batches":
            _check_key(db, *row[1:3])
        here = _insert(db, table, columns, row)
        if table == "batches":
            _refer_to_input(source, db, seq, here)
        for part, column, names, page in _PARTS[table]:
            _copy_part(source, db, (part, column, names, page), seq, here)
        if table == "conversations":
            _copy_entries(source, db, seq, here)
        if _digest(source.rows, table, columns, seq) != _digest(db.rows, table, columns, here):
            raise StorageError(f"{id_} was changed while it was copied", StorageError.BUSY)
        return True

    try:
        if target.change(copy):
            out.copied += 1
        else:
            out.there += 1
    except StorageError as error:
        if error.code not in (StorageError.INVALID, StorageError.BUSY) or not _goes_on(target):
            raise
        out.problems.append(Problem(id_, f"was left out: {error.message}"))


def _check_key(db: Database, owner: str, key: str | None) -> None:
    """Raise StorageError if another batch there has an idempotency key."""
    sql = "SELECT id FROM batches WHERE owner = ? AND key = ?"
    if key is not None and (found := db.rows(sql, (owner, key))):
        raise StorageError(f"{found[0][0]} has its key there", StorageError.INVALID)


def _goes_on(target: Side) -> bool:
    """Whether the database answers, so that only this object was the trouble."""
    try:
        target.rows("SELECT 1", ())
    except StorageError:
        return False
    return True


def _insert(db: Database, table: str, columns: str, row: Sequence[Any]) -> int:
    """Write an object's row; its number."""
    names, values = columns, [*row]
    if table != "conversations":
        names += ", server"
        values.append(db.life if db.life == ALONE else None)  # nobody's, of several servers
    if table == "batches":
        names += ", input"
        values.append(0)
    places = ", ".join("?" * len(values))
    found = db.rows(f"INSERT INTO {table} ({names}) VALUES ({places}) RETURNING seq", values)
    return int(found[0][0])


def _refer_to_input(source: Side, db: Database, seq: int, here: int) -> None:
    """Have a batch read the copy of its file; what is gone has no number."""
    sql = "SELECT f.id FROM batches b JOIN files f ON f.seq = b.input WHERE b.seq = ?"
    for (file,) in source.rows(sql, (seq,)):
        db.run(
            "UPDATE batches SET input = coalesce((SELECT seq FROM files WHERE id = ?), 0)"
            " WHERE seq = ?",
            (file, here),
        )


def _copy_part(
    source: Side, db: Database, part: tuple[str, str, str, int], seq: int, here: int
) -> None:
    table, column, names, _ = part
    places = ", ".join("?" * (names.count(",") + 2))
    sql = f"INSERT INTO {table} ({column}, {names}) VALUES ({places})"
    for page in _pages(source.rows, part, seq):
        db.run_many(sql, [(here, *row) for row in page])


def _pages(
    rows: _Rows, part: tuple[str, str, str, int], seq: int
) -> Iterator[list[tuple[Any, ...]]]:
    """The rows of a part, in their order."""
    table, column, names, most = part
    first = names.partition(",")[0]
    sql = f"SELECT {names} FROM {table} WHERE {column} = ?"
    page = rows(f"{sql} ORDER BY {first} LIMIT ?", (seq, most))
    while page:
        yield page
        values = (seq, page[-1][0], most)
        page = rows(f"{sql} AND {first} > ? ORDER BY {first} LIMIT ?", values)


def _entries(rows: _Rows, conversation: int) -> Iterator[tuple[Any, ...]]:
    """Number, id, item, basis and parent of each entry, in their order."""
    after = 0
    sql = (
        "SELECT seq, id, item, basis, parent FROM entries WHERE conversation = ? AND seq > ?"
        " ORDER BY seq LIMIT ?"
    )
    while page := rows(sql, (conversation, after, _PAGE)):
        yield from page
        after = page[-1][0]


def _copy_entries(source: Side, db: Database, seq: int, here: int) -> None:
    numbers = {0: 0}
    sql = (
        "INSERT INTO entries (conversation, id, item, basis, parent) VALUES (?, ?, ?, ?, ?)"
        " RETURNING seq"
    )
    for number, id_, item, basis, parent in _entries(source.rows, seq):
        values = (here, id_, item, basis, numbers.get(parent, 0))
        numbers[number] = int(db.rows(sql, values)[0][0])
    ((head,),) = source.rows("SELECT head FROM conversations WHERE seq = ?", (seq,))
    db.run("UPDATE conversations SET head = ? WHERE seq = ?", (numbers.get(head, 0), here))


def _digest(rows: _Rows, table: str, columns: str, seq: int) -> bytes:
    """A hash of all of an object, whatever the numbers of its rows are."""
    digest = blake2b(digest_size=32)
    (row,) = rows(f"SELECT {columns} FROM {table} WHERE seq = ?", (seq,))
    digest.update(encode(row))
    for part in _PARTS[table]:
        digest.update(part[0].encode())
        for page in _pages(rows, part, seq):
            for found in page:
                digest.update(encode(found))
    if table == "batches":
        sql = "SELECT f.id FROM batches b JOIN files f ON f.seq = b.input WHERE b.seq = ?"
        digest.update(encode(rows(sql, (seq,))))
    if table == "conversations":
        places = {0: 0}
        for number, id_, item, basis, parent in _entries(rows, seq):
            places[number] = len(places)
            digest.update(encode((id_, item, basis, places.get(parent, 0))))
        ((head,),) = rows("SELECT head FROM conversations WHERE seq = ?", (seq,))
        digest.update(encode(places.get(head, 0)))
    return digest.digest()


def _session(target: Side, session: tuple[Any, ...], out: Copied) -> None:
    def copy(db: Database) -> bool:
        if db.rows("SELECT 1 FROM sessions WHERE hash = ?", session[:1]):
            return False
        db.run(
            "INSERT INTO sessions (hash, owner, bound, created, expires) VALUES (?, ?, ?, ?, ?)",
            session,
        )
        return True

    if target.change(copy):
        out.copied += 1
    else:
        out.there += 1
