"""Both stores find the same results for the same words, and keep the same of each."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from llcuda_net.storage.postgres import search
from llcuda_net.storage.postgres.store import PostgresStore
from llcuda_net.storage.records import Result, TokenLog
from llcuda_net.storage.results import search_index
from llcuda_net.storage.results.interface import Query, Retention, Store
from llcuda_net.storage.results.sqlite import SqliteStore
from tests.support.storage.postgres import Postgres
from tests.support.storage.queries import STATES
from tests.support.storage.records import MODEL, START, result

WORDS = [
    "slot",
    "slots",
    "sequence",
    "Straße",
    "Zürich",
    "東京都",
    "京都",
    "서울에서",
    "กรุงเทพ",
    "👋",
    "a-b",
]
ASKED = [
    "slot",
    "slot*",
    "s*",
    "straße",
    "zurich",
    "東京",
    "京都",
    "都",
    "서울",
    "เทพ",
    "👋",
    "a b",
]
ASKED += [
    '"slot sequence"',
    "slot OR 京都",
    '"slot 東京"',
    "slot -sequence",
    "東京 slot",
    '"a b slot"',
]


def texts(rng: random.Random) -> str:
    return "".join(rng.choice(WORDS) + rng.choice([" ", ", ", "", "\n"]) for _ in range(6))


def some(count: int) -> list[Result]:
    rng = random.Random(5)
    return [
        result(
            n,
            created=START + rng.randrange(40),
            request={"messages": [{"role": "user", "content": texts(rng)}]},
            log=TokenLog([texts(rng), texts(rng)], [None, 1]),
            owner=rng.choice(["", "ann", "bob"]),
            state=rng.choice(STATES),
            model={**MODEL, "name": rng.choice(["demo", "other"])},
        )
        for n in range(count)
    ]


@pytest.fixture
def both(postgres: Postgres, tmp_path: Path) -> Iterator[tuple[Store, Store]]:
    stores: tuple[Store, Store] = (
        SqliteStore(tmp_path, write=True),
        PostgresStore(postgres.new_database(), write=True),
    )
    for store in stores:
        store.put(some(120))
        while store.update_index():
            pass
    yield stores
    for store in stores:
        store.close()


def test_the_same_is_found_and_shown(both: tuple[Store, Store]) -> None:
    queries = [Query(limit=None), Query(limit=None, owner="ann"), Query(limit=None, model="other")]
    queries += [Query(limit=None, states=["failed", "cancelled"], until=START + 20)]
    hits = 0
    for words in ASKED:
        for query in queries:
            one, other = (
                sorted(
                    (replace(hit, score=0) for hit in store.search(words, query)),
                    key=lambda hit: hit.summary.id,
                )
                for store in both
            )
            assert one == other, words
            hits += len(one)
            walked = [[*store.walk(query, words)] for store in both]
            assert walked[0] == walked[1]
            assert {found.id for found in walked[0]} == {hit.summary.id for hit in one}
    assert hits > 500


def test_pages_of_a_walk_with_words(
    both: tuple[Store, Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    sqlite, postgres = both
    monkeypatch.setattr(search, "_PAGE", 3)
    wanted = [*sqlite.walk(Query(), "slot*")]
    assert [*postgres.walk(Query(), "slot*")] == wanted
    after = Query(after=wanted[4].id)
    assert [*postgres.walk(after, "slot*")] == wanted[5:] == [*sqlite.walk(after, "slot*")]
    assert [*postgres.walk(Query(after="nothing"), "slot*")] == []


def test_of_very_many_matches_the_newest_are_compared(
    both: tuple[Store, Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (search, search_index):
        monkeypatch.setattr(module, "_COMPARED", 10)
    one, other = ({hit.summary.id for hit in store.search("s*", Query(limit=10))} for store in both)
    assert one == other
    for store in both:
        assert {hit.of_newest for hit in store.search("s*", Query(limit=5))} == {10}
        assert {hit.of_newest for hit in store.search("s*", Query(limit=None))} == {None}


def test_counts_and_plans_are_the_same(both: tuple[Store, Store]) -> None:
    sqlite, postgres = both
    for owner in (None, "", "ann", "nobody"):
        one, other = (replace(store.stats(owner), bytes=0) for store in both)
        assert one == other
    # Bodies are as large, names of them apart: so what fits is nearly the same.
    for retention in (
        Retention(before=START + 20),
        Retention(before=START + 20, owner="ann"),
        Retention(max_bytes=0, owner="bob"),
        Retention(before=START + 5, max_bytes=0),
    ):
        assert sqlite.plan(retention) == postgres.plan(retention)
    rooms = {sqlite.plan(Retention(max_bytes=room)).results for room in range(0, 10**5, 4001)}
    assert rooms == {
        postgres.plan(Retention(max_bytes=room)).results for room in range(0, 10**5, 4001)
    }
    assert len(rooms) > 5
