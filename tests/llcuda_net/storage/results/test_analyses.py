"""What is computed of results: cursors, spaces, and what a prune or another store leaves of it."""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest

from llcuda_net.storage.records import Logprobs, TokenLog, packed, unpacked
from llcuda_net.storage.results import migrations
from llcuda_net.storage.results.interface import CertaintyStats, Document, Retention
from llcuda_net.storage.results.sqlite import DERIVED, RESULTS, SqliteStore
from tests.llcuda_net.storage.results.test_sqlite import index_all
from tests.support.storage.records import MODEL, SECOND, START, result


def certain(logprobs: list[Logprobs]) -> list[CertaintyStats]:
    """Figures that show what they were made of."""
    return [
        CertaintyStats(len(one), -unpacked(one[0])[0][2], None, 0.5, (0, 1), 2.0)
        for one in logprobs
    ]


def with_logprobs(number: int) -> TokenLog:
    tokens = [packed([[5, b"a", -float(number), []]]), packed([[6, b"b", -1.0, []]])]
    return TokenLog(["a", "b"], [5, 6], tokens)


def number_of(store: SqliteStore, name: str) -> int:
    db = apsw.Connection(str(store._path))
    return int(db.execute("SELECT seq FROM results WHERE id = ?", (name,)).get)


def test_figures_are_of_results_with_log_probabilities_in_their_order(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path, write=True)
    store.put([result(n, log=with_logprobs(n)) if n % 2 else result(n) for n in range(1, 6)])
    seen: list[int] = []

    def compute(found: list[Logprobs]) -> list[CertaintyStats]:
        seen.append(len(found))
        return certain(found)

    while store.analyses.compute_certainty(compute):
        pass
    assert sum(seen) == 3
    reading = SqliteStore(tmp_path)
    assert reading.analyses.certainty("result-000003") == CertaintyStats(
        2, 3.0, None, 0.5, (0, 1), 2.0
    )
    assert reading.analyses.certainty("result-000002") is None
    assert reading.analyses.certainty("nothing") is None
    assert reading.analyses.certainty_seq() == 5
    assert not store.analyses.compute_certainty(compute)
    assert sum(seen) == 3


def test_figures_that_fail_leave_the_cursor(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path, write=True)
    store.put([result(1, log=with_logprobs(1))])

    def broken(found: list[Logprobs]) -> list[CertaintyStats]:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        store.analyses.compute_certainty(broken)
    assert store.analyses.certainty_seq() == 0
    store.analyses.compute_certainty(certain)
    assert store.analyses.certainty("result-000001") is not None


def test_damaged_log_probabilities_keep_no_other_result_from_its_figures(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path, write=True)
    store.put([result(n, log=with_logprobs(n)) for n in (1, 2)])
    db = apsw.Connection(str(tmp_path / RESULTS))
    db.execute("UPDATE results SET logprobs = x'0142', input = x'0142' WHERE id = 'result-000001'")
    while store.analyses.compute_certainty(certain):
        pass
    assert store.analyses.certainty("result-000001") is None
    assert store.analyses.certainty("result-000002") is not None
    first, second = store.analyses.unembedded(0, 9)
    assert (first.question, first.answer) == ("", "")
    assert second.question == "What is number 2?"


def test_a_space_goes_as_far_as_its_cursor(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path, write=True)
    store.put([result(n) for n in range(1, 6)])
    analyses = store.analyses
    assert analyses.spaces() == []
    space = analyses.open_space(MODEL, 3, 1)
    found = analyses.unembedded(space.seq, 2)
    assert [one.seq for one in found] == [1, 2]
    assert found[0] == Document(1, "", "What is number 1?", result(1).text)
    analyses.embed(space.id, 2, [(1, 0.5, b"abc")])  # the second has none
    (now,) = SqliteStore(tmp_path).analyses.spaces()
    assert (now.id, now.model, now.dim, now.recipe, now.seq) == (space.id, MODEL, 3, 1, 2)
    analyses.embed(space.id, 2, [(1, 0.25, b"xyz")])  # cut off and done again
    analyses.embed(space.id, 1, [])
    (now,) = analyses.spaces()
    assert now.seq == 2
    ((one,),) = analyses.embeddings(space.id)
    assert (one.seq, one.scale, one.codes) == (1, 0.5, b"abc")
    assert analyses.count(space.id) == 1
    assert analyses.lag(now.seq) == 3


def test_what_was_computed_says_whose_it_is(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path, write=True)
    store.put([result(n, owner=["ann", "bob"][n % 2]) for n in range(1, 6)])
    assert [one.owner for one in store.analyses.unembedded(0, 3)] == ["bob", "ann", "bob"]
    space = store.analyses.open_space(MODEL, 1, 1)
    store.analyses.embed(space.id, 2, [(1, 1.0, b"a"), (2, 1.0, b"b")])
    ((one, two),) = store.analyses.embeddings(space.id)
    assert [(one.seq, one.owner), (two.seq, two.owner)] == [(1, "bob"), (2, "ann")]
    assert [store.analyses.lag(2, owner) for owner in ("ann", "bob", "", None)] == [1, 2, 0, 3]


def test_spaces_are_apart_and_the_newest_comes_first(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path, write=True)
    store.put([result(1)])
    one = store.analyses.open_space({"name": "a"}, 2, 1)
    two = store.analyses.open_space({"name": "b"}, 2, 1)
    store.analyses.embed(one.id, 1, [(1, 1.0, b"aa")])
    store.analyses.embed(two.id, 1, [(1, 1.0, b"bb")])
    assert [space.id for space in store.analyses.spaces()] == [two.id, one.id]
    assert [page[0].codes for page in store.analyses.embeddings(two.id)] == [b"bb"]
    store.analyses.update_model(one, {"name": "a", "hash": "1"})
    assert store.analyses.spaces()[1].model == {"name": "a", "hash": "1"}


def test_pages_give_every_embedding_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llcuda_net.storage.results.analyses._PAGE", 4)
    store = SqliteStore(tmp_path, write=True)
    store.put([result(n) for n in range(1, 11)])
    space = store.analyses.open_space(MODEL, 1, 1)
    store.analyses.embed(space.id, 10, [(n, 1.0, bytes([n])) for n in range(1, 11)])
    pages = list(store.analyses.embeddings(space.id))
    assert [len(page) for page in pages] == [4, 4, 2]
    assert [one.seq for page in pages for one in page] == list(range(1, 11))


def test_a_pruned_result_takes_its_analysis_with_it(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path, write=True)
    store.put([result(n, log=with_logprobs(n)) for n in (1, 2)])
    store.analyses.compute_certainty(certain)
    space = store.analyses.open_space(MODEL, 1, 1)
    store.analyses.embed(space.id, 2, [(1, 1.0, b"a"), (2, 1.0, b"b")])
    list(store.prune(Retention(before=START + 2 * SECOND)))
    db = apsw.Connection(str(tmp_path / DERIVED))
    assert list(db.execute("SELECT seq FROM figures")) == [(2,)]
    assert list(db.execute("SELECT seq FROM embeddings")) == [(2,)]
    assert store.analyses.summaries([1, 2]).keys() == {2}


def test_what_was_added_while_its_result_went_is_not_found(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path, write=True)
    store.put([result(1)])
    space = store.analyses.open_space(MODEL, 1, 1)
    list(store.prune(Retention(before=START + 9 * SECOND)))
    store.analyses.embed(space.id, 1, [(1, 1.0, b"a")])
    assert list(store.analyses.embeddings(space.id)) == []


def test_summaries_have_the_beginning_of_the_text(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path, write=True)
    store.put([result(1, tokens=500)])
    ((summary, text),) = store.analyses.summaries([1, 7]).values()
    assert summary.id == "result-000001"
    assert len(text) == 200
    assert result(1, tokens=500).text.strip().startswith(text)


def test_a_lost_file_is_analysed_again_and_another_stores_is_not_believed(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        folder.mkdir()
        store = SqliteStore(folder, write=True)
        store.put([result(1, log=with_logprobs(1))])
        store.analyses.compute_certainty(certain)
        space = store.analyses.open_space(MODEL, 1, 1)
        store.analyses.embed(space.id, 1, [(1, 1.0, b"a")])
        store.close()
    (two / DERIVED).replace(one / DERIVED)
    store = SqliteStore(one, write=True)
    assert store.analyses.certainty_seq() == 0
    assert store.analyses.spaces() == []
    assert store.analyses.certainty("result-000001") is None
    index_all(store)
    assert store.analyses.lag(0) == 1


def test_reading_what_an_earlier_version_left_finds_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    SqliteStore(tmp_path, write=True).put([result(1)])
    for path in tmp_path.glob(f"{DERIVED}*"):
        path.unlink()
    reading = SqliteStore(tmp_path)
    assert (reading.analyses.certainty_seq(), reading.analyses.spaces()) == (0, [])
    db = apsw.Connection(str(tmp_path / DERIVED))
    migrations.migrate(db, migrations.DERIVED[:1])
    db.close()
    reading = SqliteStore(tmp_path)
    assert reading.analyses.certainty("result-000001") is None
    assert reading.analyses.count(1) == 0
    assert list(reading.analyses.embeddings(1)) == []
