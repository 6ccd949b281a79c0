"""Stores results in PostgreSQL: everything is packed first, then one short transaction.

Its locks, in this order: what `before` locks; bodies, in the order of their names; models that are
new; and the row of `store`, which gives the numbers, up to the commit. So the transactions of all
servers that store results end one after the other, and a number is never seen before a smaller one
is.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from psycopg import errors as pg

from llcuda_net.errors import StorageError
from llcuda_net.storage.packing.codec import Codec, digest
from llcuda_net.storage.packing.packed_result import PackedResult, pack
from llcuda_net.storage.postgres.connection import Connection, Session
from llcuda_net.storage.postgres.rows import NAME, REFERENCE, whole
from llcuda_net.storage.records import Result, encode, hash_of

_WHAT = "results cannot be stored"
#: Bytes of compressed bodies that are remembered: those of a conversation come with each turn.
_REMEMBERED = 8 << 20
#: Bytes of bodies that one statement stores; PostgreSQL takes none of a gigabyte.
_AT_ONCE = 32 << 20
#: Columns of `results` with a number, and with other types; `seq` comes from `store`.
_COLUMNS = {
    "id": "text",
    "created": "bigint",
    "finished": "bigint",
    "state": "text",
    "model": "integer",
    "owner": "text",
    "key": "bytea",
    "request_hash": "bytea",
    "cacheable": "boolean",
    "tokens": "bigint",
    "prompt_tokens": "bigint",
    "size": "bigint",
    "preview": "bytea",
    "beginning": "bytea",
    "seal": "bytea",
    "hash": "bytea",
    "meta": "bytea",
    "input": "bytea",
    "log": "bytea",
    "logprobs": "bytea",
    "bodies": "bytea",
}
_INSERT = (
    "WITH number AS (UPDATE store SET reached = reached + %s RETURNING reached - %s AS last)"
    f" INSERT INTO results (seq, {', '.join(_COLUMNS)})"
    f" SELECT number.last + d.place, {', '.join(f'd.{name}' for name in _COLUMNS)} FROM number,"
    f" unnest({', '.join(f'%s::{kind}[]' for kind in _COLUMNS.values())})"
    f" WITH ORDINALITY AS d ({', '.join(_COLUMNS)}, place)"
)
#: An intact body that is there keeps its place on the disk: PostgreSQL sees that it is the same.
_BODIES = (
    "INSERT INTO bodies (name, uses, data)"
    " SELECT * FROM unnest(%s::bytea[], %s::integer[], %s::bytea[]) AS d (name, uses, data)"
    " ORDER BY name ON CONFLICT (name) DO UPDATE SET uses = bodies.uses + excluded.uses, data ="
    " CASE WHEN bodies.data = excluded.data THEN bodies.data ELSE excluded.data END"
)
_MODEL = (
    "INSERT INTO models (hash, name, fingerprint) VALUES (%s, %s, %s) ON CONFLICT (hash)"
    " DO UPDATE SET name = excluded.name, fingerprint = excluded.fingerprint RETURNING id"
)
_TAKEN = (
    "WITH d AS (SELECT * FROM unnest(%s::bytea[], %s::integer[]) AS d (name, uses)),"
    " locked AS (SELECT name FROM bodies JOIN d USING (name) ORDER BY name FOR UPDATE OF bodies)"
    " UPDATE bodies SET uses = bodies.uses - d.uses FROM d JOIN locked USING (name)"
    " WHERE bodies.name = d.name"
)


#: Done first in a transaction that stores the results with these ids.
Before = Callable[[Connection, list[str]], object]


class Putter:
    """Stores results through one session; `put` is Store.put.

    Attributes:
        before: see PostgresStore.guard.
    """

    def __init__(self, session: Session, codec: Codec) -> None:
        self.before: Before | None = None
        self._session = session
        self._codec = codec
        self._models: dict[bytes, int] = {}
        self._models_of: Connection | None = None
        self._compressed: OrderedDict[int, bytes] = OrderedDict()
        self._remembered = 0

    def __repr__(self) -> str:
        return f"<Putter {self._session!r}>"

    def put(self, results: Sequence[Result]) -> None:
        """See Store. All or none; what is stored already, and whole, is left as it is."""
        if not results:
            return None
        packed = [_Packed(result, self) for result in results]
        if len({result.id for result in results}) == len(results):
            try:
                return self._session.change(_WHAT, lambda db: self._insert_all(db, packed))
            except _StoredTwiceError:
                pass
        unique = {one.result.id: one for one in reversed(packed)}
        for _ in range(2):  # another server may store one of them between the look and the insert
            try:
                return self._session.change(_WHAT, lambda db: self._insert_missing(db, unique))
            except _StoredTwiceError as error:
                last = error
        raise last

    def _insert_all(self, db: Connection, packed: list[_Packed]) -> None:
        self._begin(db, [one.result.id for one in packed])
        self._insert(db, packed)

    def _begin(self, db: Connection, ids: list[str]) -> None:
        if self.before is not None:
            self.before(db, ids)

    def _insert_missing(self, db: Connection, unique: dict[str, _Packed]) -> None:
        self._begin(db, [*unique])
        wanted = dict(unique)
        damaged = []
        for found in whole(db, self._codec, "WHERE r.id = ANY(%s)", ([*wanted],)):
            if found.result is None:
                damaged.append(found.id)
            elif self.before is not None and found.result != wanted[found.id].result:
                # No repetition of ours: so what is told of it must not be what we have.
                raise StorageError(
                    f"another server has ended {found.id}: ask again", StorageError.FENCED
                )
            else:
                del wanted[found.id]
        if damaged:
            delete(db, "id = ANY(%s)", (damaged,))
        if wanted:
            self._insert(db, [*reversed(wanted.values())])

    def _insert(self, db: Connection, packed: list[_Packed]) -> None:
        if self._models_of is not db:  # it may be another database by now
            self._models.clear()
            self._models_of = db
        uses = Counter(name for one in packed for name in one.bodies)
        if uses:
            bodies = {name: data for one in packed for name, data in one.bodies.items()}
            for some in _portions(sorted(uses), bodies):
                data = [bodies[name] for name in some]
                counts = [uses[name] for name in some]
                db.execute(_BODIES, ([_bytes(name) for name in some], counts, data))
        new: dict[bytes, int] = {}
        rows = [one.row(self._model(db, one.result.model, new)) for one in packed]
        columns = [list(column) for column in zip(*rows, strict=True)]
        try:
            db.execute(_INSERT, (len(rows), len(rows), *columns))
        except pg.UniqueViolation as error:
            raise _StoredTwiceError from error
        self._models.update(new)

    def _model(self, db: Connection, model: dict[str, Any], new: dict[bytes, int]) -> int:
        name = hash_of(model)
        known = self._models.get(name) or new.get(name)
        if known is None:
            shown = str(model.get("name", "")).encode()
            row = db.execute(_MODEL, (name, shown, encode(model))).fetchone()
            assert row is not None
            new[name] = known = int(row[0])
        return known

    def pack(self, result: Result, bodies: dict[int, bytes]) -> PackedResult:
        """The columns of a result; its bodies are added, compressed, by their names."""

        def store_body(raw: bytes) -> int:
            name = int.from_bytes(digest(raw)[:NAME], "big")
            if name not in bodies:
                bodies[name] = self._compress(name, raw)
            return name

        return pack(result, self._codec, store_body, lambda name: len(bodies[name]))

    def _compress(self, name: int, raw: bytes) -> bytes:
        found = self._compressed.pop(name, None)
        if found is None:
            found = self._codec.pack(raw)
            self._remembered += len(found)
        self._compressed[name] = found
        while self._remembered > _REMEMBERED:
            _, oldest = self._compressed.popitem(last=False)
            self._remembered -= len(oldest)
        return found


class _StoredTwiceError(Exception):
    """An id is stored already."""


class _Packed:
    """A result to store, packed before the transaction begins."""

    def __init__(self, result: Result, putter: Putter) -> None:
        self.result = result
        self.bodies: dict[int, bytes] = {}
        self._columns = putter.pack(result, self.bodies)

    def row(self, model: int) -> tuple[Any, ...]:
        """The values of _COLUMNS."""
        result, packed = self.result, self._columns
        shown = packed.shown
        return (
            result.id,
            result.created,
            result.finished,
            result.state,
            model,
            result.owner,
            None if result.key is None else result.key.encode(),
            result.request_hash,
            result.cacheable,
            shown.tokens,
            shown.prompt_tokens,
            shown.size,
            shown.preview.encode(),
            packed.text.encode(),
            packed.seal,
            packed.hash,
            packed.meta,
            _column(packed.request),
            _column(packed.log),
            _column(packed.logprobs),
            b"".join(_bytes(name) for name in self.bodies),
        )


def _portions(names: list[int], bodies: dict[int, bytes]) -> Iterator[list[int]]:
    """The names in their order, so many together as one statement stores; one at least."""
    some: list[int] = []
    size = 0
    for name in names:
        if some and size + len(bodies[name]) > _AT_ONCE:
            yield some
            some, size = [], 0
        some.append(name)
        size += len(bodies[name])
    yield some


def _column(packed: bytes | int | None) -> bytes | None:
    return REFERENCE + _bytes(packed) if isinstance(packed, int) else packed


def _bytes(name: int) -> bytes:
    return name.to_bytes(NAME, "big")


def delete(db: Connection, where: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
    """Delete results and what was computed of them: seq, size, owner and key of each.

    What only they used goes, too, and their keys are free. Locks: results, then bodies in the order
    of their names, then keys.
    """
    sql = f"DELETE FROM results WHERE {where} RETURNING bodies, id, seq, size, owner, key"
    gone = db.execute(sql, values, binary=True).fetchall()
    _release(db, (row[0] for row in gone))
    with_key = [row[1] for row in gone if row[-1] is not None]
    if with_key:
        db.execute("DELETE FROM keys WHERE generation = ANY(%s)", (with_key,))
    return [row[2:] for row in gone]


def _release(db: Connection, lists: Iterable[bytes]) -> None:
    uses = Counter(names[at : at + NAME] for names in lists for at in range(0, len(names), NAME))
    if uses:
        db.execute(_TAKEN, ([*uses], [*uses.values()]))
        # In a statement of its own: only who holds the row's lock knows that nobody uses it.
        db.execute("DELETE FROM bodies WHERE name = ANY(%s) AND uses <= 0", ([*uses],))
