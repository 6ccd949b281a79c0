"""A data directory with a bit of everything, and every byte of a folder."""

from __future__ import annotations

import shutil
from contextlib import closing
from pathlib import Path

import trio

from llcuda_net.storage.data_dir import prepare
from llcuda_net.storage.formats import version_file
from llcuda_net.storage.objects.database import Objects
from llcuda_net.storage.results.sqlite import SqliteStore
from tests.support.storage.journals import leave_open
from tests.support.storage.records import opened, result

#: Generations in the journal that `filled` makes, and results in the store.
OPEN, RESULTS = 1, 3


def filled(directory: Path) -> Path:
    """A data directory as a server leaves it that was stopped while it generated."""
    prepare(directory)
    version_file.note(directory)
    with closing(SqliteStore(directory, write=True)) as store:
        store.put([result(number) for number in range(RESULTS)])
        while store.update_index():
            pass

    async def make_objects() -> None:
        objects = Objects(directory)
        await objects.open()
        await objects.aclose()

    trio.run(make_objects)
    leave_open(directory, opened(7))
    return directory


def contents(folder: Path) -> dict[str, bytes]:
    """The bytes of every file in a folder; of folders in it, nothing.

    Without SQLite's shared memory, which holds nothing that is kept.
    """
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b""
        for path in folder.rglob("*")
        if not path.name.endswith("-shm")
    }


def copied(folder: Path, target: Path) -> Path:
    """A copy of a folder, as a kill would leave it."""
    shutil.copytree(folder, target)
    return target
