"""One result is deleted, with all that was computed from it, and nothing else."""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest

from llcuda_net.storage.results.interface import Deleted, Query
from llcuda_net.storage.results.sqlite import SqliteStore
from tests.support.storage.records import result

LONG = "tell me a long story about pears " * 200


def filled(folder: Path) -> SqliteStore:
    store = SqliteStore(folder, write=True)
    request = {"prompt": LONG}
    mine = [result(number, request=request, owner="ann", key=f"k{number}") for number in (1, 2)]
    store.put([*mine, result(3, owner="bob")])
    while store.update_index():
        pass
    return store


def test_a_result_goes_with_its_index_its_key_and_its_bodies(tmp_path: Path) -> None:
    store = filled(tmp_path)
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
    assert store._db.execute("SELECT count(*) FROM bodies").get == 0
    assert [problem for problem in store.verify() if problem is not None] == []
    store.close()


def test_a_damaged_one_can_be_deleted(tmp_path: Path) -> None:
    store = filled(tmp_path)
    db = apsw.Connection(str(tmp_path / "results.db"))
    db.execute("UPDATE results SET finished = finished + 1 WHERE owner = 'bob'")
    db.close()
    assert store.delete(result(3).id) == Deleted("bob", None)
    assert [one.id for one in store.find(Query())] == [result(2).id, result(1).id]
    store.close()


def test_one_that_is_indexed_meanwhile_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = filled(tmp_path)
    remove = store.search_index.remove

    def remove_and_index_again(seqs: list[int]) -> None:
        remove(seqs)
        if store.get(result(1).id) is not None:  # the indexing thread read it before
            db = store.search_index.open()
            db.execute("INSERT INTO terms (rowid, prompt, text) VALUES (1, 'pears', '')")

    monkeypatch.setattr(store.search_index, "remove", remove_and_index_again)
    store.delete(result(1).id)
    words = "SELECT count(*) FROM terms WHERE terms MATCH 'pears'"
    assert store.search_index.open().execute(words).get == 1
    store.close()
