"""A power cut at any moment takes no result that was acknowledged, and leaves a sound database."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from llcuda_net.errors import StorageError
from llcuda_net.storage.results import retention, sqlite
from llcuda_net.storage.results.interface import Query, Retention
from llcuda_net.storage.results.sqlite import RESULTS, SqliteStore
from tests.support.storage.power_cut import Recorder
from tests.support.storage.records import result
from tests.support.storage.simulated_vfs import simulated_vfs

CRASHES, WORKLOADS = 120, 4
#: Of these, the losses that a store that is broken on purpose must at least show.
CONTROLS = 4


def workload(folder: Path, recorder: Recorder, rng: random.Random, how: str) -> None:
    """Batches are put, the log is copied back, old results are pruned; then the power goes."""
    with simulated_vfs(recorder) as vfs:
        store = SqliteStore(folder, write=True, vfs=vfs)
        if how == "synchronous=NORMAL":
            store._db.execute("PRAGMA synchronous = NORMAL")
        number = 0
        for _ in range(25):
            batch = [result(number + i, rng.choice([2, 400])) for i in range(rng.randrange(1, 5))]
            number += len(batch)
            if how == "acknowledge before commit":
                recorder.note("acknowledged", ("put", batch))
            store.put(batch)
            recorder.note("acknowledged", ("put", batch))
            store.checkpoint()
            if rng.random() < 0.15:
                oldest = result(number - 6).created
                recorder.note("acknowledged", ("prune", oldest))
                for _ in store.prune(Retention(before=oldest)):
                    pass
        store._db.execute("PRAGMA user_version")  # not closed: nothing more is synced
        recorder.note("over")
        store.close()


def lost(folder: Path, recorder: Recorder, moment: int, rng: random.Random) -> list[str]:
    """What is wrong after a power cut at this moment."""
    for path in folder.iterdir():
        path.unlink()
    for name, data in recorder.image(moment, rng).items():
        (folder / name).write_bytes(data)
    wanted, pruned = {}, 0
    for what, value in recorder.acknowledged(moment):
        if what == "put":
            wanted.update({kept.id: kept for kept in value})
        else:
            pruned = value
    try:
        store = SqliteStore(folder, write=True)
    except StorageError as error:
        return [str(error)]
    try:
        out = []
        if store._db.execute("PRAGMA integrity_check").get != "ok":
            out.append("the database is damaged")
        out += [problem.message for problem in store.verify() if problem]
        there = {found.id for found in store.find(Query(limit=None))}
        for kept in wanted.values():
            if kept.created >= pruned and kept.id not in there:
                out.append(f"{kept.id} is gone")
            elif kept.id in there and store.get(kept.id) != kept:
                out.append(f"{kept.id} is another")
        return out
    except (StorageError, apsw.Error) as error:
        return [str(error)]
    finally:
        store.close()


def crashes(tmp_path: Path, how: str = "") -> Iterator[list[str]]:
    """What is wrong after each of CRASHES power cuts."""
    for seed in range(WORKLOADS):
        rng = random.Random(seed)
        recorder = Recorder()
        folder = tmp_path / f"{seed}"
        folder.mkdir()
        workload(folder, recorder, rng, how)
        end = next(i for i, event in enumerate(recorder.events) if event[0] == "over")
        for _ in range(CRASHES // WORKLOADS):
            yield lost(folder, recorder, rng.randrange(end + 1), rng)


@pytest.fixture(autouse=True)
def _checkpoint_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "CHECKPOINT_PAGES", 40)


def test_no_acknowledged_result_is_lost(tmp_path: Path) -> None:
    found = list(crashes(tmp_path))
    assert len(found) == CRASHES
    assert [problems for problems in found if problems] == []


@pytest.mark.parametrize("how", ["acknowledge before commit", "synchronous=NORMAL"])
def test_the_check_can_fail(how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if "NORMAL" in how:
        monkeypatch.setattr(retention, "AFTERWARDS", "NORMAL")
    noticed = (problems for problems in crashes(tmp_path, how) if problems)
    assert len(list(itertools.islice(noticed, CONTROLS))) == CONTROLS


def test_the_simulated_disk_holds_the_real_files(tmp_path: Path) -> None:
    """With nothing lost, the recording is what SQLite wrote."""
    recorder = Recorder()
    with simulated_vfs(recorder) as vfs:
        store = SqliteStore(tmp_path, write=True, vfs=vfs)
        store.put([result(n) for n in range(50)])
        store.close()
    for name in (RESULTS,):
        recorder.note("sync", name)
        image = recorder.image(len(recorder.events), random.Random(0))
        assert image[name] == (tmp_path / name).read_bytes()
