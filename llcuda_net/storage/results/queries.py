"""Reading results.db: lists, pages and figures. Every statement here is short and uses an index."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import apsw

from llcuda_net.storage.results.connection import rows
from llcuda_net.storage.results.interface import Query, Stats

#: The columns of a Summary, of results `r` and models `m`.
SUMMARY = (
    "r.id, r.created, r.finished, r.state, m.name, r.owner, r.tokens, r.prompt_tokens, r.size,"
    " r.preview"
)
#: Rows read by one statement of a long walk: between statements nothing is held.
_PAGE = 200


def conditions(query: Query) -> tuple[list[str], list[Any]]:
    """A query's SQL conditions on results `r`, and their values."""
    out: list[str] = []
    values: list[Any] = []
    for condition, value in (
        ("r.id = ?", query.id),
        ("r.model IN (SELECT id FROM models WHERE name = ?)", query.model),
        ("r.created >= ?", query.since),
        ("r.created < ?", query.until),
        ("r.owner = ?", query.owner),
    ):
        if value is not None:
            out.append(condition)
            values.append(value)
    if query.owner:
        out.append("r.owner != ''")  # the index is of these
    states = list(query.states)
    if states:
        out.append(f"r.state IN ({','.join('?' * len(states))})")
        values += states
        if "done" not in states:
            out.append("r.state != 'done'")  # as above
    return out, values


def where(conditions: list[str]) -> str:
    """A WHERE clause."""
    return f" WHERE {' AND '.join(conditions)}" if conditions else ""


def newest(db: apsw.Connection, query: Query, columns: str = SUMMARY) -> list[tuple[Any, ...]]:
    """Columns of the matching results, newest first."""
    wanted, values = conditions(query)
    if query.after is not None:
        wanted.append("(r.created, r.seq) < (SELECT created, seq FROM results WHERE id = ?)")
        values.append(query.after)
    sql = (
        f"SELECT {columns} FROM results r JOIN models m ON m.id = r.model{where(wanted)}"
        " ORDER BY r.created DESC, r.seq DESC LIMIT ?"
    )
    return rows(db, sql, [*values, _limit(query)])


def sequence(db: apsw.Connection, query: Query) -> Iterator[int]:
    """The numbers of results that match, oldest first."""
    wanted, values = conditions(query)
    at = (-1, -1)
    if query.after is not None:
        found = db.execute("SELECT created, seq FROM results WHERE id = ?", (query.after,)).get
        at = found or at
    left = _limit(query)
    sql = (
        f"SELECT r.created, r.seq FROM results r{where([*wanted, '(r.created, r.seq) > (?, ?)'])}"
        " ORDER BY r.created, r.seq LIMIT ?"
    )
    while left:
        count = _PAGE if left < 0 else min(_PAGE, left)
        page = rows(db, sql, [*values, *at, count])
        if not page:
            return
        left -= len(page) if left > 0 else 0
        yield from (row[1] for row in page)
        at = (page[-1][0], page[-1][1])


def pages(db: apsw.Connection, sql: str) -> Iterator[tuple[Any, ...]]:
    """All rows of a statement that takes the last row's first column and gives the next rows."""
    last = 0
    while page := rows(db, sql, (last,)):
        yield from page
        last = page[-1][0]


def stats(db: apsw.Connection, owner: str | None) -> Stats:
    """What can be counted in results.db."""
    wanted, values = conditions(Query(owner=owner))
    out = Stats()
    out.results, out.oldest, out.newest = db.execute(
        f"SELECT count(*), min(r.created), max(r.created) FROM results r{where(wanted)}", values
    ).get
    other = where([*wanted, "r.state != 'done'"])
    for state, count in db.execute(
        f"SELECT r.state, count(*) FROM results r{other} GROUP BY r.state", values
    ):
        out.states[state] = count
    if done := out.results - sum(out.states.values()):
        out.states["done"] = done
    for name, count in db.execute(
        "SELECT m.name, sum(n) FROM (SELECT r.model AS model, count(*) AS n FROM results r"
        f"{where(wanted)} GROUP BY r.model) JOIN models m ON m.id = model GROUP BY m.name",
        values,
    ):
        out.models[name] = count
    return out


def _limit(query: Query) -> int:
    return -1 if query.limit is None else max(0, query.limit)
