"""Backups at random moments of a journal whose segments are begun and deleted all the time."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import trio

from llcuda_net.storage.backup.backup import back_up
from llcuda_net.storage.backup.restore import restore
from llcuda_net.storage.journal.entry import JournalEntry
from llcuda_net.storage.records import Ended, TokenLog
from llcuda_net.storage.storage import Storage
from tests.support.storage.records import MODEL, opened

#: Bytes of a segment: a few records.
SEGMENT = 1500


class Load:
    """Generations that begin, go on and end, and what their clients know of them."""

    def __init__(self, storage: Storage, rng: random.Random) -> None:
        self.storage = storage
        self.running: dict[str, list[str]] = {}
        self.done: dict[str, list[str]] = {}
        self.deleted: set[str] = set()
        self._rng = rng
        self._count = 0

    async def one(self) -> None:
        """A generation from its beginning to its end, or for ever."""
        number, rng = self._count, self._rng
        self._count += 1
        entry = self.storage.start(opened(number))
        await self.storage.accepted(entry)
        id_ = entry.opened.generation
        log = TokenLog([], [])
        self.running[id_] = []
        for _ in range(rng.randrange(1, 60)):
            await self._token(entry, log)
            self.running[id_] = [*log.pieces]
            await trio.sleep(0.0003 * rng.randrange(4))
        if rng.random() < 0.1:
            return  # it stands still: its records are moved on and on
        ended = Ended(state="done", model=MODEL, finished=number + 1)
        await self.storage.finish(entry, ended, log)
        self.done[id_] = self.running.pop(id_)
        if rng.random() < 0.1:
            await self.storage.delete(id_, None)
            del self.done[id_]
            self.deleted.add(id_)

    async def _token(self, entry: JournalEntry, log: TokenLog) -> None:
        piece = f"{entry.opened.generation}-{len(log.pieces)} "
        entry.append([piece], [len(log.pieces)])
        log.pieces.append(piece)
        log.ids.append(len(log.ids))
        await self.storage.written()

    async def go_on(self) -> None:
        """One after the other, for ever."""
        while True:
            await self.one()


@pytest.mark.parametrize("seed", range(4))
async def test_at_any_moment(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    storage = Storage(tmp_path / "data", segment_bytes=SEGMENT, interval=0.001)
    async with trio.open_nursery() as nursery:
        await nursery.start(storage.run)
        load = Load(storage, rng)
        async with trio.open_nursery() as clients:
            for _ in range(6):
                clients.start_soon(load.go_on)
            for number in range(4):
                while len(load.done) < 5 * (number + 1):  # noqa: ASYNC110 - by many tasks
                    await trio.sleep(0.005)
                await trio.sleep(rng.uniform(0.0, 0.2))
                running = {id_: [*pieces] for id_, pieces in load.running.items()}
                done, deleted = dict(load.done), {*load.deleted}
                target = tmp_path / str(number)
                await trio.to_thread.run_sync(back_up, tmp_path / "data", target)
                await check(target, load, running, done, deleted)
            clients.cancel_scope.cancel()
        nursery.cancel_scope.cancel()
    assert len(load.done) >= 20


async def check(
    target: Path,
    load: Load,
    running: dict[str, list[str]],
    done: dict[str, list[str]],
    deleted: set[str],
) -> None:
    """Compare a backup with what clients knew when it was begun."""
    directory = target.with_name(f"{target.name}-restored")
    await trio.to_thread.run_sync(restore, target, directory)
    async with trio.open_nursery() as nursery:
        storage = Storage(directory)
        await nursery.start(storage.run)
        assert storage.problems == []
        recovered = {one.entry.opened.generation: one for one in storage.recovered}
        assert len(recovered) == len(storage.recovered)
        assert not deleted & recovered.keys()
        for id_, one in recovered.items():
            pieces = one.log.pieces
            assert pieces == [f"{id_}-{number} " for number in range(len(pieces))]
            assert pieces[: len(running.get(id_, ()))] == running.get(id_, [])
            assert id_ not in done
        for id_, known in (done | running).items():
            text = await storage.get(id_, None, lambda found: found.log.pieces)
            if text is None:  # it still runs, or somebody deleted it meanwhile
                assert id_ in recovered or id_ in load.deleted
                assert id_ not in done or id_ in load.deleted
            else:
                assert id_ not in recovered
                assert text[: len(known)] == known
        for id_ in deleted:
            assert await storage.get(id_, None, lambda found: found.id) is None
        nursery.cancel_scope.cancel()
