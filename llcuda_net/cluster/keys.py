"""Idempotency keys over the cluster, as statements of PostgreSQL; docs/cluster.md argues for them.

Every function runs in one transaction of its caller, READ COMMITTED, and may be called again after
its answer was lost. Locks: the own row of `servers` in share mode, then rows of `keys` in the order
of owner and key.

Theory. A row says which generation has a key. It is taken before that generation begins, or in the
transaction that accepts it, and goes with its result. In between it may have become void, and then
the next one may have it:

- the generation came to an end, but not to its work: it is tried again;
- its server is fenced, and it is nowhere: it was never accepted, or kept in memory only. All that
  the server had committed was committed before the fence, so a statement that sees the fence sees
  that, too: nothing can appear later. A server that a statement does not see is none that is gone:
  the statement may be older, which has waited for another one's lock. (`leases.join` deletes what
  servers have left that are forgotten.);
- it is nowhere, and the server that took the key says itself that it does not have it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from llcuda_net.storage.postgres.connection import Connection

#: Where a row is void; `gone` are generations of the own server that it does not have any more.
_VOID = (
    "EXISTS (SELECT 1 FROM results r WHERE r.id = k.generation AND r.state <> 'done')"
    " OR (NOT EXISTS (SELECT 1 FROM generations g WHERE g.id = k.generation)"
    " AND NOT EXISTS (SELECT 1 FROM results r WHERE r.id = k.generation)"
    " AND ((k.server = %(me)s AND k.generation = ANY(%(gone)s)) OR EXISTS"
    " (SELECT 1 FROM servers s WHERE s.number = k.server AND s.fenced)))"
)
_GIVEN = (
    "unnest(%(owners)s::text[], %(keys)s::bytea[], %(generations)s::text[], %(hashes)s::bytea[])"
    " AS d (owner, key, generation, request_hash)"
)
_CLAIM = (
    "WITH me AS (SELECT number FROM servers WHERE number = %(me)s AND NOT fenced FOR SHARE),"
    " taken AS (INSERT INTO keys AS k (owner, key, generation, request_hash, server)"
    f" SELECT d.owner, d.key, d.generation, d.request_hash, me.number FROM {_GIVEN}, me"
    " ORDER BY d.owner, d.key ON CONFLICT (owner, key) DO UPDATE SET"
    " generation = excluded.generation, request_hash = excluded.request_hash,"
    f" server = excluded.server WHERE {_VOID})"
    " SELECT count(*) FROM me"
)
_OTHERS = (
    f"SELECT d.generation, k.generation FROM {_GIVEN} JOIN keys k USING (owner, key)"
    " WHERE k.generation <> d.generation"
)
_UNKNOWN = (
    "SELECT k.generation FROM keys k WHERE k.server = %s"
    " AND NOT EXISTS (SELECT 1 FROM generations g WHERE g.id = k.generation)"
    " AND NOT EXISTS (SELECT 1 FROM results r WHERE r.id = k.generation)"
)
_LOCK = "SELECT 1 FROM keys WHERE generation = ANY(%s) ORDER BY owner, key FOR UPDATE"
_RELEASE = (
    "DELETE FROM keys k WHERE generation = ANY(%s)"
    " AND NOT EXISTS (SELECT 1 FROM generations g WHERE g.id = k.generation)"
    " AND NOT EXISTS (SELECT 1 FROM results r WHERE r.id = k.generation)"
)
_VOID_OF_OTHERS = (
    "DELETE FROM keys k WHERE EXISTS (SELECT 1 FROM servers s WHERE s.number = k.server"
    " AND s.fenced) AND NOT EXISTS (SELECT 1 FROM generations g WHERE g.id = k.generation)"
    " AND NOT EXISTS (SELECT 1 FROM results r WHERE r.id = k.generation)"
)


@dataclass(frozen=True)
class Key:
    """An owner's idempotency key for a generation."""

    owner: str
    key: str
    generation: str
    request_hash: bytes


@dataclass(frozen=True)
class Held:
    """What a key means.

    Attributes:
        generation: its id.
        request_hash: of what was asked with the key.
        server: the life that took it; the generation may be another one's by now.
        over: whether the generation is in the store of results.
        done: whether it has done its work.
    """

    generation: str
    request_hash: bytes
    server: int
    over: bool
    done: bool


def claim(
    db: Connection, me: int, keys: Sequence[Key], gone: Sequence[str] = ()
) -> dict[str, str] | None:
    """Take keys for generations of this server.

    Args:
        keys: of one key the last one counts; the others are told so.
        gone: generations that this server took keys for and does not have: where no other one has
            them either, their keys are free.

    Returns:
        Of those whose key another generation has: which. None: this server is fenced.
    """
    unique = {(one.owner, one.key): one for one in keys}
    ordered = [unique[place] for place in sorted(unique)]
    given = {
        "me": me,
        "gone": [*gone],
        "owners": [one.owner for one in ordered],
        "keys": [one.key.encode() for one in ordered],
        "generations": [one.generation for one in ordered],
        "hashes": [one.request_hash for one in ordered],
    }
    row = db.execute(_CLAIM, given).fetchone()
    if row is None or row[0] != 1:
        return None
    # A statement of its own, which sees what those had committed for whom the first one waited.
    taken: dict[str, str] = dict(db.execute(_OTHERS, given).fetchall())
    chosen = {one: taken.get(unique[one].generation, unique[one].generation) for one in unique}
    has = {one.generation: chosen[one.owner, one.key] for one in keys}
    return {one: other for one, other in has.items() if one != other}


class Accepted(Protocol):
    """A generation that is about to be accepted."""

    @property
    def id(self) -> str:
        """Its id."""

    @property
    def owner(self) -> str:
        """Whose it is."""

    @property
    def key(self) -> str | None:
        """Its key; None: it has none."""

    @property
    def request_hash(self) -> bytes:
        """Of what was asked."""


def claim_accepted(db: Connection, me: int, accepts: Sequence[Accepted]) -> dict[str, str]:
    """Take the keys of generations in the transaction that accepts them, before all else in it.

    Returns:
        Those whose key another generation has: which; they must not be accepted. Whether this
        server is fenced, the rest of the transaction finds out.
    """
    wanted = [
        Key(one.owner, one.key, one.id, one.request_hash) for one in accepts if one.key is not None
    ]
    return (claim(db, me, wanted) or {}) if wanted else {}


def find(db: Connection, owner: str, key: str) -> Held | None:
    """What an owner's key means; None: nothing."""
    row = db.execute(
        "SELECT k.generation, k.request_hash, k.server, r.state FROM keys k"
        " LEFT JOIN results r ON r.id = k.generation WHERE k.owner = %s AND k.key = %s",
        (owner, key.encode()),
    ).fetchone()
    if row is None:
        return None
    generation, request_hash, server, state = row
    return Held(generation, bytes(request_hash), server, state is not None, state == "done")


def begun(db: Connection, owner: str, prefix: str) -> list[str]:
    """The generations that have an owner's keys of this beginning, and are not over.

    Args:
        prefix: with a last character of one byte.
    """
    first = prefix.encode()
    behind = first[:-1] + bytes((first[-1] + 1,))
    sql = (
        "SELECT k.generation FROM keys k WHERE k.owner = %s AND k.key >= %s AND k.key < %s"
        " AND NOT EXISTS (SELECT 1 FROM results r WHERE r.id = k.generation)"
    )
    return [id_ for (id_,) in db.execute(sql, (owner, first, behind))]


def release(db: Connection, generations: Sequence[str]) -> int:
    """Free the keys of generations that are gone; how many were theirs.

    One that was accepted meanwhile keeps its key: who accepts it locks that row. So the look is a
    statement of its own, behind the lock, and sees what those had committed for whom it waited.
    """
    ids = [*generations]
    db.execute(_LOCK, (ids,))
    return db.execute(_RELEASE, (ids,)).rowcount


def unknown(db: Connection, me: int) -> list[str]:
    """Generations with keys that this server took and that are neither open nor stored.

    Those that it does not have either, in memory or among what is transient, are to be released.
    """
    return [id_ for (id_,) in db.execute(_UNKNOWN, (me,))]


def sweep(db: Connection) -> int:
    """Delete the void rows of servers that are fenced; how many. Nothing needs it but the disk."""
    return db.execute(_VOID_OF_OTHERS).rowcount
