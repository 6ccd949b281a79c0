"""Reading results.db: lists, pages and figures. Every statement here is short and uses an index."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from heapq import merge
from itertools import islice
from typing import Any

import apsw

from llcuda_net.errors import StorageError
from llcuda_net.storage.results.connection import rows
from llcuda_net.storage.results.interface import Query, Stats, Summary

#: Rows read by one statement of a long walk: between statements nothing is held.
_PAGE = 200
#: Rows that a page of the file may hold, at most.
_ROWS_PER_PAGE = 32
#: Results' numbers in a zone.
ZONE = 1024
#: What SQLite's integers can be.
_LEAST, _MOST = -(2**63), 2**63 - 1


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
    states = list(query.states)
    if states:
        out.append(f"r.state IN ({','.join('?' * len(states))})")
        values += states
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


def listed(
    db: apsw.Connection, query: Query, after: tuple[int, int] | None = None
) -> list[tuple[int, int]]:
    """Times of creation and numbers of the matching results, in the order of the query.

    Args:
        after: continue after this one of them, instead of `query.after`.
    """
    if after is None and query.after is not None:
        after = _place(db, query.after)
        if after is None:
            return []
    order = "ASC" if query.ascending else "DESC"
    return list(islice(_in_order(db, query, after, order), _limit(query)))


def oldest(
    db: apsw.Connection, query: Query, after: tuple[int, int] | None = None
) -> list[tuple[int, int]]:
    """As `listed`, oldest first; `query.after` is ignored."""
    return list(islice(_in_order(db, query, after, "ASC"), _limit(query)))


def places(db: apsw.Connection, seqs: Iterable[int], query: Query) -> list[int]:
    """These numbers in the order of a list, without those before its place `after`."""
    sql = "SELECT created, seq FROM results WHERE seq = ?"
    found = [row for seq in seqs for row in _checked(db.execute(sql, (seq,)))]
    if query.after is not None:
        after = _place(db, query.after)
        found = [row for row in found if after is not None and row < after]
    return [seq for _, seq in sorted(found, reverse=True)]


def _place(db: apsw.Connection, name: str) -> tuple[int, int] | None:
    """Where a result is in the order of time."""
    found = db.execute("SELECT created, seq FROM results WHERE id = ?", (name,)).get
    if found is None:
        return None
    ((created, seq),) = integers([found])
    return created, seq


def _in_order(
    db: apsw.Connection, query: Query, after: tuple[int, int] | None, order: str
) -> Iterator[tuple[int, int]]:
    """The matching results after a place, in the order of time: a merge of groups.

    However rare what is asked for is, this reads no more of an index than it gives, and one entry
    of each group. (One range of an index would do for one state and one owner; but most of an
    owner's results may be of another state, and most of a state's of other owners.)
    """
    low = (_LEAST, _LEAST) if query.since is None else (query.since - 1, _MOST)
    high = (_MOST, _MOST) if query.until is None else (query.until, _LEAST)
    if after is not None:
        low, high = (low, min(high, after)) if order == "DESC" else (max(low, after), high)
    bounds: list[str] = []
    places: list[int] = []
    for bound, sign, none in ((low, ">", _LEAST), (high, "<", _MOST)):
        if bound != (none, none):
            bounds.append(f"(r.created, r.seq) {sign} (?, ?)")
            places += bound
    found = []
    for index, wanted, values in _groups(db, query):
        sql = (
            f"SELECT r.created, r.seq FROM results r{index}{where([*wanted, *bounds])}"
            f" ORDER BY r.created {order}, r.seq {order}"
        )
        found.append(_checked(db.execute(sql, [*values, *places])))
    return merge(*found, reverse=order == "DESC")


def _checked(found: Iterable[tuple[Any, ...]]) -> Iterator[tuple[int, int]]:
    for row in found:
        integers([row])
        yield row[0], row[1]


def _groups(db: apsw.Connection, query: Query) -> Iterator[tuple[str, list[str], list[Any]]]:
    """Ranges of an index that are together what a query selects, apart from the time.

    Of each: the clause that names the index, the conditions, and their values.
    """
    if query.id is not None:
        yield "", *conditions(replace(query, since=None, until=None))
        return
    if query.owner is None and query.model is None and not query.states:
        yield _by(db, "results_created"), [], []
        return
    index = _by(db, "results_listed" if query.owner is None else "results_owned")
    wanted: list[str] = [] if query.owner is None else ["r.owner = ?"]
    values: list[Any] = [] if query.owner is None else [query.owner]
    states = list(dict.fromkeys(query.states))
    models = None
    if query.model is not None:
        sql = "SELECT id FROM models WHERE name = ? ORDER BY id"
        models = [row[0] for row in rows(db, sql, (query.model,))]
    for state in states or _distinct(db, index, "r.state", wanted, values, str):
        of_state = [*wanted, "r.state = ?"], [*values, state]
        for model in models or _distinct(db, index, "r.model", *of_state, int):
            yield index, [*of_state[0], "r.model = ?"], [*of_state[1], model]


def _by(db: apsw.Connection, index: str) -> str:
    """The clause that names an index; empty for a store of an earlier version, without it."""
    sql = "SELECT 1 FROM sqlite_schema WHERE type = 'index' AND name = ?"
    return f" INDEXED BY {index}" if db.execute(sql, (index,)).get else ""


def _distinct(
    db: apsw.Connection,
    index: str,
    column: str,
    wanted: list[str],
    values: list[Any],
    kind: type[Any],
) -> Iterator[Any]:
    """The values of a column of an index, of which the columns before it are given: one seek each.

    Raises:
        StorageError: the index is damaged.
    """
    last = None
    while True:
        beyond = wanted if last is None else [*wanted, f"{column} > ?"]
        sql = f"SELECT min({column}) FROM results r{index}{where(beyond)}"
        found = db.execute(sql, values if last is None else [*values, last]).get
        if found is None:
            return
        if type(found) is not kind or (last is not None and found <= last):
            raise out_of_order("the index of results")
        yield found
        last = found


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
    at = None if query.after is None else _place(db, query.after)
    if at is None and query.after is not None:
        return
    left = _limit(query)
    while left != 0:
        size = _PAGE if left is None else min(_PAGE, left)
        page = oldest(db, replace(query, limit=size), at)
        if not page:
            return
        left = None if left is None else left - len(page)
        yield from page
        if at is not None and page[-1] <= at:
            raise out_of_order("the index of results")
        at = page[-1]


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
    out = Stats()
    index = _by(db, "results_listed" if owner is None else "results_owned")
    wanted, values = conditions(Query(owner=owner))
    names = dict(rows(db, "SELECT id, name FROM models"))
    for state, model, count, oldest, latest in db.execute(
        "SELECT r.state, r.model, count(*), min(r.created), max(r.created)"
        f" FROM results r{index}{where(wanted)} GROUP BY r.state, r.model",
        values,
    ):
        out.results += count
        out.states[state] = out.states.get(state, 0) + count
        if model in names:
            out.models[names[model]] = out.models.get(names[model], 0) + count
        out.oldest = oldest if out.oldest is None else min(out.oldest, oldest)
        out.newest = latest if out.newest is None else max(out.newest, latest)
    return out


class Added:
    """Counts results that are inserted, by zone and owner, in the transaction that does it."""

    def __init__(self) -> None:
        self._zones: dict[int, tuple[int, int, int, int]] = {}
        self._owners: Counter[tuple[str, int]] = Counter()

    def __repr__(self) -> str:
        return f"<Added {self._owners.total()} results in {len(self._zones)} zones>"

    def add(self, seq: int, owner: str, created: int, size: int) -> None:
        """A result was inserted."""
        zone = seq // ZONE
        count, total, first, last = self._zones.get(zone, (0, 0, created, created))
        self._zones[zone] = count + 1, total + size, min(first, created), max(last, created)
        self._owners[owner, zone] += 1

    def count(self, db: apsw.Connection) -> None:
        """Write the counts."""
        db.executemany(
            "INSERT INTO zones VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
            " results = results + excluded.results, bytes = bytes + excluded.bytes,"
            " first = min(first, excluded.first), last = max(last, excluded.last)",
            [(zone, *counts) for zone, counts in self._zones.items()],
        )
        db.executemany(
            "INSERT INTO owner_zones VALUES (?, ?, ?)"
            " ON CONFLICT DO UPDATE SET results = results + excluded.results",
            [(*key, count) for key, count in self._owners.items()],
        )


def count_after(db: apsw.Connection, seq: int, owner: str | None = None) -> int:
    """How many results have a greater number than this, of an owner (None: of all).

    Of whole zones that is known; the rest of one is counted.
    """
    mine, values = ("", []) if owner is None else (" AND owner = ?", [owner])
    end, more = _MOST, 0
    if _has_zones(db):
        zone = 0 if seq <= 0 else (seq + ZONE) // ZONE  # no result has the number 0
        end = zone * ZONE
        table = "zones" if owner is None else "owner_zones"
        sql = f"SELECT coalesce(sum(results), 0) FROM {table} WHERE zone >= ?{mine}"
        more = db.execute(sql, (zone, *values)).get
    sql = f"SELECT count(*) FROM results NOT INDEXED WHERE seq > ? AND seq < ?{mine}"
    return int(db.execute(sql, (seq, end, *values)).get + more)


def total_bytes(db: apsw.Connection, owner: str | None) -> int:
    """Bytes of all results, of an owner (None: of all)."""
    if owner is None and _has_zones(db):
        sql = "SELECT coalesce(sum(bytes), 0) FROM zones"
        return int(db.execute(sql).get)
    sql = "SELECT coalesce(sum(size), 0) FROM results WHERE ?1 IS NULL OR owner = ?1"
    return int(db.execute(sql, (owner,)).get)


def range_of_time(db: apsw.Connection, since: int | None, until: int | None) -> tuple[int, int]:
    """Numbers, as a half-open range, among which are those of all results of a time."""
    if (since is None and until is None) or not _has_zones(db):
        return 0, _MOST
    sql = "SELECT min(zone), max(zone) FROM zones WHERE last >= ? AND first < ?"
    low, high = (_LEAST if since is None else since), (_MOST if until is None else until)
    first, last = db.execute(sql, (low, high)).get
    return (0, 0) if first is None else (first * ZONE, (last + 1) * ZONE)


def _has_zones(db: apsw.Connection) -> bool:
    """Whether the store has them: one of an earlier version, which is only read, has not."""
    sql = "SELECT 1 FROM main.sqlite_schema WHERE type = 'table' AND name = 'zones'"
    return db.execute(sql).get is not None


def _limit(query: Query) -> int | None:
    """At most so many results; None: all."""
    return None if query.limit is None else max(0, query.limit)
