"""Search by words, where very many results match, and what the index knows besides words."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from llcuda_net.storage.records import TokenLog
from llcuda_net.storage.results import search_index
from llcuda_net.storage.results.interface import Query
from llcuda_net.storage.results.sqlite import SqliteStore
from tests.llcuda_net.storage.results.test_queries import statements, steps
from tests.support.storage.records import MODEL, SECOND, START, result

COMPARED = 20


def numbers(found: list[str]) -> list[int]:
    return [int(name.removeprefix("result-")) for name in found]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SqliteStore]:
    """A hundred results with "common", every tenth with "rare"; number 5 has it most often."""
    monkeypatch.setattr(search_index, "_COMPARED", COMPARED)
    monkeypatch.setattr(search_index, "_SAMPLE", 10)
    out = SqliteStore(tmp_path, write=True)
    fill(out, 100)
    yield out
    out.close()


def fill(store: SqliteStore, count: int) -> None:
    store.put(
        [
            result(
                n,
                log=TokenLog([" common"] * (9 if n in (5, 85) else 1) + [" rare"] * (n % 10 == 0)),
                owner=("ann", "bob")[n % 2],
                state="failed" if n % 25 == 0 else "done",
                model={**MODEL, "name": "other"} if n % 20 == 0 else MODEL,
            )
            for n in range(count)
        ]
    )
    while store.update_index():
        pass


def test_of_very_many_matches_the_newest_are_compared(store: SqliteStore) -> None:
    hits = store.search("common", Query(limit=3))
    assert numbers([hit.summary.id for hit in hits])[0] == 85
    assert {hit.of_newest for hit in hits} == {COMPARED}
    assert all(number >= 80 for number in numbers([hit.summary.id for hit in hits]))
    # All of them, if all are asked for, or so many.
    assert len(store.search("common", Query(limit=None))) == 100
    hits = store.search("common", Query(limit=60))
    assert (len(hits), hits[0].of_newest) == (60, 60)
    # Few are all compared.
    hits = store.search("common rare", Query())
    assert (len(hits), hits[0].of_newest) == (10, None)


def test_filters_are_of_the_index_itself(store: SqliteStore) -> None:
    def found(query: Query) -> list[int]:
        return sorted(numbers([hit.summary.id for hit in store.search("common", query)]))

    assert found(Query(states=["failed"])) == [0, 25, 50, 75]
    assert found(Query(states=["failed"], owner="bob")) == [25, 75]
    assert found(Query(states=["failed", "cancelled"], model="other")) == [0]
    assert found(Query(model="other")) == [0, 20, 40, 60, 80]
    assert found(Query(owner="nobody")) == []
    assert found(Query(until=START + 3 * SECOND)) == []  # not among the newest of the zone
    assert found(Query(until=START + 3 * SECOND, limit=None)) == [0, 1, 2]
    assert store.search("o*", Query(owner="nobody")) == []


def test_no_word_finds_what_is_no_word_of_a_text(store: SqliteStore) -> None:
    store.search_index.attach()
    tags = store.search_index._matching([], Query(states=["done"]))[1][0]
    word = tags[tags.index("\ue000") :].strip('"() ')
    assert list(store._db.execute("SELECT 1 FROM derived.terms WHERE terms MATCH ?", (word,)))
    assert store.search(f"common OR {word}", Query(limit=None)) != []
    assert numbers([hit.summary.id for hit in store.search(word + " rare", Query())]) == []


def test_a_list_with_words_is_in_order_of_time(store: SqliteStore) -> None:
    for words in ("common", "rare", "c* -", "common rare"):
        every = 10 if "rare" in words else 1
        wanted = list(range(99 - 99 % every, -1, -every))
        assert numbers([one.id for one in store.walk(Query(), words)]) == wanted
        after = Query(after="result-000050")
        assert numbers([one.id for one in store.walk(after, words)]) == [
            n for n in wanted if n < 50
        ]
    assert numbers([one.id for one in store.walk(Query(owner="bob", limit=1), "common")])[:2] == [
        99,
        97,
    ]


def test_a_search_takes_the_same_in_a_larger_store(store: SqliteStore, tmp_path: Path) -> None:
    (tmp_path / "large").mkdir()
    large = SqliteStore(tmp_path / "large", write=True)
    fill(large, 2000)
    for words in ("common", "com*"):
        taken = []
        for one in (store, large):
            one.search(words, Query(limit=5))  # which attaches the file
            taken.append(steps(one._db, lambda: one.search(words, Query(limit=5))))  # noqa: B023
        assert taken[1] < 1.5 * taken[0]  # SQLite's own b-trees are deeper
    sql = statements(large._db, lambda: large.search("common", Query(limit=5)))
    assert not any("bm25" in text or "rank" in text for text in sql)  # which count everything
    large.close()
