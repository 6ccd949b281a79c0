"""Results that a store has lost are missed at the next start, told, and restored where possible."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from llcuda_net.cli.main import main
from llcuda_net.storage import damage
from llcuda_net.storage.records import Ended, Result, TokenLog
from llcuda_net.storage.results.interface import Retention
from llcuda_net.storage.results.sqlite import SqliteStore
from llcuda_net.storage.storage import Storage
from tests.support.server.durable_server import keeping
from tests.support.server.memory_server import FakeUpstream, status
from tests.support.storage.records import MODEL, opened

COUNT = 6


@asynccontextmanager
async def running(directory: Path) -> AsyncIterator[Storage]:
    storage = Storage(directory, interval=0)
    async with trio.open_nursery() as nursery:
        await nursery.start(storage.run)
        yield storage
        nursery.cancel_scope.cancel()


async def finished(storage: Storage, number: int) -> Result:
    entry = storage.start(opened(number))
    await storage.accepted(entry)
    log = TokenLog([f"t{number}-{i}" for i in range(5)], list(range(5)))
    entry.append(log.pieces, log.ids)
    return await storage.finish(entry, Ended(state="done", model=MODEL, finished=5), log)


async def killed(directory: Path, copy: Path, first: int = 0) -> list[Result]:
    """What a kill would leave of a server that has acknowledged some results."""
    async with running(directory) as storage:
        results = [await finished(storage, first + number) for number in range(COUNT)]
        await storage.sync()
        shutil.copytree(directory, copy)
    return results


def no_wal(copy: Path) -> None:
    (copy / "results.db-wal").unlink()
    (copy / "results.db-shm").unlink()


def cut_wal(copy: Path) -> None:
    wal = copy / "results.db-wal"
    with wal.open("r+b") as file:
        file.truncate(wal.stat().st_size * 3 // 4)


def no_store(copy: Path) -> None:
    for path in copy.glob("*.db*"):
        path.unlink()


@pytest.mark.parametrize("harm", [no_wal, cut_wal, no_store])
async def test_what_the_store_lost_is_told_and_restored(
    tmp_path: Path, harm: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "copy"
    results = await killed(tmp_path / "data", copy)
    harm(copy)
    async with running(copy) as storage:
        (problem,) = storage.problems
        assert "the store has lost" in problem
        assert "restored from the journal" in problem
        assert "not these" not in problem
        assert storage.recovered == []  # nothing of it runs again
        for result in results:
            found = await storage.read(lambda store, id_=result.id: store.get(id_))  # type: ignore[misc]
            assert found == result
    assert (copy / damage.NAME).stat().st_mode & 0o777 == 0o600
    async with keeping(copy, FakeUpstream()) as (storage, listener):
        assert storage.problems == []  # it is told once
        assert "the store has lost" in (await status(listener))["store"]["damage"][0]
    said = capsys.readouterr().out
    assert said.count("storage_damaged") == 1
    code = await trio.to_thread.run_sync(main, ["results", "verify", "--data-dir", str(copy)])
    assert code != 0
    assert "the store has lost" in capsys.readouterr().out
    (copy / damage.NAME).unlink()
    assert main(["results", "verify", "--data-dir", str(copy), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["ok"]


async def test_what_the_journal_has_no_more_is_named(tmp_path: Path) -> None:
    data, old = tmp_path / "data", tmp_path / "old"
    async with running(data):
        pass
    shutil.copytree(data, old)
    results = await killed(data, tmp_path / "copy")
    for name in ("results.db", "derived.db"):  # somebody puts an old backup back
        shutil.copy(old / name, data / name)
    async with running(data):
        pass  # restored from the journal; the journal that is written then has ids only
    shutil.rmtree(tmp_path / "copy")
    await killed(data, tmp_path / "copy", COUNT)
    async with running(data) as storage:
        assert storage.problems == []
    for name in ("results.db", "derived.db"):
        shutil.copy(old / name, data / name)
    async with running(data) as storage:
        (problem,) = storage.problems
        assert f"lost {2 * COUNT} results" in problem
        assert all(result.id in problem for result in results)
    async with running(data) as storage:
        assert storage.problems == []
        assert len(storage.damage) == 2


async def test_what_was_pruned_is_not_lost(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    await killed(tmp_path / "data", copy)
    store = SqliteStore(copy, write=True)
    assert sum(step.results for step in store.prune(Retention(before=1 << 62))) == COUNT
    store.close()
    async with running(copy) as storage:
        assert storage.problems == []


def test_notes_are_one_line_each(tmp_path: Path) -> None:
    assert damage.noted(tmp_path) == []
    damage.note(tmp_path, ["one\ntwo", "three"])
    damage.note(tmp_path, ["four"])
    lines: list[Any] = damage.noted(tmp_path)
    assert [line.partition(" ")[2] for line in lines] == ["one two", "three", "four"]
