"""What is computed of results, in any store: cursors, spaces, and what a prune leaves of it."""

from __future__ import annotations

from typing import Any

import pytest

from llcuda_net.storage.records import Logprobs
from llcuda_net.storage.results.buckets import ALL
from llcuda_net.storage.results.interface import CertaintyStats, Document, Retention, Store
from tests.llcuda_net.storage.results.contract.conftest import Factory
from tests.support.storage.analyses import certain, with_logprobs
from tests.support.storage.records import MODEL, SECOND, START, result


def test_figures_are_of_results_with_log_probabilities(
    stores: tuple[Store, Store],
) -> None:
    store, reading = stores
    store.put([result(n, log=with_logprobs(n)) if n % 2 else result(n) for n in range(1, 6)])
    seen: list[int] = []

    def compute(found: list[Logprobs]) -> list[CertaintyStats]:
        seen.append(len(found))
        return certain(found)

    while store.analyses.compute_certainty(compute):
        pass
    assert sum(seen) == 3
    assert reading.analyses.certainty("result-000003") == CertaintyStats(
        2, 3.0, None, 0.5, (0, 1), 2.0
    )
    assert reading.analyses.certainty("result-000002") is None
    assert reading.analyses.certainty("nothing") is None
    assert reading.analyses.certainty_seq() == 5
    assert not store.analyses.compute_certainty(compute)
    assert sum(seen) == 3


def test_figures_that_fail_leave_the_cursor(store: Store) -> None:
    store.put([result(1, log=with_logprobs(1))])

    def broken(found: list[Logprobs]) -> list[CertaintyStats]:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        store.analyses.compute_certainty(broken)
    assert store.analyses.certainty_seq() == 0
    store.analyses.compute_certainty(certain)
    assert store.analyses.certainty("result-000001") is not None


def test_a_space_goes_as_far_as_its_cursor(stores: tuple[Store, Store]) -> None:
    store, reading = stores
    store.put([result(n) for n in range(1, 6)])
    analyses = store.analyses
    assert analyses.spaces() == []
    space = analyses.open_space(MODEL, 3, 1)
    found = analyses.unembedded(space.seq, 2)
    assert [one.seq for one in found] == [1, 2]
    assert found[0] == Document(1, "", "What is number 1?", result(1).text)
    analyses.embed(space.id, 2, [(1, 0.5, b"abc")])  # the second has none
    (now,) = reading.analyses.spaces()
    assert (now.id, now.model, now.dim, now.recipe, now.seq) == (space.id, MODEL, 3, 1, 2)
    analyses.embed(space.id, 2, [(1, 0.25, b"xyz")])  # cut off and done again
    analyses.embed(space.id, 1, [])
    (now,) = analyses.spaces()
    assert now.seq == 2
    ((one,),) = analyses.embeddings(space.id)
    assert (one.seq, one.scale, one.codes) == (1, 0.5, b"abc")
    assert analyses.count(space.id) == 1
    assert analyses.lag(now.seq) == 3


def test_what_was_computed_says_whose_it_is(store: Store) -> None:
    store.put([result(n, owner=["ann", "bob"][n % 2]) for n in range(1, 6)])
    assert [one.owner for one in store.analyses.unembedded(0, 3)] == ["bob", "ann", "bob"]
    space = store.analyses.open_space(MODEL, 1, 1)
    store.analyses.embed(space.id, 2, [(1, 1.0, b"a"), (2, 1.0, b"b")])
    ((one, two),) = store.analyses.embeddings(space.id)
    assert [(one.seq, one.owner), (two.seq, two.owner)] == [(1, "bob"), (2, "ann")]
    assert [*store.analyses.embeddings(space.id, one.id)] == [[two]]
    assert [*store.analyses.embeddings(space.id, two.id)] == []
    assert [store.analyses.lag(2, owner) for owner in ("ann", "bob", "", None)] == [1, 2, 0, 3]


def test_a_part_of_them_is_read(store: Store) -> None:
    store.put([result(n, owner=["ann", "bob"][n % 2]) for n in range(1, 9)])
    space = store.analyses.open_space(MODEL, 1, 1)
    store.analyses.embed(space.id, 8, [(n, 1.0, b"a") for n in (2, 1, 3, 4, 8, 6, 5)])
    ids = {one.seq: one.id for page in store.analyses.embeddings(space.id) for one in page}

    def seqs(after: int = 0, **part: Any) -> list[int]:
        return [
            one.seq for page in store.analyses.embeddings(space.id, after, **part) for one in page
        ]

    assert seqs(buckets=ALL) == [2, 1, 3, 4, 8, 6, 5]
    assert seqs(buckets=0) == []
    assert seqs(buckets=1 << 8 | 1 << 1 | 1 << 7 | 1 << 1023) == [1, 8]
    assert seqs(ids[1], buckets=ALL & ~(1 << 4)) == [3, 8, 6, 5]
    assert seqs(ids[1], upto=ids[8]) == [3, 4, 8]
    assert seqs(owner="bob", buckets=ALL & ~(1 << 5)) == [1, 3]
    assert seqs(owner="carl") == []


def test_spaces_are_apart_and_the_newest_comes_first(store: Store) -> None:
    store.put([result(1)])
    one = store.analyses.open_space({"name": "a"}, 2, 1)
    two = store.analyses.open_space({"name": "b"}, 2, 1)
    store.analyses.embed(one.id, 1, [(1, 1.0, b"aa")])
    store.analyses.embed(two.id, 1, [(1, 1.0, b"bb")])
    assert [space.id for space in store.analyses.spaces()] == [two.id, one.id]
    assert [page[0].codes for page in store.analyses.embeddings(two.id)] == [b"bb"]
    store.analyses.update_model(one, {"name": "a", "hash": "1"})
    assert store.analyses.spaces()[1].model == {"name": "a", "hash": "1"}


def test_what_was_added_while_its_result_went_is_not_found(store: Store) -> None:
    store.put([result(1)])
    space = store.analyses.open_space(MODEL, 1, 1)
    list(store.prune(Retention(before=START + 9 * SECOND)))
    store.analyses.embed(space.id, 1, [(1, 1.0, b"a")])
    assert list(store.analyses.embeddings(space.id)) == []


def test_summaries_have_the_beginning_of_the_text(store: Store) -> None:
    store.put([result(1, tokens=500)])
    ((summary, text),) = store.analyses.summaries([1, 7]).values()
    assert summary.id == "result-000001"
    assert len(text) == 200
    assert result(1, tokens=500).text.strip().startswith(text)


def test_a_deleted_result_takes_its_analysis_with_it(stores: tuple[Store, Store]) -> None:
    store, reading = stores
    store.put([result(n, log=with_logprobs(n)) for n in (1, 2, 3)])
    while store.analyses.compute_certainty(certain):
        pass
    space = store.analyses.open_space(MODEL, 1, 1)
    store.analyses.embed(space.id, 3, [(n, 1.0, bytes([n])) for n in (1, 2, 3)])
    list(store.prune(Retention(before=START + 2 * SECOND)))
    store.delete(result(2).id)
    ((left,),) = reading.analyses.embeddings(space.id)
    assert left.codes == b"\x03"
    assert reading.analyses.count(space.id) == 1
    assert reading.analyses.certainty(result(1).id) is None
    assert reading.analyses.certainty(result(2).id) is None
    assert reading.analyses.certainty(result(3).id) is not None
    assert len(reading.analyses.summaries([1, 2, 3])) == 1


def test_two_that_compute_the_same_add_it_once(factory: Factory) -> None:
    one, other = factory(True), factory(True)
    one.put([result(n, log=with_logprobs(n)) for n in (1, 2)])

    def meanwhile(found: list[Logprobs]) -> list[CertaintyStats]:
        other.analyses.compute_certainty(certain)
        return certain(found)

    while one.analyses.compute_certainty(meanwhile):
        pass
    assert one.analyses.certainty_seq() == 2
    assert one.analyses.certainty(result(1).id) == certain([with_logprobs(1).logprobs or []])[0]
    space = one.analyses.open_space(MODEL, 1, 1)
    for store in (one, other):
        store.analyses.embed(space.id, 2, [(1, 1.0, b"a"), (2, 1.0, b"b")])
    assert one.analyses.count(space.id) == 2
