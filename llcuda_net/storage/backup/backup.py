"""Copies a data directory as it is at one moment, while its server goes on.

    BACKUP/backup.json    what there is, with checksums
    BACKUP/data/          a data directory: a server could be started on a copy of it

Databases are copied page by page by SQLite, the journal as `journal.py` says, all other files as
they are. Models are left out, since they can be had again, and so are results that are to be
erased. Nothing in the data directory is changed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import apsw

from llcuda_net.errors import StorageError
from llcuda_net.storage.backup import journal
from llcuda_net.storage.backup.manifest import DATA, NAME, Copied, Done, Manifest, checksum, copy
from llcuda_net.storage.backup.moment import Moment, taken
from llcuda_net.storage.backup.staging import is_full, staged
from llcuda_net.storage.data_dir import create_private, journal_of
from llcuda_net.storage.formats import gate, version_file
from llcuda_net.storage.results.connection import as_storage_error
from llcuda_net.storage.results.sqlite import RESULTS
from llcuda_net.util.version import package_version

#: Where `llcuda-server --processes` has its database, and the data directories of its processes.
POSTGRES, PROCESSES = "postgres", "processes"
#: Pages that are copied at a time.
_PAGES = 256
#: Files that are made anew, or are of this moment only.
_NOT_COPIED = ("lock", version_file.NAME)


@dataclass(frozen=True)
class _Root:
    """A data directory, and where it is in the backup."""

    source: Path
    path: str

    def within(self, name: str) -> str:
        """The path of a file of it in the backup."""
        return f"{self.path}/{name}" if self.path else name


def back_up(directory: Path, target: Path, done: Done = lambda _: None) -> Manifest:
    """Make a backup; it is on the disk, and has its name, when this returns. Blocks.

    Args:
        done: told of the bytes that were copied.

    Raises:
        NewerFormat: a newer llcuda wrote the directory.
        StorageError: it cannot be read, or the backup not be written; there is none then.
    """
    if not directory.is_dir():
        raise StorageError(
            f"there is no data directory {directory}: --data-dir is another one",
            StorageError.REFUSED,
        )
    roots = _roots(directory)
    manifest = Manifest(llcuda=package_version())
    with _writing(target), staged(target) as new:
        for root in roots:
            folder = new / DATA / root.path
            folder.mkdir(mode=0o700, parents=True)
            manifest.versions |= {
                root.within(name): number for name, number in gate.check(root.source).items()
            }
            with taken(root.source) as moment:
                if not manifest.created:
                    manifest.created = datetime.now(UTC).isoformat(timespec="milliseconds")
                _copy(root, moment, folder, manifest, done)
        path = new / NAME
        path.write_bytes(manifest.encode())
        path.chmod(0o600)
        _sync(path)
    return manifest


def _roots(directory: Path) -> list[_Root]:
    """The data directory, and those of its processes."""
    if (directory / POSTGRES).exists():
        raise StorageError(
            f"{directory} has the database of llcuda-server --processes: stop that server and copy "
            "the folder, or use llcuda store migrate (docs/operating.md)",
            StorageError.REFUSED,
        )
    roots = [_Root(directory, "")]
    for path in sorted((directory / PROCESSES).glob("*")):
        if path.name.isdigit():
            roots.append(_Root(path, f"{PROCESSES}/{path.name}"))
    return roots


@contextmanager
def _writing(target: Path) -> Iterator[None]:
    """Raise what fails as StorageError."""
    try:
        yield
    except apsw.FullError as error:
        raise _no_room(target) from error
    except apsw.Error as error:
        raise as_storage_error(error, f"{target} cannot be made") from error
    except OSError as error:
        if is_full(error):
            raise _no_room(target) from error
        of = f" ({error.filename})" if error.filename else ""
        raise StorageError(
            f"{target} cannot be written: {error.strerror or error}{of}", StorageError.REFUSED
        ) from error


def _no_room(target: Path) -> StorageError:
    return StorageError(
        f"there is no room for {target}: free some disk space, or choose another place",
        StorageError.FULL,
    )


def _copy(root: _Root, moment: Moment, folder: Path, manifest: Manifest, done: Done) -> None:
    """Copy one data directory."""
    if not root.path:
        manifest.server, manifest.results = moment.server, moment.results()
    for name, database in moment.databases.items():
        _copy_database(database, folder / name, done)
        _add(manifest, root.within(name), *checksum(folder / name))
    new = journal_of(folder)
    new.mkdir(mode=0o700)
    # A journal says of a database which one it is: only SQLite's is beside it for certain.
    store = ["sqlite"] if RESULTS in moment.databases else []
    manifest.running += journal.write(moment.journal, new, store)
    for path in sorted(new.iterdir()):
        size, found = checksum(path)
        done(size)
        _add(manifest, root.within(f"{new.name}/{path.name}"), size, found)
    for path in sorted(root.source.iterdir()):
        if _is_plain(path):
            try:
                _add(manifest, root.within(path.name), *copy(path, folder / path.name, done))
            except FileNotFoundError:  # it went away
                continue
    version_file.note(folder)
    _add(manifest, root.within(version_file.NAME), *checksum(folder / version_file.NAME))


def _add(manifest: Manifest, path: str, size: int, sha256: str) -> None:
    manifest.files.append(Copied(path, size, sha256))


def _is_plain(path: Path) -> bool:
    """Whether a file is copied as it is."""
    databases = tuple(gate.SCHEMAS)
    return (
        path.is_file()
        and not path.is_symlink()
        and path.name not in _NOT_COPIED
        and not path.name.startswith(databases)
        and not path.name.endswith(".new")
    )


def _copy_database(source: apsw.Connection, target: Path, done: Done) -> None:
    """Copy what a connection's transaction sees; it is on the disk when this returns."""
    with closing(_new_database(target)) as new:
        size = source.execute("PRAGMA page_size").get
        with new.backup("main", source, "main") as backup:
            while not backup.done:
                left = backup.remaining
                backup.step(_PAGES)
                done(max(0, (left or backup.page_count) - backup.remaining) * size)
    _sync(target)


def _new_database(path: Path) -> apsw.Connection:
    create_private(path)
    new = apsw.Connection(str(path))
    new.execute("PRAGMA synchronous = OFF; PRAGMA journal_mode = OFF")
    return new


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def size_of(directory: Path) -> int:
    """About how many bytes a backup has."""
    sizes = 0
    with suppress(OSError), os.scandir(directory) as entries:
        for entry in entries:
            if entry.is_file(follow_symlinks=False) and not entry.name.endswith("-shm"):
                sizes += entry.stat().st_size
    return sizes
