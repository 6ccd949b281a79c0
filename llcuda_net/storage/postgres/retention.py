"""Deletes old results in PostgreSQL, in short transactions.

A row that somebody else is deleting is passed over, so that several servers may prune at once. All
that was computed of a result goes in the same transaction, by foreign keys.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial

from llcuda_net.storage.postgres.connection import Connection, Session
from llcuda_net.storage.postgres.queries import conditions, number, where
from llcuda_net.storage.postgres.rows import listed
from llcuda_net.storage.postgres.writing import delete
from llcuda_net.storage.results.interface import DAMAGED, Plan, Query, Retention, Step

#: Results that one transaction deletes.
_STEP_RESULTS = 64


def plan(db: Connection, retention: Retention) -> Plan:
    """What a prune would delete; reads an index only."""
    mine, values = conditions(Query(owner=retention.owner))
    clause = where(mine)
    total = 0
    if retention.max_bytes is not None:
        total = number(db, f"SELECT sum(r.size)::bigint FROM results r {clause}", values)
    # Of each, the bytes of all that are older: what goes is from the oldest up to the newest one
    # that is too old, or before which there is too much.
    row = db.execute(
        "WITH aged AS (SELECT r.created, sum(r.size) OVER (ORDER BY r.created, r.seq"
        f" ROWS UNBOUNDED PRECEDING) - r.size AS older FROM results r {clause})"
        " SELECT max(created) FROM aged WHERE created < %s OR %s - older > %s",
        (
            *values,
            retention.before,
            total,
            retention.max_bytes,
        ),
    ).fetchone()
    newest = None if row is None else row[0]
    if newest is None:
        return Plan()
    # Results created in the same nanosecond are deleted together.
    row = db.execute(
        f"SELECT count(*), sum(r.size)::bigint FROM results r {where([*mine, 'r.created <= %s'])}",
        (*values, newest),
    ).fetchone()
    assert row is not None
    return Plan(row[0], int(row[1] or 0), newest)


def steps(session: Session, retention: Retention) -> Iterator[Step]:
    """Delete the results of `plan`, one step per iteration."""
    what = "results cannot be pruned"
    newest = session.ask(what, lambda db: plan(db, retention)).newest
    if newest is None:
        return
    query = Query(owner=retention.owner, until=newest + 1, limit=_STEP_RESULTS)
    after = (-1, -1)
    while True:
        started = time.perf_counter()
        found = session.change(what, partial(_step, query=query, after=after))
        blocked = time.perf_counter() - started
        if found is None:
            return
        results, size, left, after = found
        yield Step(results, size, blocked, left)
        time.sleep(blocked)


def _step(
    db: Connection, query: Query, after: tuple[int, int]
) -> tuple[int, int, int, tuple[int, int]] | None:
    """Delete some: how many, their bytes, how many were left, and the last one's place."""
    wanted, values = conditions(query)
    batch = db.execute(
        "SELECT r.seq, r.created FROM results r"
        f" {where([*wanted, '(r.created, r.seq) > (%s, %s)'])}"
        " ORDER BY r.created, r.seq LIMIT %s FOR UPDATE SKIP LOCKED",
        (*values, *after, query.limit),
    ).fetchall()
    if not batch:
        return None
    seqs = [seq for seq, _ in batch]
    # One that is not what was stored may be newer than it says, or another's.
    shown = listed(db, "WHERE r.seq = ANY(%s)", (seqs,))
    going = [seq for seq, summary, _ in shown if summary.state != DAMAGED]
    gone = delete(db, "seq = ANY(%s)", (going,))
    size = sum(row[1] for row in gone)
    return len(gone), size, len(seqs) - len(going), (batch[-1][1], batch[-1][0])
