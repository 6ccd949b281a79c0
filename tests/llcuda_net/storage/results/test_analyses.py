"""What is computed of results: cursors, spaces, and what a prune or another store leaves of it."""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest

from llcuda_net.storage.results import migrations
from llcuda_net.storage.results.interface import Retention
from llcuda_net.storage.results.sqlite import DERIVED, RESULTS, SqliteStore
from tests.llcuda_net.storage.results.test_sqlite import index_all
from tests.support.storage.analyses import certain, with_logprobs
from tests.support.storage.records import MODEL, SECOND, START, result


def number_of(store: SqliteStore, name: str) -> int:
    db = apsw.Connection(str(store._path))
    return int(db.execute("SELECT seq FROM results WHERE id = ?", (name,)).get)


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
