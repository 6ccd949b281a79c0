"""Whether this program knows all that is in a data directory, before anything in it is changed.

Each file is checked again by what opens it. But then others have been opened, and brought up to
date, before it: a folder that is refused must be as it was, so that the llcuda that wrote it goes
on with it.
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import apsw

from llcuda_net.errors import StorageError
from llcuda_net.storage.data_dir import RESTORING, journal_of
from llcuda_net.storage.formats import version_file
from llcuda_net.storage.journal import format as framing
from llcuda_net.storage.journal import reserve
from llcuda_net.storage.objects.database import NAME as OBJECTS_NAME
from llcuda_net.storage.objects.migrations import OBJECTS
from llcuda_net.storage.results import migrations
from llcuda_net.storage.results.connection import connect, errors
from llcuda_net.storage.results.migrations import DERIVED, MAIN, Migration
from llcuda_net.storage.results.sqlite import DERIVED as DERIVED_NAME
from llcuda_net.storage.results.sqlite import RESULTS

#: The databases of a data directory, with their schemas.
SCHEMAS: dict[str, tuple[Migration, ...]] = {
    RESULTS: MAIN,
    DERIVED_NAME: DERIVED,
    OBJECTS_NAME: OBJECTS,
}


def check(directory: Path) -> dict[str, int]:
    """Return if this program can read a data directory, whether or not a server uses it. Blocks.

    Returns:
        The version of each database that is there.

    Raises:
        NewerFormat: something there is newer; all is as it was.
        StorageError: a restore into it was cut off, or a file cannot be read.
    """
    if (directory / RESTORING).exists():
        raise StorageError(
            f"a restore into {directory} was cut off: run llcuda store restore again",
            StorageError.REFUSED,
        )
    version_file.check(directory)
    _check_journal(directory)
    return {
        name: _version(directory / name, known)
        for name, known in SCHEMAS.items()
        if (directory / name).exists()
    }


def check_copy(directory: Path) -> None:
    """As `check`, of a copy that nobody uses: not even SQLite writes there.

    Raises:
        NewerFormat: something there is newer.
        StorageError: a file cannot be read.
    """
    version_file.check(directory)
    _check_journal(directory)
    for name, known in SCHEMAS.items():
        if (directory / name).exists():
            with (
                errors(f"cannot open {directory / name}"),
                closing(connect_copy(directory / name)) as db,
            ):
                migrations.check(db, known)


def connect_copy(path: Path) -> apsw.Connection:
    """A connection that reads a database which nobody writes, and writes nothing beside it."""
    name = f"file:{quote(str(path.absolute()))}?immutable=1"
    return apsw.Connection(name, flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI)


def _version(path: Path, known: tuple[Migration, ...]) -> int:
    try:
        with errors(f"cannot open {path}"), closing(connect(path, write=False)) as db:
            return migrations.check(db, known)
    except StorageError as error:
        if error.code == StorageError.REFUSED or path.name != DERIVED_NAME:
            raise
        return 0  # the index is made again


def _check_journal(directory: Path) -> None:
    """See that no segment of the journal, nor its reserve, is of a later format."""
    folder = journal_of(directory)
    try:
        paths = [
            path for path in folder.iterdir() if path.name.endswith((".journal", reserve.NAME))
        ]
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise StorageError(f"the journal in {folder} cannot be read: {error}") from error
    for path in sorted(paths):
        try:
            with path.open("rb") as file:
                head = file.read(framing.HEADER_SIZE)
        except FileNotFoundError:  # a server deletes them
            continue
        except OSError as error:
            raise StorageError(f"the journal in {folder} cannot be read: {error}") from error
        if framing.is_of_later_format(head):
            raise version_file.newer(
                str(path), directory, framing.format_of(head), framing.format_of(framing.MAGIC)
            )
