"""A folder that appears under its name only when it is whole.

It is made beside it, under another name, and held by a lock: what a backup that was killed has left
there is taken away by the next one.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from llcuda_net.errors import StorageError
from llcuda_net.storage.formats.version_file import sync_folder


@contextmanager
def staged(target: Path) -> Iterator[Path]:
    """A folder that gets the name `target` when the block ends; where it raises, nothing is left.

    Raises:
        StorageError: something is there by that name, or another process makes it.
        OSError: it cannot be made.
    """
    _refuse_there(target)
    if not target.parent.is_dir():
        raise StorageError(
            f"the folder {target.parent} does not exist: make it, or choose another one",
            StorageError.REFUSED,
        )
    new = target.with_name(f".{target.name}.partial")
    new.mkdir(mode=0o700, exist_ok=True)
    descriptor = os.open(new, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise StorageError(
                f"another process makes {target} just now", StorageError.REFUSED
            ) from error
        try:
            _empty(new)
            yield new
            sync_tree(new)
            _refuse_there(target)
            new.rename(target)
            sync_folder(target.parent)
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            raise
    finally:
        os.close(descriptor)


def _refuse_there(target: Path) -> None:
    if target.is_symlink() or target.exists():
        raise StorageError(
            f"{target} exists, and nothing is ever overwritten: choose another name",
            StorageError.REFUSED,
        )


def _empty(folder: Path) -> None:
    """Delete what a process that was killed has left."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def sync_tree(folder: Path) -> None:
    """Have the names in all folders on the disk; what the files hold is there already.

    Raises:
        OSError: the file system failed.
    """
    for path in [*folder.rglob("*"), folder]:
        if path.is_dir():
            sync_folder(path)


def is_full(error: OSError) -> bool:
    """Whether there was no room."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)
