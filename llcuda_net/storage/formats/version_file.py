"""version.json: which llcuda wrote a data directory last, and the formats that it used there.

Databases have the numbers of their migrations, and segments of the journal their magic. All else
in the folder has its number here. A server writes the file before it writes anything else; one that
does not know a number leaves the folder as it is. A folder without the file is of a llcuda before
there was one.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import msgspec

from llcuda_net.errors import NewerFormat, StorageError
from llcuda_net.storage.journal.disk import has_no_room
from llcuda_net.util.version import package_version

NAME = "version.json"
#: directory: which files and folders there are, and what each is. journal: its segments with their
#: kinds of records, the reserve and the marks. transient: the results that are erased.
#: Whoever changes one of these so that an earlier llcuda would misread it adds one.
FORMATS = {"directory": 1, "journal": 1, "transient": 1}


class VersionFile(msgspec.Struct):
    """What the file says.

    Attributes:
        llcuda: the version of the program that wrote the folder last.
        formats: the numbers that it used.
    """

    llcuda: str
    formats: dict[str, int]


def read(directory: Path) -> VersionFile | None:
    """What the file says; None: there is none.

    Raises:
        StorageError: it cannot be read.
    """
    path = directory / NAME
    try:
        return msgspec.json.decode(path.read_bytes(), type=VersionFile)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise StorageError(
            f"{path} cannot be read ({error.strerror}): choose another --data-dir",
            StorageError.REFUSED,
        ) from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise StorageError(
            f"{path} is damaged ({error}): delete it, unless a newer llcuda has used the folder",
            StorageError.REFUSED,
        ) from error


def wrote(directory: Path) -> str:
    """Who wrote a folder that this program does not know, in words."""
    with contextlib.suppress(StorageError):
        found = read(directory)
        if found is not None and found.llcuda != package_version():
            return f"llcuda {found.llcuda}"
    return "a newer llcuda"


def newer(
    place: str, directory: Path, found: object, known: object, otherwise: str = ""
) -> NewerFormat:
    """The error for a file of a data directory, or of a folder like one."""
    return NewerFormat(
        place,
        found,
        known,
        wrote=wrote(directory),
        ours=package_version(),
        otherwise=otherwise or "choose another --data-dir",
    )


def check(directory: Path) -> None:
    """Return if this program knows what the file says; it reads no other file.

    Raises:
        NewerFormat: it does not.
        StorageError: the file cannot be read.
    """
    file = read(directory)
    if file is None:
        return
    for name, found in file.formats.items():
        known = FORMATS.get(name, 0)
        if found > known:
            place = str(directory) if name == "directory" else f"the {name} format of {directory}"
            raise newer(place, directory, found, known)


def note(directory: Path) -> None:
    """Say in the file that this program writes the folder; it is on the disk when this returns.

    Raises:
        StorageError: it cannot be written; the old one is there.
    """
    ours = VersionFile(package_version(), FORMATS)
    with contextlib.suppress(StorageError):
        if read(directory) == ours:
            return
    path = directory / NAME
    new = path.with_suffix(".new")
    try:
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, msgspec.json.encode(ours) + b"\n")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        new.rename(path)
        sync_folder(directory)
    except OSError as error:
        with contextlib.suppress(OSError):
            new.unlink()
        raise StorageError(
            f"{path} cannot be written ({error.strerror or error}): free some disk space, or "
            "choose another --data-dir",
            StorageError.FULL if has_no_room(error) else StorageError.REFUSED,
        ) from error


def sync_folder(folder: Path) -> None:
    """Have the names in a folder on the disk.

    Raises:
        OSError: the file system failed.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
