"""Puts a backup into an empty data directory, after every checksum of it was compared.

The files are copied into a folder within the data directory, compared once more, and then moved to
their places. While that folder is there no server starts on the directory. So a restore that was
killed is either not to be seen, or begun anew; and the directory may be a volume, which cannot be
renamed.
"""

from __future__ import annotations

import os
import shutil
from contextlib import closing, suppress
from pathlib import Path

import apsw

from llcuda_net.errors import StorageError
from llcuda_net.storage.backup.manifest import DATA, Done, Manifest, copy, problems
from llcuda_net.storage.backup.staging import is_full, sync_tree
from llcuda_net.storage.data_dir import NOBODYS, RESTORING
from llcuda_net.storage.directory_lock import DirectoryLock
from llcuda_net.storage.formats import gate, version_file
from llcuda_net.storage.formats.version_file import sync_folder

_NEW = "new"
#: Problems that a message names.
_NAMED = 3


def check(backup: Path, done: Done = lambda _: None) -> Manifest:
    """See that a backup is as it was made, and that this program can read what it holds. Blocks.

    Args:
        done: told of the bytes that were read.

    Raises:
        NewerFormat: it, or something in it, is newer than this program.
        StorageError: there is none, or it is damaged.
    """
    manifest = Manifest.read(backup)
    found = list(problems(backup, manifest, done))
    if found:
        more = f", and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
        raise StorageError(
            f"the backup {backup} is damaged: {'; '.join(found[:_NAMED])}{more}",
            StorageError.DAMAGED,
        )
    for file in manifest.files:
        path = backup / DATA / file.path
        if path.name == version_file.NAME:
            gate.check_copy(path.parent)
    return manifest


def check_databases(backup: Path, manifest: Manifest) -> None:
    """See that SQLite finds nothing wrong with the databases of a backup. Blocks.

    Raises:
        StorageError: it does.
    """
    for path in sorted(manifest.versions):
        try:
            with closing(gate.connect_copy(backup / DATA / path)) as database:
                found = database.execute("PRAGMA integrity_check(1)").get
        except apsw.Error as error:
            found = str(error)
        if found != "ok":
            raise StorageError(
                f"{path} of {backup} was damaged when it was backed up: {found}",
                StorageError.DAMAGED,
            )


def restore(backup: Path, directory: Path, done: Done = lambda _: None) -> Manifest:
    """Restore a backup; all is on the disk when this returns. Blocks.

    Args:
        directory: is empty, or does not exist; or an earlier restore into it was cut off.
        done: told of the bytes that were read, and of those that were copied.

    Raises:
        NewerFormat, StorageError: as `check`; or the directory is not empty, is a server's, or
            cannot be written: it is as it was then.
    """
    _refuse_filled(directory)
    manifest = check(backup, done)
    try:
        made = not directory.exists()
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = DirectoryLock(directory, "llcuda store restore")
        try:
            _refuse_filled(directory)
            _fill(backup, directory, manifest, done)
        except BaseException:
            _clear(directory)
            (directory / "lock").unlink(missing_ok=True)
            if made:
                with suppress(OSError):
                    directory.rmdir()
            raise
        finally:
            lock.release()
    except OSError as error:
        if is_full(error):
            raise StorageError(
                f"there is no room for {manifest.size:,} bytes in {directory}: free some disk "
                "space, or choose another --data-dir",
                StorageError.FULL,
            ) from error
        raise StorageError(
            f"{directory} cannot be written ({error.strerror or error}): choose another --data-dir",
            StorageError.REFUSED,
        ) from error
    return manifest


def _refuse_filled(directory: Path) -> None:
    """Raise StorageError if a directory holds something."""
    if directory.exists() and not directory.is_dir():
        raise StorageError(f"{directory} is no folder", StorageError.REFUSED)
    names = {path.name for path in directory.iterdir()} if directory.exists() else set()
    if RESTORING not in names and names - {*NOBODYS, "lock"}:
        raise StorageError(
            f"{directory} is not empty, and nothing is ever overwritten: give an empty --data-dir, "
            "or move that one away",
            StorageError.REFUSED,
        )


def _fill(backup: Path, directory: Path, manifest: Manifest, done: Done) -> None:
    """Copy all into a directory that is locked."""
    _clear(directory)
    marker = directory / RESTORING
    new = marker / _NEW
    new.mkdir(mode=0o700, parents=True)
    marker.chmod(0o700)
    sync_folder(directory)
    folders = {str(Path(file.path).parent) for file in manifest.files}
    for folder in sorted(folders):
        (new / folder).mkdir(mode=0o700, parents=True, exist_ok=True)
    for file in manifest.files:
        if copy(backup / DATA / file.path, new / file.path, done) != (file.bytes, file.sha256):
            raise StorageError(
                f"{backup / DATA / file.path} was changed while it was read", StorageError.DAMAGED
            )
    _give(directory, new)
    sync_tree(new)
    for path in new.iterdir():
        path.rename(directory / path.name)
    sync_folder(directory)
    shutil.rmtree(marker)
    sync_folder(directory)


def _give(directory: Path, new: Path) -> None:
    """Give the files to whose folder it is, where root restores for another user."""
    owner = directory.stat()
    if os.geteuid() == 0 and owner.st_uid != 0:
        for path in (new, *new.rglob("*"), directory / "lock"):
            os.chown(path, owner.st_uid, owner.st_gid)


def _clear(directory: Path) -> None:
    """Take away what a restore has made that was cut off; nothing where there was none."""
    marker = directory / RESTORING
    if not marker.exists():
        return
    for path in directory.iterdir():
        if path.name in (RESTORING, "lock", *NOBODYS):
            continue
        # All that is here came from the backup: the directory was empty when that began.
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    shutil.rmtree(marker)
