"""What somebody changes in the database is noticed wherever it would be shown."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from llcuda_net.errors import ResultDamaged
from llcuda_net.storage.postgres.store import PostgresStore
from llcuda_net.storage.records import hash_of
from llcuda_net.storage.results.interface import DAMAGED, Problem, Query, Retention
from tests.support.storage.analyses import certain, with_logprobs
from tests.support.storage.postgres import Postgres
from tests.support.storage.records import MODEL, START, result

LONG = {"prompt": "A text that is long enough to be a body. " * 50}


@pytest.fixture
def url(postgres: Postgres) -> str:
    return postgres.new_database()


@pytest.fixture
def store(url: str) -> Iterator[PostgresStore]:
    out = PostgresStore(url, write=True)
    out.put([result(n, request=LONG, log=with_logprobs(n), key=f"k{n}") for n in (1, 2)])
    out.put([result(3)])
    while out.update_index():
        pass
    yield out
    out.close()


def damage(url: str, sql: str) -> None:
    with psycopg.connect(url) as connection:
        assert connection.execute(f"SET search_path = llcuda; {sql}").nextset() is not None


def problems(store: PostgresStore) -> list[Problem]:
    return [one for one in store.verify() if one is not None]


@pytest.mark.parametrize(
    "change",
    [
        "owner = 'eve'",
        "created = created + 1",
        "key = 'other'",
        "request_hash = 'x'",
        "meta = 'x'",
        "input = ''",
        r"input = '\x02'",
        r"log = '\x0142'",
        "logprobs = NULL",
        "hash = ''",
        "model = 77",
        "bodies = ''",
        r"key = '\xff'",
    ],
)
def test_a_whole_result_is_checked(store: PostgresStore, url: str, change: str) -> None:
    name = result(1).id
    damage(url, f"UPDATE results SET {change} WHERE id = '{name}'")
    with pytest.raises(ResultDamaged) as caught:
        store.get(name)
    assert caught.value.result == name
    assert name in {one.id for one in problems(store)}
    assert store.missing([name, result(3).id]) == {name}
    noted: list[Problem] = []
    exported = [one.id for one in store.export(Query(limit=None), noted)]
    assert exported == [result(2).id, result(3).id]
    assert [one.id for one in noted] == [name]
    with pytest.raises(ResultDamaged):
        list(store.export(Query(limit=None)))
    assert store.find_cached(MODEL, hash_of(1)) is None
    whole = result(1, request=LONG, log=with_logprobs(1), key="k1")
    store.put([whole])  # what is damaged is replaced
    assert store.get(name) == whole
    # If its bodies are not known, they stay.
    assert (problems(store) == []) == (change != "bodies = ''")


@pytest.mark.parametrize(
    "change",
    [
        "owner = 'eve'",
        "state = 'x'",
        "created = 5",
        r"preview = '\xff'",
        "beginning = ''",
        "model = 9",
    ],
)
def test_what_a_list_shows_is_checked(store: PostgresStore, url: str, change: str) -> None:
    damage(url, f"UPDATE results SET {change} WHERE id = '{result(1).id}'")
    states = {one.id: one.state for one in store.find(Query())}
    assert states == {result(1).id: DAMAGED, result(2).id: "done", result(3).id: "done"}
    assert 1 not in store.analyses.summaries([1, 2])
    # It cannot be known how old it is, or whose.
    (step,) = store.prune(Retention(before=START * 2))
    assert (step.results, step.damaged) == (2, 1)
    assert [one.id for one in store.find(Query())] == [result(1).id]
    assert store.delete(result(1).id) is not None


def test_a_body_is_checked_and_mended_when_it_comes_again(store: PostgresStore, url: str) -> None:
    damage(url, r"UPDATE bodies SET data = '\x0061'")
    assert {one.id for one in problems(store)} == {"", result(1).id, result(2).id}
    store.put([result(4, request=LONG)])
    assert problems(store) == []
    damage(url, "UPDATE bodies SET uses = 7")
    (problem,) = problems(store)
    assert "is used by 3 results, and counts 7" in problem.message
    damage(url, "DELETE FROM bodies")
    assert len(problems(store)) == 4  # three results, and what they use
    with pytest.raises(ResultDamaged, match="not there"):
        store.get(result(1).id)


def test_analyses_are_checked_and_made_again(store: PostgresStore, url: str) -> None:
    while store.analyses.compute_certainty(certain):
        pass
    space = store.analyses.open_space(MODEL, 1, 1)
    store.analyses.embed(space.id, 3, [(n, 1.0, bytes([n])) for n in (1, 2, 3)])
    damage(url, "UPDATE certainty SET tokens = 9 WHERE seq = 1")
    damage(url, "UPDATE embeddings SET scale = 2 WHERE seq = 2")
    assert store.analyses.certainty(result(1).id) is None
    assert store.analyses.certainty(result(2).id) is not None
    assert [one.seq for page in store.analyses.embeddings(space.id) for one in page] == [1, 3]
    assert [one.seq for one in store.analyses.unembedded(3, 9, space.id)] == [2]
    store.analyses.embed(space.id, 3, [(2, 1.0, b"\x02")])
    assert [one.seq for page in store.analyses.embeddings(space.id) for one in page] == [1, 3, 2]
    assert store.analyses.unembedded(3, 9, space.id) == []


def test_one_that_is_damaged_keeps_no_other_from_being_found(
    store: PostgresStore, url: str
) -> None:
    damage(url, "UPDATE results SET meta = 'x' WHERE seq = 1; UPDATE progress SET indexed = 0")
    damage(url, "DELETE FROM terms")
    while store.update_index():
        pass
    found = {hit.summary.id for hit in store.search("number OR text", Query())}
    assert found == {result(2).id, result(3).id}
    damage(url, "UPDATE results SET meta = 'x' WHERE seq = 2")
    states = {hit.summary.id: hit.summary.state for hit in store.search("text", Query())}
    assert states == {result(2).id: DAMAGED}
