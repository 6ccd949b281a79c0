"""Leases, fences and takeovers, as statements of PostgreSQL; docs/cluster.md argues for each.

Every function runs in one transaction of its caller, READ COMMITTED, and may be called again after
its answer was lost. Locks are taken in this order: a row of `leases`; rows of `servers`, in the
order of their numbers; rows of `generations`. Who writes what a server has holds the row of that
server in `servers` in share mode, and who fences it changes that row: so each write is wholly
before the fence, and seen by the one that fences, or is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from llcuda_net.cluster.standing import LEASE
from llcuda_net.storage.postgres.connection import Connection
from llcuda_net.storage.postgres.queries import storable
from llcuda_net.storage.replica.bodies import joined
from llcuda_net.storage.replica.interface import Accept, Adopted

#: Where servers that come, leave or are fenced are announced.
CHANNEL = "llcuda_servers"
#: What lives are called that nobody lived; see owners/handing.py.
HANDED_OVER = "handed over"
#: Seconds for which a life that is over is remembered, and what was adopted from it: a server that
#: was switched off for longer, and then starts with its old disk, may take up again what was
#: adopted, ended and deleted meanwhile.
_REMEMBERED = 30 * 86_400.0


@dataclass(frozen=True)
class Member:
    """A server that is not fenced, as the database sees it.

    Attributes:
        started: when its life began, in seconds since 1970, by the database's clock.
        seconds: until its lease is over; negative: it is, and nobody has fenced it yet.
    """

    number: int
    name: str
    address: str
    started: float
    seconds: float


def identity(db: Connection) -> str:
    """Which store this is: the numbers of servers are those of one store."""
    row = db.execute("SELECT identity::text FROM store").fetchone()
    assert row is not None
    return str(row[0])


def join(db: Connection, name: str, address: str, seconds: float = LEASE) -> int:
    """Begin a life as a server: its number, which no other life has or had."""
    row = db.execute(
        "INSERT INTO servers (name, address) VALUES (%s, %s) RETURNING number", (name, address)
    ).fetchone()
    assert row is not None
    db.execute(
        "INSERT INTO leases VALUES (%s, clock_timestamp() + make_interval(secs => %s))",
        (row[0], seconds),
    )
    db.execute(
        "WITH gone AS (DELETE FROM servers WHERE adopted"
        " AND ended < clock_timestamp() - make_interval(secs => %s) RETURNING number)"
        " DELETE FROM keys k USING gone WHERE k.server = gone.number"
        " AND NOT EXISTS (SELECT 1 FROM generations g WHERE g.id = k.generation)"
        " AND NOT EXISTS (SELECT 1 FROM results r WHERE r.id = k.generation)",
        (_REMEMBERED,),
    )
    _announce(db)
    return int(row[0])


def _announce(db: Connection) -> None:
    """Have the others look at the tables when this transaction is committed."""
    db.execute(f"NOTIFY {CHANNEL}")


def members(db: Connection) -> list[Member]:
    """The servers that are not fenced, by their numbers."""
    return [
        Member(number, name, address, float(started), float(seconds))
        for number, name, address, started, seconds in db.execute(
            "SELECT s.number, s.name, s.address, extract(epoch FROM s.started),"
            " extract(epoch FROM l.expires - clock_timestamp())"
            " FROM servers s JOIN leases l ON l.server = s.number ORDER BY s.number"
        )
    ]


def renew(db: Connection, me: int, seconds: float = LEASE) -> bool:
    """Renew one's lease; whether there is still one: it goes when its server is fenced."""
    return (
        db.execute(
            "UPDATE leases SET expires = clock_timestamp() + make_interval(secs => %s)"
            " WHERE server = %s",
            (seconds, me),
        ).rowcount
        == 1
    )


def hold(db: Connection, me: int) -> bool:
    """Keep one's own fence away until this transaction is over; whether one is not fenced."""
    return (
        db.execute(
            "SELECT 1 FROM servers WHERE number = %s AND NOT fenced FOR SHARE", (me,)
        ).fetchone()
        is not None
    )


def append(
    db: Connection,
    me: int,
    number: int,
    data: bytes,
    accepts: Sequence[Accept] = (),
    ended: Sequence[str] = (),
) -> bool:
    """Add a batch to one's journal; whether it is there, by this attempt or an earlier one.

    Args:
        accepts: generations that become one's own with it.
        ended: those of one's own that are over with it, and have no result in the store.

    False: this server is fenced. (Or the batch was deleted since, so nobody waits for it.)
    """
    return added(db, me, number, data, accepts, ended) is not None


def added(
    db: Connection,
    me: int,
    number: int,
    data: bytes,
    accepts: Sequence[Accept] = (),
    ended: Sequence[str] = (),
) -> bool | None:
    """As `append`; whether this attempt has added it. None: it is not there."""
    # What was deleted must not come back by an attempt that was long under way.
    sql = (
        "WITH me AS (SELECT number FROM servers"
        " WHERE number = %s AND NOT fenced AND trimmed < %s FOR SHARE),"
        " added AS (INSERT INTO journal (server, number, data) SELECT me.number, %s, %s FROM me"
        " ON CONFLICT DO NOTHING RETURNING server)"
    )
    values: list[object] = [me, number, number, data]
    if accepts:  # only with the batch: an earlier attempt's may be over by now
        sql += (
            ", accepted AS (INSERT INTO generations (id, owner, server)"
            " SELECT d.id, d.owner, added.server"
            " FROM added, unnest(%s::text[], %s::text[]) AS d (id, owner) ON CONFLICT DO NOTHING)"
        )
        values += [[one.id for one in accepts], [storable(one.owner) for one in accepts]]
    if ended:
        sql += (
            ", ended AS (DELETE FROM generations g USING added"
            " WHERE g.id = ANY(%s) AND g.server = added.server)"
        )
        values.append([*ended])
    row = db.execute(
        f"{sql} SELECT (SELECT count(*) FROM me), (SELECT count(*) FROM added)", values
    ).fetchone()
    return None if row is None or row[0] != 1 else bool(row[1])


def release(db: Connection, me: int, ids: Sequence[str]) -> bool:
    """End generations of this server, in the transaction that stores their results.

    False: this server is fenced, or one of them is not its own (any more), and has no result.
    """
    gone = {
        id_
        for (id_,) in db.execute(
            "WITH me AS (SELECT number FROM servers WHERE number = %s AND NOT fenced FOR SHARE)"
            " DELETE FROM generations g USING me WHERE g.id = ANY(%s) AND g.server = me.number"
            " RETURNING g.id",
            (me, [*ids]),
        )
    }
    others = [id_ for id_ in ids if id_ not in gone]
    if not others:
        return True
    # Of an attempt whose answer was lost; if this server is fenced, they may be another one's.
    if not hold(db, me):
        return False
    row = db.execute("SELECT count(*) FROM results WHERE id = ANY(%s)", (others,)).fetchone()
    return row is not None and row[0] == len({*others})


def trim(db: Connection, me: int, low: int) -> None:
    """Delete the batches of one's journal before a number, for good."""
    sql = "UPDATE servers SET trimmed = %s WHERE number = %s AND NOT fenced AND trimmed < %s"
    if db.execute(sql, (low - 1, me, low - 1)).rowcount:
        db.execute("DELETE FROM journal WHERE server = %s AND number < %s", (me, low))


def expired(db: Connection, me: int, grace: float = LEASE) -> list[int]:
    """Servers to take over: whose lease is over, whose adopter was fenced before it was done, or
    that this server adopts from already.

    While the database was down nobody could renew: so for one lease's time after its start, no
    lease counts as over.
    """
    return [
        number
        for (number,) in db.execute(
            "SELECT s.number FROM servers s LEFT JOIN leases l ON l.server = s.number"
            " LEFT JOIN servers a ON a.number = s.adopter"
            " WHERE s.number <> %s AND NOT s.adopted"
            " AND ((l.expires < clock_timestamp() AND pg_postmaster_start_time()"
            " < clock_timestamp() - make_interval(secs => %s))"
            " OR (s.fenced AND (s.adopter = %s OR coalesce(a.fenced, true))))"
            " ORDER BY s.number",
            (me, grace, me),
        )
    ]


def fence(db: Connection, me: int, other: int) -> bool:
    """Fence a server whose lease is over, to adopt what it has; whether this server is to do that.

    From the commit on, nothing that it writes is committed, and all that it had committed is seen.
    """
    # A renewal that is under way comes first: the row is looked at again when that has ended.
    over = db.execute(
        "SELECT 1 FROM leases WHERE server = %s AND expires < clock_timestamp() FOR UPDATE",
        (other,),
    ).fetchone()
    lease = db.execute("SELECT 1 FROM leases WHERE server = %s", (other,)).fetchone()
    if over is None and lease is not None:
        return False
    return _fence(db, me, other)


def fence_former(db: Connection, me: int, former: int) -> bool:
    """The same of a life that is known to be over, whatever its lease says."""
    db.execute("SELECT 1 FROM leases WHERE server = %s FOR UPDATE", (former,))
    return _fence(db, me, former)


def _fence(db: Connection, me: int, other: int) -> bool:
    """Fence a server whose lease's row is locked, or gone."""
    rows = db.execute(
        "SELECT number, fenced, adopter, adopted FROM servers WHERE number = ANY(%s)"
        " ORDER BY number FOR UPDATE",
        ([me, other],),
    ).fetchall()
    found = {number: rest for number, *rest in rows}
    if me == other or me not in found or other not in found or found[me][0]:
        return False
    fenced, adopter, adopted = found[other]
    if adopted or (fenced and adopter != me and not _is_fenced(db, adopter)):
        return False
    db.execute("DELETE FROM leases WHERE server = %s", (other,))
    db.execute(
        "UPDATE servers SET fenced = true, adopter = %s, ended = coalesce(ended, clock_timestamp())"
        " WHERE number = %s",
        (me, other),
    )
    _announce(db)
    return True


def leave(db: Connection, me: int) -> None:
    """Fence oneself: whoever looks first adopts what is left."""
    db.execute("DELETE FROM leases WHERE server = %s", (me,))
    left = db.execute(
        "UPDATE servers SET fenced = true, ended = clock_timestamp()"
        " WHERE number = %s AND NOT fenced",
        (me,),
    ).rowcount
    if left:
        if not owned(db, me):
            db.execute("UPDATE servers SET adopted = true WHERE number = %s", (me,))
            db.execute("DELETE FROM journal WHERE server = %s", (me,))
        _announce(db)


def _is_fenced(db: Connection, server: int) -> bool:
    """Whether a server is fenced. Its row need not be locked: no fence is ever taken back."""
    row = db.execute("SELECT fenced FROM servers WHERE number = %s", (server,)).fetchone()
    return row is None or bool(row[0])


def was_fenced(db: Connection, server: int) -> bool:
    """Whether a server is known, and fenced."""
    row = db.execute("SELECT fenced FROM servers WHERE number = %s", (server,)).fetchone()
    return row is not None and bool(row[0])


def was_handed_over(db: Connection, server: int) -> bool:
    """Whether a life is none, and stands for generations that a live server has handed over."""
    sql = "SELECT 1 FROM servers WHERE number = %s AND name = %s AND address = ''"
    return db.execute(sql, (server, HANDED_OVER)).fetchone() is not None


def journal(
    db: Connection, server: int, after: int = 0, limit: int = 64
) -> list[tuple[int, bytes]]:
    """Batches of a server's journal, each with its number, in their order.

    Of a fenced one, nothing comes any more.
    """
    return db.execute(
        "SELECT number, data FROM journal WHERE server = %s AND number > %s ORDER BY number"
        " LIMIT %s",
        (server, after, limit),
        binary=True,
    ).fetchall()


def last(db: Connection, server: int) -> int:
    """The number of the last batch of a server's journal; 0: there is none."""
    sql = "SELECT coalesce(max(number), 0) FROM journal WHERE server = %s"
    row = db.execute(sql, (server,)).fetchone()
    assert row is not None
    return int(row[0])


def owned(db: Connection, server: int) -> dict[str, int]:
    """The generations of a server, with their epochs."""
    rows = db.execute("SELECT id, epoch FROM generations WHERE server = %s ORDER BY id", (server,))
    return dict(rows.fetchall())


def secret(db: Connection) -> bytes:
    """What the servers of the cluster know each other by; see greeting.py."""
    row = db.execute("SELECT bytes FROM secret").fetchone()
    assert row is not None
    return bytes(row[0])


@dataclass(frozen=True)
class Place:
    """Where a generation is that is not over.

    Attributes:
        owner: whose it is.
        server: who has it; its adopter is to have it soon where that one is fenced.
        address: HOST:PORT of that server.
    """

    owner: str
    server: int
    epoch: int
    address: str
    fenced: bool


def place(db: Connection, id_: str) -> Place | None:
    """Where a generation is; None: it is over, or no server of the cluster has it."""
    row = db.execute(
        "SELECT g.owner, g.server, g.epoch, s.address, s.fenced FROM generations g"
        " JOIN servers s ON s.number = g.server WHERE g.id = %s",
        (id_,),
    ).fetchone()
    return None if row is None else Place(*row)


def adopt(
    db: Connection, me: int, other: int, number: int, generations: Sequence[Adopted]
) -> dict[str, int] | None:
    """Take over generations of a server that this one has fenced: their new epochs.

    Each is in one's own journal, in the batch `number`, and one's own, or neither. None: this
    server is fenced itself, or another one adopts from it.
    """
    rows = db.execute(
        "SELECT number, fenced, adopter FROM servers WHERE number = ANY(%s) ORDER BY number"
        " FOR SHARE",
        ([me, other],),
    ).fetchall()
    found = {one: rest for one, *rest in rows}
    if me not in found or other not in found or found[me][0] or found[other] != [True, me]:
        return None
    ids = [one.generation for one in generations]
    moved = {
        id_
        for (id_,) in db.execute(
            "UPDATE generations SET server = %s, epoch = epoch + 1 WHERE id = ANY(%s)"
            " AND server = %s RETURNING id",
            (me, ids, other),
        )
    }
    if moved:
        sql = "INSERT INTO adoptions SELECT %s, unnest(%s::text[]) ON CONFLICT DO NOTHING"
        db.execute(sql, (other, [*moved]))
        bodies = [body for one in generations if one.generation in moved for body in one.bodies]
        append(db, me, number, joined(bodies))  # this server's row is locked, and not fenced
    # Also those of an earlier attempt, whose answer was lost.
    sql = "SELECT id, epoch FROM generations WHERE id = ANY(%s) AND server = %s"
    return dict(db.execute(sql, (ids, me)).fetchall())


def adopted(db: Connection, me: int, other: int) -> bool:
    """Forget a server of which nothing is left to adopt; whether that is so."""
    if owned(db, other):
        return False
    done = db.execute(
        "UPDATE servers SET adopted = true WHERE number = %s AND fenced AND adopter = %s",
        (other, me),
    ).rowcount
    if done:
        db.execute("DELETE FROM journal WHERE server = %s", (other,))
    return bool(done)


def taken(db: Connection, server: int) -> set[str]:
    """The generations that others have taken over from a server."""
    return {id_ for (id_,) in db.execute("SELECT id FROM adoptions WHERE server = %s", (server,))}


def orphaned(db: Connection, ids: Sequence[str]) -> set[str]:
    """Those of these generations that nobody has, has taken over, or has a result of."""
    rows = db.execute(
        "SELECT d.id FROM unnest(%s::text[]) AS d (id)"
        " WHERE NOT EXISTS (SELECT 1 FROM generations g WHERE g.id = d.id)"
        " AND NOT EXISTS (SELECT 1 FROM adoptions a WHERE a.id = d.id)"
        " AND NOT EXISTS (SELECT 1 FROM results r WHERE r.id = d.id)",
        ([*ids],),
    )
    return {id_ for (id_,) in rows}
