"""Transient results: found until they are due, whole or not at all, and then in no file."""

from __future__ import annotations

import errno
import os
import random
import stat
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from llcuda_net.errors import ResultDamaged, StorageError
from llcuda_net.storage.journal.disk import RealFiles
from llcuda_net.storage.records import Result
from llcuda_net.storage.transient.results import Erased, TransientResults
from tests.support.storage.clock import Clock
from tests.support.storage.power_cut import SimulatedFiles
from tests.support.storage.records import SECOND, START, result

FOLDER = Path("/transient")


def kept_for(seconds: float, files: Any, clock: Clock, folder: Path = FOLDER) -> TransientResults:
    return TransientResults(folder, files, seconds, clock=clock)


def of(number: int, **changes: Any) -> Result:
    return result(number, transient=True, **changes)


async def get(results: TransientResults, id_: str, owner: str | None = None) -> Result | None:
    return await results.get(id_, owner, lambda found: found)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def test_they_are_found_until_they_are_due_also_by_the_next_server(tmp_path: Path) -> None:
    clock = Clock()
    results = kept_for(60, RealFiles(), clock, tmp_path)
    await results.open()
    assert (results.next_due(), results.due(5), results.ids) == (None, [], set())
    one, two = of(90, key="k", owner="ann"), of(95)
    await results.commit(one)
    await results.commit(two)
    for now in (results, kept_for(60, RealFiles(), clock, tmp_path)):
        if now is not results:
            await now.open()
        assert len(now) == 2
        assert one.id in now
        assert await get(now, one.id) == await get(now, one.id, "ann") == one
        assert await get(now, two.id, "") == two
        assert await get(now, one.id, "bob") is None
        assert await get(now, "another") is None
        assert await now.find_by_key("k", "ann") == one
        assert await now.find_by_key("k", "bob") is None
        assert now.next_due() == pytest.approx(50)
        assert now.due(5) == []
    clock.advance(50.001)
    assert one.id not in results
    assert two.id in results
    assert await get(results, one.id) is None
    assert await results.find_by_key("k", "ann") is None
    assert results.due(5) == [one.id]
    assert await results.erase([one.id]) == [Erased(one.id, "ann", "k")]
    assert await results.erased() == [Erased(one.id, "ann", "k")]
    assert len(names(tmp_path)) == 1
    after = kept_for(60, RealFiles(), clock, tmp_path)
    await after.open()
    assert after.ids == {two.id}


async def test_only_their_owner_may_read_the_files(tmp_path: Path) -> None:
    results = kept_for(60, RealFiles(), Clock(), tmp_path)
    await results.open()
    await results.commit(of(91, owner="ann", key="a secret key"))
    (name,) = names(tmp_path)
    assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    # A name is shown by `ls`, and outlives its file in a file system's journal.
    assert "ann" not in name
    assert "secret" not in name


async def test_a_result_that_comes_again_is_left_as_it_is() -> None:
    files = SimulatedFiles()
    results = kept_for(60, files, Clock())
    await results.open()
    await results.commit(of(91))
    names = set(files.files)
    await results.commit(of(91))
    assert set(files.files) == names


async def test_those_that_come_together_share_a_sync_of_the_folder() -> None:
    files = SimulatedFiles()
    results = kept_for(60, files, Clock())
    await results.open()
    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(results.commit, of(80 + number))
    assert len(results) == 20
    events = [event[0] for event in files.recorder.events]
    assert events.count("sync") == 20
    assert events.count("sync_dir") <= 1 + 2  # the first, and all others


async def test_a_commit_that_is_cancelled_is_done_all_the_same() -> None:
    results = kept_for(60, SimulatedFiles(), Clock())
    await results.open()
    with trio.CancelScope() as scope:
        scope.cancel()
        await results.commit(of(91))
    assert len(results) == 1


async def test_erasing_twice_and_what_is_not_there() -> None:
    results = kept_for(60, SimulatedFiles(), Clock())
    await results.open()
    await results.commit(of(91))
    ids = [of(91).id, of(91).id, "another"]
    assert [one.id for one in await results.erase(ids)] == [of(91).id]
    assert await results.erase(ids) == []


async def test_a_key_means_the_newest_of_its_results() -> None:
    results = kept_for(60, SimulatedFiles(), Clock())
    await results.open()
    failed, done = of(91, key="k", state="failed"), of(92, key="k")
    await results.commit(failed)
    await results.commit(done)
    assert await results.find_by_key("k", "") == done
    await results.erase([done.id])
    assert await results.find_by_key("k", "") == failed


async def test_without_room_nothing_is_left_and_it_may_be_tried_again() -> None:
    files = SimulatedFiles()
    results = kept_for(60, files, Clock())
    await results.open()
    files.room = 100
    with pytest.raises(StorageError, match="no room") as caught:
        await results.commit(of(91))
    assert caught.value.retry
    assert (set(files.files), len(results)) == (set(), 0)
    files.room = None
    await results.commit(of(91))
    assert await get(results, of(91).id) == of(91)


async def test_a_broken_disk_is_an_error_for_each_of_a_batch() -> None:
    files = SimulatedFiles()
    results = kept_for(60, files, Clock())
    await results.open()
    files.sync_error = OSError(errno.EIO, os.strerror(errno.EIO))
    failures = []

    async def commit(number: int) -> None:
        try:
            await results.commit(of(number))
        except StorageError as error:
            failures.append(error.code)

    async with trio.open_nursery() as nursery:
        for number in range(3):
            nursery.start_soon(commit, number)
    assert failures == [StorageError.FAILED] * 3
    assert files.files == {}


async def test_what_cannot_be_deleted_is_gone_for_readers_and_tried_again() -> None:
    class Stubborn(SimulatedFiles):
        refusing = True

        def unlink(self, path: Path) -> None:
            if self.refusing:
                raise OSError(errno.EROFS, os.strerror(errno.EROFS))
            super().unlink(path)

    files, clock = Stubborn(), Clock()
    results = kept_for(60, files, clock)
    await results.open()
    one = of(100, key="k", owner="ann")
    await results.commit(one)
    clock.advance(61)
    assert results.due(1) == [one.id]
    assert await results.erase([one.id]) == [Erased(one.id, "ann", "k")]
    for _ in range(2):
        assert len(files.files) == 1
        assert results.due(1) == []
        assert one.id not in results
        assert await get(results, one.id) is await results.find_by_key("k", "ann") is None
        clock.advance(6)
        assert results.due(1) == [one.id]
        assert await results.erase([one.id]) == []  # nobody is told of it twice
    files.refusing = False
    clock.advance(6)
    await results.erase(results.due(1))
    assert files.files == {}


@pytest.mark.parametrize("damage", [lambda d: d[:40], lambda d: d[:-1] + b"x", lambda d: b""])
async def test_a_file_that_is_not_what_was_written_is_damaged(damage: Any) -> None:
    files, clock = SimulatedFiles(), Clock()
    results = kept_for(60, files, clock)
    await results.open()
    await results.commit(of(100))
    (name,) = files.files
    files.files[name] = bytearray(damage(bytes(files.files[name])))
    with pytest.raises(ResultDamaged):
        await get(results, of(100).id)
    clock.advance(60)
    assert results.due(1) == [of(100).id]  # erased all the same


async def test_what_is_erased_while_it_is_read_is_not_there() -> None:
    """Neither where the file is gone by then, nor where it was just there."""
    files = SimulatedFiles()
    results = kept_for(60, files, Clock())
    await results.open()
    for before in (True, False):
        await results.commit(of(91))

        class Slow(SimulatedFiles):
            def read(self, path: Path) -> bytes:
                data = None if before else files.read(path)  # noqa: B023
                trio.from_thread.run(results.erase, [of(91).id])
                return files.read(path) if data is None else data

        results._files = Slow()
        results._files.files = files.files
        assert await get(results, of(91).id) is None
        results._files = files


async def test_a_clock_that_is_set_back_delays_nothing_for_longer_than_they_are_kept() -> None:
    clock = Clock()
    results = kept_for(60, SimulatedFiles(), clock)
    await results.open()
    await results.commit(of(100))
    await results.commit(of(101))
    clock.advance(-1_000_000)
    assert results.next_due() == 60
    clock.advance(60)
    assert set(results.due(5)) == {of(100).id, of(101).id}


async def test_a_result_of_the_future_is_kept_no_longer_than_others() -> None:
    """It ended before the clock was set back."""
    clock = Clock()
    results = kept_for(60, SimulatedFiles(), clock)
    await results.open()
    await results.commit(of(5000))
    assert results.next_due() == 60
    assert results.is_due(START)
    assert not results.is_due(START + 5000 * SECOND)


async def test_a_shorter_time_holds_for_what_is_there(tmp_path: Path) -> None:
    clock = Clock()
    results = kept_for(6000, RealFiles(), clock, tmp_path)
    await results.open()
    await results.commit(of(100))
    results = kept_for(60, RealFiles(), clock, tmp_path)
    await results.open()
    assert results.next_due() == 60


async def test_other_files_in_the_folder_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "README").touch()
    (tmp_path / "x.result").touch()
    (tmp_path / "1.a.b.result.new").touch()
    results = kept_for(60, RealFiles(), Clock(), tmp_path)
    await results.open()
    assert results.ids == set()
    assert names(tmp_path) == ["README", "x.result"]


async def test_a_folder_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    results = kept_for(60, RealFiles(), Clock(), tmp_path / "nowhere")
    with pytest.raises(StorageError, match="cannot be read"):
        await results.open()


@pytest.mark.parametrize("syncs", [True, False])
async def test_a_power_cut_leaves_each_whole_or_not_at_all(syncs: bool) -> None:
    """What was said to be kept is there, and what was erased is due at once where it is there
    again. Without the syncs it would not be: the control.
    """
    rng = random.Random(7)
    files, clock = SimulatedFiles(), Clock()
    note = files.recorder.note
    results = kept_for(60, files, clock)
    await results.open()
    for number in range(100, 130):
        await results.commit(of(number))
        note("acknowledged", ("kept", of(number).id))
        clock.advance(4)
        if due := results.due(1):
            note("acknowledged", ("due", due[0]))
            await results.erase(due)
            note("acknowledged", ("erased", due[0]))
    lost = []
    for moment in range(len(files.recorder.events) + 1):
        image = SimulatedFiles(files.recorder.image(moment, rng, syncs=syncs))
        told = files.recorder.acknowledged(moment)
        after = kept_for(60, image, Clock(START))  # so nothing is due
        await after.open()
        assert not any(name.endswith(".new") for name in image.files)
        going = {id_ for what, id_ in told if what == "due"}
        lost += [id_ for what, id_ in told if what == "kept" and id_ not in after.ids | going]
        lost += [id_ for what, id_ in told if what == "erased" and id_ in after.ids]
        for id_ in after.ids:
            try:
                found = await get(after, id_)
                assert found is not None
                assert found.id == id_
            except ResultDamaged:
                lost.append(id_)
    assert bool(lost) is not syncs
