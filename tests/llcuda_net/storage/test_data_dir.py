"""Who may read a data directory: nobody but its owner, whatever the umask and what was there."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from structlog.testing import CapturingLogger

from llcuda_net.errors import StorageError
from llcuda_net.storage import data_dir
from llcuda_net.storage.data_dir import prepare
from llcuda_net.storage.records import Ended, TokenLog
from llcuda_net.storage.results.sqlite import SqliteStore
from llcuda_net.storage.storage import Storage
from tests.support.storage.records import MODEL, opened


@pytest.fixture(params=[0o000, 0o022], ids=lambda mask: f"umask-{mask:03o}")
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def modes(folder: Path) -> dict[str, int]:
    """The modes of a folder and of everything in it, by path."""
    return {str(path.relative_to(folder)): mode(path) for path in [folder, *folder.rglob("*")]}


def wrong(folder: Path) -> dict[str, str]:
    """What anybody but the owner may use."""
    return {
        name: f"{found:o}"
        for name, found in modes(folder).items()
        if found != (0o700 if (folder / name).is_dir() else 0o600)
    }


async def fill(folder: Path) -> None:
    """Serve the folder: one result is stored, one generation is open in the journal."""
    storage = Storage(folder, interval=0)
    async with trio.open_nursery() as nursery:
        await nursery.start(storage.run)
        await storage.accepted(storage.start(opened(2)))
        kept = storage.start(opened(1))
        await storage.accepted(kept)
        log = TokenLog(["a"], [1])
        kept.append(log.pieces, log.ids)
        await storage.written()
        end = Ended(state="done", reason="stop", model=MODEL, finished=5)
        await storage.finish(kept, end, log)
        with_index = SqliteStore(folder, write=True)
        with_index.search_index.open()
        names = {name.partition("/")[0] for name in modes(folder)}
        assert {"results.db", "results.db-wal", "results.db-shm", "derived.db", "lock"} <= names
        found = wrong(folder)
        with_index.close()
        nursery.cancel_scope.cancel()
    assert found == {}
    assert wrong(folder) == {}


def open_all(folder: Path) -> None:
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)


def open_volume(folder: Path) -> None:
    (folder / "lost+found").mkdir(mode=0o700)
    folder.chmod(0o777)


@pytest.mark.usefixtures("umask")
async def test_a_new_folder_is_its_owners_alone(tmp_path: Path) -> None:
    await fill(tmp_path / "data")


async def test_a_folder_that_was_open_is_closed_with_all_that_is_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = CapturingLogger()
    monkeypatch.setattr(data_dir, "log", log)
    folder = tmp_path / "data"
    await fill(folder)
    open_all(folder)
    await fill(folder)
    said = {call.args[0]: call.kwargs for call in log.calls}
    assert said["data_dir_closed_to_others"]["mode"] == "755"
    assert said["files_closed_to_others"]["files"] >= 4
    log.calls.clear()
    await fill(folder)
    assert log.calls == []


async def test_an_empty_folder_that_somebody_made_is_closed(tmp_path: Path) -> None:
    open_volume(tmp_path)
    await fill(tmp_path)


def test_a_command_that_writes_closes_the_database_that_it_opens(tmp_path: Path) -> None:
    SqliteStore(tmp_path, write=True).close()
    (tmp_path / "results.db").chmod(0o644)
    SqliteStore(tmp_path, write=True).close()
    assert mode(tmp_path / "results.db") == 0o600


def refusal(folder: Path) -> str:
    with pytest.raises(StorageError) as caught:
        prepare(folder)
    message = str(caught.value)
    assert "\n" not in message
    assert "--data-dir-shared" in message
    assert not (folder / "journal").exists()
    return message


def test_a_folder_of_other_things_keeps_its_mode(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "letter").touch(0o644)
    assert "holds other things" in refusal(tmp_path)
    assert (mode(tmp_path), mode(tmp_path / "letter")) == (0o755, 0o644)


def test_a_folder_of_somebody_else_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o700)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert "belongs to the user" in refusal(tmp_path)


def test_a_link_of_somebody_else_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in /tmp, where anybody may make one that leads to another folder of ours."""
    (tmp_path / "ours").mkdir(mode=0o700)
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "ours")
    assert prepare(link) == link / "journal"
    (tmp_path / "ours" / "journal").rmdir()
    found = link.lstat()
    stranger = os.stat_result((*found[:4], found.st_uid + 1, *found[5:]))
    monkeypatch.setattr(Path, "lstat", lambda path: stranger if path == link else os.lstat(path))
    assert "is a link that the user" in refusal(link)


def test_a_folder_whose_mode_stays_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a file system without modes."""
    tmp_path.chmod(0o755)
    monkeypatch.setattr(os, "fchmod", lambda descriptor, mode: None)
    assert "can be read by others (mode 755)" in refusal(tmp_path)


def test_a_folder_that_is_meant_to_be_shared_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o770)
    (tmp_path / "letter").touch(0o644)
    (tmp_path / "results.db").touch(0o644)
    monkeypatch.setattr(data_dir, "_keep_private", lambda directory: pytest.fail("looked"))
    assert prepare(tmp_path, shared=True) == tmp_path / "journal"
    expected = {".": 0o770, "letter": 0o644, "results.db": 0o600}
    expected |= {"journal": 0o700, "transient": 0o700}
    assert modes(tmp_path) == expected


@pytest.mark.parametrize("name", ["data", "data/journal", "data/transient"])
def test_a_link_that_leads_nowhere_and_a_file_are_named_as_what_they_are(
    tmp_path: Path, name: str
) -> None:
    path = tmp_path / name
    path.parent.mkdir(mode=0o700, exist_ok=True)
    path.symlink_to(tmp_path / "nowhere")
    with pytest.raises(StorageError, match=f"{path} is a link to no folder"):
        prepare(tmp_path / "data")
    path.unlink()
    path.touch()
    with pytest.raises(StorageError, match=f"{path} is no folder"):
        prepare(tmp_path / "data")
