"""A data directory at one moment, while its server goes on.

The databases are read in transactions that began at that moment: SQLite shows each reader what was
committed when it began, whatever is committed since. So that it is one moment for all, the locks of
those who write are held while it is taken, a few milliseconds: no result is committed then, so that
no generation leaves the journal. What the journal has gained since the databases were looked at is
only what has begun or went on: nothing is missing from both, and nothing that is in both counts
twice, since a start forgets a generation whose result is stored.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import apsw

from llcuda_net.errors import StorageError
from llcuda_net.storage.backup.journal import JournalMoment
from llcuda_net.storage.data_dir import journal_of
from llcuda_net.storage.directory_lock import holder
from llcuda_net.storage.objects.database import NAME as OBJECTS
from llcuda_net.storage.results.connection import connect, errors, rows, transaction
from llcuda_net.storage.results.sqlite import DERIVED, RESULTS

#: Those that are of one moment. The index may lag behind, and must not be ahead.
_LOCKED = (OBJECTS, RESULTS)


class Moment:
    """What was in a directory.

    Attributes:
        databases: by their names, each in a transaction that reads that moment.
        journal: its files.
        server: the address of the server that used the directory; None: none did.
    """

    def __init__(
        self, databases: dict[str, apsw.Connection], journal: JournalMoment, server: str | None
    ) -> None:
        self.databases = databases
        self.journal = journal
        self.server = server

    def __repr__(self) -> str:
        return f"<Moment of {', '.join(self.databases)} and {self.journal!r}>"

    def results(self) -> int | None:
        """How many results there are; None: there is no such database."""
        if RESULTS not in self.databases:
            return None
        return int(self.databases[RESULTS].execute("SELECT count(*) FROM results").get)


@contextmanager
def taken(directory: Path) -> Iterator[Moment]:
    """Take a moment of a directory, and hold it within the block. Blocks.

    Raises:
        StorageError: a database cannot be opened or locked, or the journal cannot be read.
    """
    with ExitStack() as stack:
        databases: dict[str, apsw.Connection] = {}
        if (directory / DERIVED).exists():
            databases[DERIVED] = _reading(directory / DERIVED, stack)
        with ExitStack() as locks:
            there = [name for name in _LOCKED if (directory / name).exists()]
            for name in there:
                _lock(directory / name, locks)
            for name in there:
                databases[name] = _reading(directory / name, stack)
            server = holder(directory)
            folder = journal_of(directory)
            try:
                journal = JournalMoment(folder, quiet=server is None)
            except OSError as error:
                raise StorageError(f"the journal in {folder} cannot be read: {error}") from error
            stack.callback(journal.release)
        yield Moment(databases, journal, server)


def _lock(path: Path, stack: ExitStack) -> None:
    """Have nobody else write into a database."""
    stack.enter_context(errors(f"{path} cannot be locked"))
    connection = stack.enter_context(closing(connect(path)))
    stack.enter_context(transaction(connection))


def _reading(path: Path, stack: ExitStack) -> apsw.Connection:
    """A connection in a transaction that reads what is committed now."""
    with errors(f"{path} cannot be read"):
        connection = stack.enter_context(closing(connect(path, write=False)))
        connection.execute("BEGIN")
        rows(connection, "SELECT count(*) FROM sqlite_schema")
    return connection
