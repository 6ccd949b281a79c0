"""Reading results.db: lists, pages and figures. Every statement here is short and uses an index."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import apsw

from llcuda_net.errors import StorageError
from llcuda_net.storage.results.connection import rows
from llcuda_net.storage.results.interface import Query, Stats, Summary

#: Rows read by one statement of a long walk: between statements nothing is held.
_PAGE = 200
#: Rows that a page of the file may hold, at most.
_ROWS_PER_PAGE = 32


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


def matches(query: Query, found: Summary) -> bool:
    """Whether a result is of a query, its place in the list apart."""
    return (
        query.id in (None, found.id)
        and query.model in (None, found.model)
        and (query.since is None or found.created >= query.since)
        and (query.until is None or found.created < query.until)
        and query.owner in (None, found.owner)
        and (not query.states or found.state in query.states)
    )


def newest(
    db: apsw.Connection, query: Query, after: tuple[int, int] | None = None
) -> list[tuple[int, int]]:
    """Times of creation and numbers of the matching results, newest first.

    Args:
        after: continue after this one of them, instead of `query.after`.
    """
    wanted, values = conditions(query)
    if after is not None:
        wanted.append("(r.created, r.seq) < (?, ?)")
        values += after
    elif query.after is not None:
        wanted.append("(r.created, r.seq) < (SELECT created, seq FROM results WHERE id = ?)")
        values.append(query.after)
    sql = (
        f"SELECT r.created, r.seq FROM results r{where(wanted)}"
        " ORDER BY r.created DESC, r.seq DESC LIMIT ?"
    )
    return [(row[0], row[1]) for row in integers(rows(db, sql, [*values, _limit(query)]))]


def integers(page: list[tuple[Any, ...]]) -> list[tuple[int, ...]]:
    """The rows of an index, if they are what it holds: damage may change the type of a column.

    Raises:
        StorageError: they are not.
    """
    if not all(type(value) is int for row in page for value in row):
        raise out_of_order("the index of results")
    return page


def out_of_order(what: str) -> StorageError:
    """The error for rows that do not come in order: a walk that went on there might never end."""
    return StorageError(
        f"{what} is damaged: its rows are not in order; restore it from a backup",
        StorageError.DAMAGED,
    )


def sequence(db: apsw.Connection, query: Query) -> Iterator[tuple[int, int]]:
    """Times of creation and numbers of results that match, oldest first."""
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
        page = integers(rows(db, sql, [*values, *at, count]))
        if not page:
            return
        left -= len(page) if left > 0 else 0
        yield from ((row[0], row[1]) for row in page)
        if (page[-1][0], page[-1][1]) <= at:
            raise out_of_order("the index of results")
        at = (page[-1][0], page[-1][1])


def numbers(db: apsw.Connection, last: int) -> Iterator[int]:
    """Numbers of results up to `last`, from the table itself.

    Where the table is damaged, the numbers from there on, whether there is a result or not: rows in
    other parts of it can still be read.
    """
    at = 0
    sql = "SELECT seq FROM results NOT INDEXED WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ?"
    while at < last:
        try:
            page = [row[0] for row in rows(db, sql, (at, last, _PAGE))]
            if page and page[-1] <= at:
                raise apsw.CorruptError("out of order")
        except apsw.CorruptError:
            pages = int(db.execute("PRAGMA page_count").get)
            yield from range(at + 1, min(last, at + pages * _ROWS_PER_PAGE) + 1)
            return
        if not page:
            return
        yield from page
        at = page[-1]


def last_number(db: apsw.Connection) -> int:
    """The greatest number that a result has had."""
    last = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'results'").get
    return last if isinstance(last, int) and last > 0 else 0


def indexed(db: apsw.Connection, created: int, seq: int) -> bool:
    """Whether the index by time has this result."""
    sql = "SELECT 1 FROM results INDEXED BY results_created WHERE created = ? AND seq = ?"
    return db.execute(sql, (created, seq)).get is not None


def pages(db: apsw.Connection, sql: str) -> Iterator[tuple[Any, ...]]:
    """All rows of a statement that takes the last row's first column and gives the next rows."""
    last = 0
    while page := rows(db, sql, (last,)):
        yield from page
        if page[-1][0] <= last:
            raise out_of_order("a table")
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
