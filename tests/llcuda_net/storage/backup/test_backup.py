"""A backup has what the directory had at one moment; it appears whole, or not at all."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import apsw
import pytest
import trio

from llcuda_net.errors import NewerFormat, StorageError
from llcuda_net.storage.backup import backup, manifest, moment, restore
from llcuda_net.storage.backup.backup import back_up
from llcuda_net.storage.backup.journal import JournalMoment
from llcuda_net.storage.backup.manifest import DATA, NAME, Manifest
from llcuda_net.storage.backup.staging import staged
from llcuda_net.storage.data_dir import RESTORING, journal_of, prepare
from llcuda_net.storage.directory_lock import DirectoryLock
from llcuda_net.storage.formats import version_file
from llcuda_net.storage.journal import format as framing
from llcuda_net.storage.journal import recovery
from llcuda_net.storage.journal.disk import RealFiles
from llcuda_net.storage.records import Ended, TokenLog, encode
from llcuda_net.storage.results.interface import Query
from llcuda_net.storage.results.sqlite import SqliteStore
from llcuda_net.storage.storage import Storage
from tests.support.storage.directories import OPEN, RESULTS, contents, copied, filled
from tests.support.storage.journals import leave_open
from tests.support.storage.records import MODEL, opened, result


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return filled(tmp_path_factory.mktemp("backup") / "data")


@pytest.fixture
def directory(original: Path, tmp_path: Path) -> Path:
    return copied(original, tmp_path / "data")


@pytest.fixture
def made(directory: Path, tmp_path: Path) -> Path:
    """A backup."""
    back_up(directory, tmp_path / "backup")
    return tmp_path / "backup"


def results_of(directory: Path) -> list[bytes]:
    with closing(SqliteStore(directory)) as store:
        return [encode(one) for one in store.export(Query(limit=None))]


def open_in(directory: Path) -> list[str]:
    return [one.id for one in recovery.read(journal_of(directory), RealFiles()).generations]


def test_all_is_there_and_restored_the_same(directory: Path, tmp_path: Path) -> None:
    (directory / "tokens").write_text("a user's\n")
    before = contents(directory)
    done: list[int] = []
    found = back_up(directory, tmp_path / "backup", done.append)
    assert contents(directory) == before
    assert (found.results, found.running, found.server) == (RESULTS, OPEN, None)
    assert found.versions == {"results.db": 3, "derived.db": 4, "objects.db": 7}
    assert Manifest.read(tmp_path / "backup") == found
    assert sum(done) >= found.size * 0.9
    for path in (tmp_path / "backup").rglob("*"):
        assert not path.stat().st_mode & 0o77, path
    restored = tmp_path / "restored"
    assert restore.restore(tmp_path / "backup", restored) == found
    assert results_of(restored) == results_of(directory) == [encode(result(n)) for n in range(3)]
    assert open_in(restored) == open_in(directory) == [opened(7).generation]
    assert (restored / "tokens").read_text() == "a user's\n"
    with closing(SqliteStore(restored)) as store:
        assert store.search_index.lag() == 0
        assert not [problem for problem in store.verify() if problem]
    for path in restored.rglob("*"):
        assert not path.stat().st_mode & 0o77, path
    assert not (restored / RESTORING).exists()
    restore.check_databases(tmp_path / "backup", found)


async def test_a_server_that_commits_meanwhile(tmp_path: Path) -> None:
    """What was acknowledged before is there, what runs goes on, what comes later is not."""
    directory, copy = tmp_path / "data", tmp_path / "backup"
    async with trio.open_nursery() as nursery:
        storage = Storage(directory)
        await nursery.start(storage.run)

        async def finish(number: int) -> None:
            entry = storage.start(opened(number))
            await storage.accepted(entry)
            entry.append(["a", "b"], [1, 2])
            ended = Ended(state="done", model=MODEL, finished=5)
            await storage.finish(entry, ended, TokenLog(["a", "b"], [1, 2]))

        for number in range(5):
            await finish(number)
        running = storage.start(opened(9))
        await storage.accepted(running)
        running.append(["x", "y"], [3, 4])
        await storage.written()
        stop = trio.Event()

        async def go_on() -> None:
            number = 10
            while not stop.is_set():
                await finish(number)
                number += 1

        nursery.start_soon(go_on)
        found = await trio.to_thread.run_sync(back_up, directory, copy)
        stop.set()
        nursery.cancel_scope.cancel()
    assert found.server == ""
    await trio.to_thread.run_sync(restore.restore, copy, tmp_path / "restored")
    async with trio.open_nursery() as nursery:
        storage = Storage(tmp_path / "restored")
        await nursery.start(storage.run)
        assert storage.problems == []
        by_id = {one.entry.opened.generation: one for one in storage.recovered}
        again = by_id[opened(9).generation]
        assert again.log.pieces == ["x", "y"]
        for number in range(5):
            assert await storage.get(opened(number).generation, None, lambda one: one.text) == "ab"
        nursery.cancel_scope.cancel()


def test_what_is_to_be_erased_is_not_in_it(directory: Path, tmp_path: Path) -> None:
    leave_open(directory, opened(8, transient=True, request={"prompt": "my secret"}))
    (directory / "transient" / "x.result").write_bytes(b"my secret")
    found = back_up(directory, tmp_path / "backup")
    assert found.running == OPEN
    assert not [name for name, data in contents(tmp_path / "backup").items() if b"secret" in data]


def test_models_links_and_what_is_of_the_moment_are_left_out(
    directory: Path, tmp_path: Path
) -> None:
    (directory / "models").mkdir()
    (directory / "models" / "large.gguf").touch()
    (directory / "link").symlink_to("/etc/passwd")
    (directory / "version.new").touch()
    DirectoryLock(directory, "x").release()
    found = back_up(directory, tmp_path / "backup")
    assert {file.path for file in found.files} == {
        "results.db",
        "derived.db",
        "objects.db",
        "journal/0000000001.journal",
        "journal/synced",
        "version.json",
    }


def test_processes_have_journals_of_their_own(directory: Path, tmp_path: Path) -> None:
    prepare(directory / "processes")
    leave_open(directory / "processes" / "2", opened(5))
    found = back_up(directory, tmp_path / "backup")
    assert found.running == OPEN + 1
    restore.restore(tmp_path / "backup", tmp_path / "restored")
    assert open_in(tmp_path / "restored/processes/2") == [opened(5).generation]


def test_a_database_of_processes_is_refused(directory: Path, tmp_path: Path) -> None:
    (directory / "postgres").mkdir()
    with pytest.raises(StorageError, match="llcuda store migrate"):
        back_up(directory, tmp_path / "backup")


def test_nothing_is_overwritten(directory: Path, tmp_path: Path) -> None:
    target = tmp_path / "backup"
    target.mkdir()
    with pytest.raises(StorageError, match="exists, and nothing is ever overwritten"):
        back_up(directory, target)
    assert list(target.iterdir()) == []
    with pytest.raises(StorageError, match="does not exist: make it"):
        back_up(directory, tmp_path / "nowhere" / "backup")
    with pytest.raises(StorageError, match="there is no data directory"):
        back_up(tmp_path / "nowhere", tmp_path / "other")


def test_what_a_killed_backup_left_is_taken_away(directory: Path, tmp_path: Path) -> None:
    partial = tmp_path / ".backup.partial"
    (partial / "data").mkdir(parents=True)
    (partial / "data" / "old").touch()
    back_up(directory, tmp_path / "backup")
    assert not partial.exists()
    assert not (tmp_path / "backup/data/old").exists()


def test_two_at_once(directory: Path, tmp_path: Path) -> None:
    with staged(tmp_path / "backup"), pytest.raises(StorageError, match="another process"):
        back_up(directory, tmp_path / "backup")


@pytest.mark.parametrize("at", range(5))
@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "full")])
def test_a_backup_that_ends_early_leaves_nothing(
    directory: Path, tmp_path: Path, at: int, error: BaseException
) -> None:
    count = 0

    def stop(_: int) -> None:
        nonlocal count
        if count == at:
            raise error
        count += 1

    before = contents(tmp_path)
    with pytest.raises((KeyboardInterrupt, StorageError)) as caught:
        back_up(directory, tmp_path / "backup", stop)
    assert contents(tmp_path) == before
    if isinstance(caught.value, StorageError):
        assert caught.value.code == StorageError.FULL
        assert str(caught.value).startswith("there is no room for")


def test_a_database_that_does_not_fit(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite itself has no room: it may write so few pages."""
    create = backup._new_database

    def small(path: Path) -> apsw.Connection:
        new = create(path)
        new.execute("PRAGMA max_page_count = 3")
        return new

    monkeypatch.setattr(backup, "_new_database", small)
    before = contents(tmp_path)
    with pytest.raises(StorageError, match="there is no room") as caught:
        back_up(directory, tmp_path / "backup")
    assert caught.value.code == StorageError.FULL
    assert contents(tmp_path) == before


# -- the journal ------------------------------------------------------------------------------


def test_files_that_go_away_while_they_are_opened(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server has begun a new segment, and deletes the one before."""
    folder = journal_of(directory)
    (segment,) = folder.glob("*.journal")
    open_, moved = os.open, folder / "0000000009.journal"

    def once(path: Any, *arguments: Any) -> int:
        if Path(path) == segment and segment.exists():
            segment.rename(moved)
        return open_(path, *arguments)

    monkeypatch.setattr(os, "open", once)
    found = JournalMoment(folder, quiet=False)
    assert found.listdir(folder) == [moved.name, "reserve"]
    assert [one.id for one in recovery.read(folder, found).generations] == open_in(directory)
    found.release()


def test_what_is_written_later_is_not_read(directory: Path) -> None:
    folder = journal_of(directory)
    (segment,) = folder.glob("*.journal")
    with closing_moment(folder) as found:
        before = found.read(segment)
        with segment.open("ab") as file:
            file.write(b"later")
        segment.unlink()
        assert found.read(segment) == before


def test_a_segment_that_was_just_begun_may_follow_one_that_is_not_whole(directory: Path) -> None:
    folder = journal_of(directory)
    (segment,) = folder.glob("*.journal")
    next_ = folder / f"{int(segment.stem) + 1:010d}.journal"
    next_.write_bytes(framing.Header(int(next_.stem), 99).encode())
    with segment.open("ab") as file:
        file.write(b"\5\0\0\0half")
    with closing_moment(folder) as found:
        read = recovery.read(folder, found)
        assert read.problems == []
        assert [one.id for one in read.generations] == open_in(directory)


@contextmanager
def closing_moment(folder: Path) -> Iterator[JournalMoment]:
    found = JournalMoment(folder, quiet=False)
    try:
        yield found
    finally:
        found.release()


def test_a_damaged_journal_is_not_backed_up(directory: Path, tmp_path: Path) -> None:
    (segment,) = journal_of(directory).glob("*.journal")
    data = bytearray(segment.read_bytes())
    data[framing.HEADER_SIZE + 20] ^= 1
    segment.write_bytes(data)
    with pytest.raises(StorageError, match=r"is damaged .*restart llcuda-server"):
        back_up(directory, tmp_path / "backup")
    assert not (tmp_path / "backup").exists()


def test_a_moment_holds_the_locks_only_while_it_is_taken(directory: Path) -> None:
    with moment.taken(directory), closing(SqliteStore(directory, write=True)) as store:
        store.put([result(50)])


# -- restore ----------------------------------------------------------------------------------


def test_every_byte_of_a_backup_is_checked(made: Path, tmp_path: Path) -> None:
    for file in Manifest.read(made).files:
        path = made / DATA / file.path
        data = path.read_bytes()
        for changed in (data[:-1], data + b"x", bytes([data[0] ^ 1]) + data[1:]):
            path.write_bytes(changed)
            with pytest.raises(StorageError, match=f"{file.path} is not what was backed up"):
                restore.restore(made, tmp_path / "restored")
        path.unlink()
        with pytest.raises(StorageError, match=f"{file.path} cannot be read"):
            restore.restore(made, tmp_path / "restored")
        path.write_bytes(data)
    assert not (tmp_path / "restored").exists()
    restore.restore(made, tmp_path / "restored")


def test_the_manifest_is_checked_as_well(made: Path) -> None:
    path = made / NAME
    data = path.read_bytes()
    for at in range(0, len(data) - 2, 7):  # the last bytes are white space
        changed = bytearray(data)
        changed[at] ^= 2
        path.write_bytes(changed)
        try:
            assert Manifest.read(made) == Manifest.read(made)
        except StorageError as error:
            assert "damaged" in str(error) or "has version" in str(error)  # noqa: PT017
        else:
            found = Manifest.read(made)
            path.write_bytes(data)
            assert found == Manifest.read(made)  # white space
    with pytest.raises(StorageError, match="is no backup"):
        Manifest.read(made / DATA)


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "a/../../x", ""])
def test_no_file_leaves_the_folder(made: Path, path: str) -> None:
    found = Manifest.read(made)
    found.files[0].path = path
    (made / NAME).write_bytes(found.encode())
    with pytest.raises(StorageError, match="is damaged"):
        Manifest.read(made)


def test_a_newer_backup_is_refused(made: Path, tmp_path: Path) -> None:
    (made / NAME).write_text('{"format": 2, "llcuda": "9.8.7", "what": "is to come"}')
    before = contents(tmp_path)
    with pytest.raises(NewerFormat, match=r"has version 2, .* up to 1: llcuda 9\.8\.7 wrote it"):
        restore.restore(made, tmp_path / "restored")
    assert contents(tmp_path) == before


def test_a_backup_of_a_newer_directory_is_refused(made: Path, tmp_path: Path) -> None:
    found = Manifest.read(made)
    path = made / DATA / version_file.NAME
    path.write_text('{"llcuda": "9.8.7", "formats": {"journal": 2}}')
    (file,) = [one for one in found.files if one.path == version_file.NAME]
    file.bytes, file.sha256 = manifest.checksum(path)
    (made / NAME).write_bytes(found.encode())
    with pytest.raises(NewerFormat, match=r"llcuda 9\.8\.7 wrote it"):
        restore.restore(made, tmp_path / "restored")
    assert not (tmp_path / "restored").exists()


def test_only_an_empty_directory_is_restored_into(made: Path, tmp_path: Path) -> None:
    target = tmp_path / "restored"
    target.mkdir()
    (target / "mine").touch()
    with pytest.raises(StorageError, match="is not empty, and nothing is ever overwritten"):
        restore.restore(made, target)
    assert contents(target) == {"mine": b""}
    (target / "mine").unlink()
    (target / "lost+found").mkdir()  # a volume
    restore.restore(made, target)
    assert len(results_of(target)) == RESULTS
    with pytest.raises(StorageError, match="is no folder"):
        restore.restore(made, made / NAME)


def test_a_directory_that_a_server_has_is_refused(made: Path, tmp_path: Path) -> None:
    target = tmp_path / "restored"
    target.mkdir()
    lock = DirectoryLock(target, "somewhere:1")
    with pytest.raises(StorageError, match="in use by"):
        restore.restore(made, target)
    lock.release()


@pytest.mark.parametrize("at", [0, 3, 6, 9, 11])
def test_a_restore_that_ends_early_leaves_nothing(made: Path, tmp_path: Path, at: int) -> None:
    count = 0

    def stop(_: int) -> None:
        nonlocal count
        if count == at:
            raise OSError(errno.ENOSPC, "full")
        count += 1

    before = contents(tmp_path)
    with pytest.raises((StorageError, OSError), match=r"no room|full"):
        restore.restore(made, tmp_path / "restored", stop)
    assert contents(tmp_path) == before


class _KilledError(BaseException):
    """Ends the restore as a kill does: nothing is cleaned up."""


@pytest.mark.parametrize("at", range(5))
def test_a_restore_that_was_killed_is_begun_anew(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """Between any two of the moves, and before them."""
    target, rename, count = tmp_path / "restored", Path.rename, 0

    def stop(path: Path, new: Path) -> Path:
        nonlocal count
        if count == at:
            raise _KilledError
        count += 1
        return rename(path, new)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", stop)
        patched.setattr(restore, "_clear", lambda _: None)
        with pytest.raises(_KilledError):
            restore.restore(made, target)
    assert (target / RESTORING).exists()
    with pytest.raises(StorageError, match="was cut off"):
        trio.run(Storage(target).run)
    restore.restore(made, target)
    assert results_of(target) == [encode(result(n)) for n in range(3)]
    assert not (target / RESTORING).exists()
    assert open_in(target) == [opened(7).generation]


def test_root_gives_the_files_to_whom_the_directory_belongs(made: Path, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may give files away")
    target = tmp_path / "restored"
    target.mkdir()
    shutil.chown(target, 12345, 12345)
    restore.restore(made, target)
    assert {path.stat().st_uid for path in target.rglob("*")} == {12345}
