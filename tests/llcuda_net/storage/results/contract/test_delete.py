"""One result is deleted from any store, with all that was computed from it, and nothing else."""

from __future__ import annotations

from llcuda_net.storage.results.interface import Deleted, Query, Store
from tests.support.storage.records import result

LONG = "tell me a long story about pears " * 200


def test_a_result_goes_with_its_words_its_key_and_its_bodies(store: Store) -> None:
    request = {"prompt": LONG}
    mine = [result(number, request=request, owner="ann", key=f"k{number}") for number in (1, 2)]
    store.put([*mine, result(3, owner="bob")])
    while store.update_index():
        pass
    one, other = result(1).id, result(2).id
    assert store.delete(one, "bob") is None
    assert store.delete(one, "ann") == Deleted("ann", "k1")
    assert store.delete(one, "ann") is None
    assert store.get(one) is None
    assert store.find_by_key("k1", "ann") is None
    assert [hit.summary.id for hit in store.search("pears", Query())] == [other]
    found = store.get(other)  # which shares the prompt
    assert found is not None
    assert found.request == {"prompt": LONG}
    assert store.reached() == 3  # so that no restart takes it for lost
    assert store.delete(other) == Deleted("ann", "k2")
    assert [problem for problem in store.verify() if problem is not None] == []
    store.put(mine)  # it may come again
    assert store.get(one) == mine[0]
    assert store.reached() == 5


def test_the_newest_result_of_a_key_is_found(store: Store) -> None:
    keys = ["k", "\0ä", "k"]
    store.put([result(n, key=key, owner="ann") for n, key in enumerate(keys)])
    found = store.find_by_key("k", "ann")
    assert found is not None
    assert found.id == result(2).id
    found = store.find_by_key("\0ä", "ann")
    assert found is not None
    assert (found.id, found.key) == (result(1).id, "\0ä")
    assert store.delete(found.id) == Deleted("ann", "\0ä")
