"""Lists and counts of results in PostgreSQL.

Every list is in the order (created, seq) and goes on behind a place in it, so that a page reads as
much as it shows. Which index serves it is left to PostgreSQL, which knows how rare a value is.
"""

from __future__ import annotations

from typing import Any

from llcuda_net.storage.postgres.connection import SCHEMA, Connection
from llcuda_net.storage.results.interface import DayStats, Query, Stats

#: Stands for a text that cannot be stored: no id, owner or state is this one.
_NONE = "\ue000"
#: A place in the order of time.
Place = tuple[int, int]


def conditions(query: Query) -> tuple[list[str], list[Any]]:
    """A query's conditions on results `r`, its place apart, and their values."""
    out: list[str] = []
    values: list[Any] = []
    for condition, value in (
        ("r.id = %s", None if query.id is None else storable(query.id)),
        ("r.created >= %s", query.since),
        ("r.created < %s", query.until),
        ("r.owner = %s", None if query.owner is None else storable(query.owner)),
        ("r.state = ANY(%s)", [*map(storable, query.states)] or None),
    ):
        if value is not None:
            out.append(condition)
            values.append(value)
    if query.model is not None:
        out.append("r.model IN (SELECT id FROM models WHERE name = %s)")
        values.append(query.model.encode("utf-8", "replace"))
    return out, values


def page(
    query: Query,
    after: Place | None,
    *,
    ascending: bool = False,
    also: tuple[list[str], list[Any]] = ([], []),
) -> tuple[str, list[Any]]:
    """The clause, from WHERE on, for the next results of a query after a place, and its values.

    Args:
        also: conditions that must hold, too, and their values.
    """
    wanted, values = conditions(query)
    wanted, values = [*also[0], *wanted], [*also[1], *values]
    if after is not None:
        wanted.append(f"(r.created, r.seq) {'>' if ascending else '<'} (%s, %s)")
        values += after
    order = "ASC" if ascending else "DESC"
    clause = f"{where(wanted)} ORDER BY r.created {order}, r.seq {order} LIMIT %s"
    return clause, [*values, None if query.limit is None else max(0, query.limit)]


def where(wanted: list[str]) -> str:
    """A WHERE clause; empty without conditions."""
    return f"WHERE {' AND '.join(wanted)}" if wanted else ""


def place(db: Connection, result: str) -> Place | None:
    """Where a result is in the order of time; None: there is none."""
    row = db.execute(
        "SELECT created, seq FROM results WHERE id = %s", (storable(result),)
    ).fetchone()
    return None if row is None else (row[0], row[1])


def count_after(db: Connection, seq: int, owner: str | None = None) -> int:
    """How many results have a greater number than this, of an owner (None: of all)."""
    mine, values = ("", []) if owner is None else (" AND owner = %s", [owner])
    return number(db, f"SELECT count(*) FROM results WHERE seq > %s{mine}", [seq, *values])


def number(db: Connection, sql: str, values: list[Any]) -> int:
    """The one integer that a statement gives; 0 where it is NULL."""
    row = db.execute(sql, values).fetchone()
    return 0 if row is None or row[0] is None else int(row[0])


def stats(db: Connection, owner: str | None) -> Stats:
    """All statistics, of an owner (None: of all)."""
    out = Stats()
    mine, values = conditions(Query(owner=owner))
    for state, model, count, oldest, newest in db.execute(
        "SELECT r.state, m.name, count(*), min(r.created), max(r.created)"
        f" FROM results r JOIN models m ON m.id = r.model {where(mine)} GROUP BY r.state, m.name",
        values,
    ):
        name = model.decode(errors="replace")
        out.results += count
        out.states[state] = out.states.get(state, 0) + count
        out.models[name] = out.models.get(name, 0) + count
        out.oldest = oldest if out.oldest is None else min(out.oldest, oldest)
        out.newest = newest if out.newest is None else max(out.newest, newest)
    for day, model, state, *counts in db.execute(
        "SELECT day::text, model, state, sum(results)::bigint, sum(tokens)::bigint,"
        " sum(prompt_tokens)::bigint FROM days WHERE %s::text IS NULL OR owner = %s"
        " GROUP BY day, model, state ORDER BY day DESC, model, state",
        (owner, owner),
    ):
        out.days.append(DayStats(day, model.decode(errors="replace"), state, *counts))
    out.tokens = sum(day.tokens for day in out.days)
    out.prompt_tokens = sum(day.prompt_tokens for day in out.days)
    indexed = number(db, "SELECT indexed FROM progress", [])
    out.unindexed = count_after(db, indexed)
    sql = (
        "SELECT sum(pg_total_relation_size(c.oid))::bigint FROM pg_class c"
        " JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = %s AND c.relkind = 'r'"
    )
    out.bytes = number(db, sql, [SCHEMA])
    return out


def storable(text: str) -> str:
    """A text as PostgreSQL takes it; one that it cannot take becomes one that no result has."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return _NONE
    return _NONE if "\0" in text else text
