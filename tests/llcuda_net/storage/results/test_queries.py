"""Lists and counts read what they show, however many results there are and whatever is asked for.

Checked by what SQLite says that it does (EXPLAIN QUERY PLAN), and by the steps of its virtual
machine in stores of different sizes: never by time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import apsw
import pytest

from llcuda_net.storage.records import Result
from llcuda_net.storage.results import queries
from llcuda_net.storage.results.interface import Query, Retention
from llcuda_net.storage.results.sqlite import SqliteStore
from tests.support.storage.queries import every_query, mixed
from tests.support.storage.records import MODEL, SECOND, START, result


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqliteStore]:
    out = SqliteStore(tmp_path_factory.mktemp("mixed"), write=True)
    out.put(mixed(60))
    while out.update_index():
        pass
    yield out
    out.close()


# -- plans ------------------------------------------------------------------------------------


def statements(db: apsw.Connection, do: Callable[[], Any]) -> dict[str, Any]:
    """The statements that are executed, with values that they had."""
    seen: dict[str, Any] = {}

    def trace(_: apsw.Cursor, sql: str, values: Any) -> bool:
        seen[sql] = values
        return True

    db.exec_trace = trace
    try:
        do()
    finally:
        db.exec_trace = None
    return {sql: seen[sql] for sql in seen if sql.startswith(("SELECT", "DELETE", "UPDATE"))}


def bad_plans(db: apsw.Connection, found: dict[str, Any]) -> list[tuple[str, str]]:
    """Statements that go through all results, or sort what they find."""
    assert not db.execute("SELECT 1 FROM sqlite_schema WHERE name = 'sqlite_stat1'").get
    out = []
    for sql, values in found.items():
        for *_, step in db.execute(f"EXPLAIN QUERY PLAN {sql}", values):
            words = step.split()
            # In the order of time, from one end: whoever takes 50 rows reads 50.
            if words[0] == "SCAN" and "INDEX results_created" in step:
                continue
            if sql.endswith("NOT INDEXED ORDER BY seq DESC LIMIT 1"):  # the newest row
                continue
            scans = words[0] == "SCAN" and words[1] in ("r", "results")
            if scans or step == "USE TEMP B-TREE FOR ORDER BY":
                out.append((step, sql))
    return out


def test_no_list_goes_through_the_results(store: SqliteStore) -> None:
    def lists() -> None:
        for query in every_query():
            store.find(query)
            next(store.walk(query), None)
            next(store.export(query), None)

    seen = statements(store._db, lists)
    assert len(seen) > 50
    assert bad_plans(store._db, seen) == []


def test_nor_does_anything_else_that_a_client_asks(store: SqliteStore) -> None:
    def asks() -> None:
        for owner in (None, "", "ann", "nobody"):
            store.get("result-000003", owner)
            store.get("unknown", owner)
            store.delete("unknown", owner)
            store.find_cached(MODEL, b"unknown", owner or "")
            store.analyses.lag(3, owner)
            store.analyses.certainty_seq()
            store.search("number", Query(owner=owner))
            next(store.prune(Retention(before=START, owner=owner)), None)
        store.find_by_key("key 1", "ann")
        store.missing(["result-000001", "unknown"])
        store.reached()
        store.analyses.unembedded(3, 5)
        store.analyses.compute_certainty(lambda found: [])
        store.analyses.certainty("result-000001")
        store.search_index.lag()
        list(store.analyses.embeddings(1))

    store.search_index.attach()
    seen = statements(store._db, asks)
    assert len(seen) > 15
    assert bad_plans(store._db, seen) == []


# -- steps ------------------------------------------------------------------------------------


def steps(db: apsw.Connection, do: Callable[[], Any]) -> int:
    """Instructions of SQLite's virtual machine."""
    count = 0

    def one() -> bool:
        nonlocal count
        count += 1
        return False

    db.set_progress_handler(one, 1)
    try:
        do()
    finally:
        db.set_progress_handler(None)
    return count


def hostile(count: int) -> list[Result]:
    """Each filter alone selects much, and any two together nothing."""
    kinds = [("ann", "done", "demo"), ("bob", "failed", "other"), ("eve", "cancelled", "third")]
    return [
        result(n, tokens=1, owner=owner, state=state, model={**MODEL, "name": model})
        for n in range(count)
        for owner, state, model in [kinds[n % 3]]
    ]


def test_what_nothing_matches_costs_the_same_in_a_large_store(tmp_path: Path) -> None:
    for name in ("small", "large"):
        (tmp_path / name).mkdir()
    small, large = (
        SqliteStore(folder, write=True) for folder in (tmp_path / "small", tmp_path / "large")
    )
    small.put(hostile(90))
    large.put(hostile(3000))

    def taken(query: Query) -> list[int]:
        return [steps(one._db, lambda: one.find(query)) for one in (small, large)]  # noqa: B023

    some: dict[str, Any] = {"owner": "ann", "states": ("failed",), "model": "third"}
    for count in (2, 3):
        for names in combinations(some, count):
            few, many = taken(Query(**{name: some[name] for name in names}))
            assert few == many < 200, names
    # A page takes what its rows take, also deep in the list.
    few, many = taken(Query(states=("failed", "done"), limit=5, after="result-000060"))
    assert few == many
    small.close()
    large.close()


# -- counts -----------------------------------------------------------------------------------


def test_counts_are_kept_beside_the_results(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path, write=True)
    given = mixed(2 * queries.ZONE + 100)
    store.put(given)
    store.delete("result-001500")
    list(store.prune(Retention(before=START + 50 * SECOND)))
    there = {int(one.id[-6:]) + 1: one for one in store.export(Query(limit=None))}
    for owner in (None, "", "ann", "nobody"):
        mine = {seq: one for seq, one in there.items() if owner in (None, one.owner)}
        for seq in (0, 1, 60, 1000, 1023, 1024, 1025, 1500, 2047, 2048, 2100, 2148, 9999):
            wanted = sum(n > seq for n in mine)
            assert store.analyses.lag(seq, owner) == wanted, (owner, seq)
        sizes = "SELECT coalesce(sum(size), 0) FROM results WHERE ?1 IS NULL OR owner = ?1"
        assert queries.total_bytes(store._db, owner) == store._db.execute(sizes, (owner,)).get
    list(store.prune(Retention(max_bytes=0)))
    assert store._db.execute("SELECT count(*) FROM zones").get == 0
    assert store._db.execute("SELECT count(*) FROM owner_zones").get == 0
    store.close()


def test_a_time_is_a_range_of_numbers(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path, write=True)
    given = mixed(3 * queries.ZONE)
    store.put(given)
    for since, until in ((None, None), (1000, None), (None, 1500), (1100, 1200), (9999, None)):
        bounds = [None if n is None else START + n * SECOND for n in (since, until)]
        first, end = queries.range_of_time(store._db, *bounds)
        for seq, one in enumerate(given, 1):
            if all(
                (
                    bounds[0] is None or one.created >= bounds[0],
                    bounds[1] is None or one.created < bounds[1],
                )
            ):
                assert first <= seq < end
    assert queries.range_of_time(store._db, START + 9999 * SECOND, None) == (0, 0)
    assert queries.range_of_time(store._db, None, START + SECOND) == (0, queries.ZONE)
    store.close()
