"""objects.db: transactions, and what is refused, damaged or gone."""

from __future__ import annotations

import random
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import apsw
import pytest
import trio
import trio.testing

from llcuda_net.errors import StorageError
from llcuda_net.storage.objects.database import NAME, Objects
from llcuda_net.storage.objects.interface import Database
from llcuda_net.storage.objects.migrations import OBJECTS
from llcuda_net.storage.results.migrations import migrate
from tests.support.storage.damage import PAGE, damaged_file
from tests.support.storage.power_cut import Recorder
from tests.support.storage.simulated_vfs import simulated_vfs

INSERT = (
    "INSERT INTO files (id, owner, state, purpose, name, bytes, created)"
    " VALUES (?, 'ann', 'ready', 'batch', 'a.jsonl', 0, 1)"
)


@asynccontextmanager
async def opened(
    directory: Path, check: Callable[[], None] | None = None, vfs: str | None = None
) -> AsyncIterator[Objects]:
    objects = Objects(directory, check=check, vfs=vfs)
    await objects.open()
    try:
        yield objects
    finally:
        await objects.aclose()


def add(id_: str) -> Callable[[Database], None]:
    def change(db: Database) -> None:
        db.run(INSERT, (id_,))

    return change


def ids(db: Database) -> list[str]:
    return [row[0] for row in db.rows("SELECT id FROM files ORDER BY seq")]


async def test_what_was_written_is_there_after_a_restart(tmp_path: Path) -> None:
    async with opened(tmp_path) as objects:
        assert await objects.write(lambda db: db.run(INSERT, ("one",)) and 5) == 5
        assert await objects.read(ids) == ["one"]
    async with opened(tmp_path) as objects:
        assert await objects.read(ids) == ["one"]
    assert (tmp_path / NAME).stat().st_mode & 0o777 == 0o600


async def test_a_function_that_raises_changes_nothing(tmp_path: Path) -> None:
    def change(db: Database) -> None:
        db.run(INSERT, ("one",))
        raise LookupError

    async with opened(tmp_path) as objects:
        with pytest.raises(LookupError):
            await objects.write(change)
        assert await objects.read(ids) == []
        await objects.write(add("two"))
        assert await objects.read(ids) == ["two"]


async def test_a_change_that_cannot_be_is_refused_and_the_next_one_goes_on(tmp_path: Path) -> None:
    async with opened(tmp_path) as objects:
        await objects.write(add("one"))
        with pytest.raises(StorageError, match=r"cannot be written: .*UNIQUE"):
            await objects.write(add("one"))


async def test_one_thread_at_a_time_and_a_begun_transaction_is_not_cancelled(
    tmp_path: Path,
) -> None:
    running = 0

    def change(db: Database) -> None:
        nonlocal running
        running += 1
        assert running == 1
        db.run(INSERT, (str(len(ids(db))),))
        running -= 1

    async with opened(tmp_path) as objects:
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(objects.write, change)
        with trio.CancelScope() as scope:

            def cancel_meanwhile(db: Database) -> None:
                trio.from_thread.run_sync(scope.cancel)
                change(db)

            await objects.write(cancel_meanwhile)
        assert await objects.read(ids) == [str(i) for i in range(21)]


async def test_after_a_commit_that_may_be_lost_nothing_more_is_written(tmp_path: Path) -> None:
    gone = False

    def check() -> None:
        if gone:
            raise StorageError("the file was deleted")

    async with opened(tmp_path, check) as objects:
        await objects.write(add("one"))
        gone = True
        with pytest.raises(StorageError, match="deleted"):
            await objects.write(add("two"))
        gone = False
        with pytest.raises(StorageError, match="deleted") as caught:
            await objects.write(add("three"))
        assert caught.value.code == StorageError.FAILED
        assert objects.failed is not None
        assert "three" not in await objects.read(ids)


async def test_closed_it_answers_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path) as objects:
        pass
    await objects.aclose()
    with pytest.raises(StorageError, match="closed"):
        await objects.read(ids)
    with pytest.raises(StorageError, match="closed"):
        await objects.write(add("one"))


async def test_a_file_of_another_program_or_a_newer_version_is_refused(tmp_path: Path) -> None:
    with apsw.Connection(str(tmp_path / NAME)) as db:
        db.execute("CREATE TABLE theirs (a)")
    db.close()
    with pytest.raises(StorageError, match="something else"):
        await Objects(tmp_path).open()
    (tmp_path / NAME).unlink()
    async with opened(tmp_path) as objects:
        number = len(OBJECTS) + 1
        await objects.write(
            lambda db: db.run("INSERT INTO migrations VALUES (?, 'later', 0)", (number,)) and 0
        )
    with pytest.raises(StorageError, match=f"has version {number}.*upgrade"):
        await Objects(tmp_path).open()


@pytest.mark.parametrize("number", range(1, len(OBJECTS) + 1))
def test_it_is_brought_up_to_date_from_each_earlier_version(tmp_path: Path, number: int) -> None:
    db = apsw.Connection(str(tmp_path / NAME))
    for last in range(number, len(OBJECTS) + 1):
        migrate(db, OBJECTS[:last])
        assert [row[0] for row in db.execute("SELECT number FROM migrations")] == list(
            range(1, last + 1)
        )
    db.close()


def test_damage_is_mended_or_named_and_never_another_error(tmp_path: Path) -> None:
    async def fill() -> None:
        async with opened(tmp_path) as objects:
            for i in range(60):
                await objects.write(add(f"file-{i:0200}"))

    async def use() -> None:
        async with opened(tmp_path) as objects:
            await objects.read(ids)
            await objects.write(add("more"))

    trio.run(fill)
    path = tmp_path / NAME
    whole = path.read_bytes()
    assert len(whole) > 4 * PAGE
    named = []
    for seed in range(60):
        path.write_bytes(damaged_file(whole, seed))
        try:
            trio.run(use)
        except StorageError as error:
            named.append(error)
        for rest in tmp_path.glob(f"{NAME}-*"):
            rest.unlink()
    assert len(named) > 10
    assert all(NAME in found.message for found in named)


def after_power_cuts(tmp_path: Path, how: str = "") -> Iterator[str]:
    """What is wrong after each of some power cuts; empty: nothing."""
    work, after = tmp_path / "work", tmp_path / "after"
    for seed in range(4):
        rng, recorder = random.Random(seed), Recorder()
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        trio.run(_write_and_note, work, recorder, how)
        end = next(i for i, event in enumerate(recorder.events) if event[0] == "over")
        for _ in range(15):
            shutil.rmtree(after, ignore_errors=True)
            after.mkdir()
            moment = rng.randrange(end + 1)
            for name, data in recorder.image(moment, rng).items():
                (after / name).write_bytes(data)
            yield trio.run(_lost, after, recorder.acknowledged(moment))


async def _write_and_note(folder: Path, recorder: Recorder, how: str) -> None:
    with simulated_vfs(recorder) as vfs:
        async with opened(folder, vfs=vfs) as objects:
            if how:
                assert objects._db is not None
                objects._db.run(f"PRAGMA {how}")
            for i in range(20):
                await objects.write(add(f"{i}"))
                recorder.note("acknowledged", f"{i}")
            recorder.note("over")


async def _lost(folder: Path, wanted: list[str]) -> str:
    try:
        async with opened(folder) as objects:
            there = await objects.read(ids)
    except StorageError as error:
        return error.message
    return "" if there[: len(wanted)] == wanted else f"{there} instead of {wanted}"


def test_a_power_cut_takes_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    assert [wrong for wrong in after_power_cuts(tmp_path) if wrong] == []


def test_the_check_can_fail(tmp_path: Path) -> None:
    assert any(after_power_cuts(tmp_path, "synchronous = OFF"))
