"""Hands generations over from one live server to another, as a statement of PostgreSQL.

They go by way of a life that nobody ever lived: it is fenced from its beginning, has these
generations and a journal with all of their records, and the receiver is its adopter. So the
receiver takes them over as from any other server, and if it dies before that, the next one does.
"""

from __future__ import annotations

from collections.abc import Mapping

from llcuda_net.cluster.leases import HANDED_OVER
from llcuda_net.storage.postgres.connection import Connection


def epoch_of(db: Connection, me: int, id_: str) -> int | None:
    """The epoch of a generation of this server; None: it is none."""
    sql = "SELECT epoch FROM generations WHERE id = %s AND server = %s"
    row = db.execute(sql, (id_, me)).fetchone()
    return None if row is None else int(row[0])


def hand_over(db: Connection, me: int, to: int, ids: Mapping[str, int], data: bytes) -> bool:
    """Hand generations of this server over; whether none of them is this server's any more.

    May be called again after its answer was lost. Locks: both servers' rows in the order of their
    numbers, in share mode; rows of `generations`.

    False: it cannot be, since one of the servers is fenced.

    Args:
        ids: the generations, each with the epoch in which this server has it: after an attempt
            whose answer was lost it may have been adopted from whom it went to, and run here.
        data: all records of all of them, as a batch of a journal.
    """
    given = "unnest(%s::text[], %s::bigint[]) AS d (id, epoch)"
    found = [*ids], [*ids.values()]
    mine = f"SELECT 1 FROM generations g JOIN {given} USING (id, epoch) WHERE g.server = %s"
    if db.execute(mine, (*found, me)).fetchone() is None:
        return True  # by an attempt whose answer was lost, or since this server is fenced
    rows = db.execute(
        "SELECT number FROM servers WHERE number = ANY(%s) AND NOT fenced ORDER BY number"
        " FOR SHARE",
        ([me, to],),
    ).fetchall()
    if me == to or len(rows) != 2:
        return False
    row = db.execute(
        "INSERT INTO servers (name, address, fenced, adopter) VALUES (%s, '', true, %s)"
        " RETURNING number",
        (HANDED_OVER, to),
    ).fetchone()
    assert row is not None
    moved = db.execute(
        f"UPDATE generations g SET server = %s FROM {given}"
        " WHERE g.id = d.id AND g.epoch = d.epoch AND g.server = %s",
        (row[0], *found, me),
    ).rowcount
    if moved:
        db.execute("INSERT INTO journal VALUES (%s, 1, %s)", (row[0], data))
    else:  # by an attempt that was under way until now
        db.execute("DELETE FROM servers WHERE number = %s", row)
    return True
