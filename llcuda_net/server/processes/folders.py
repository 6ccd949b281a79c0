"""The data directory of several processes, and that of each in it.

A journal belongs to one process, and what is unfinished in it goes on where that process starts
again. So nothing starts while a journal with something unfinished would be left alone.
"""

from __future__ import annotations

from pathlib import Path

import structlog

from llcuda_net.errors import StorageError
from llcuda_net.storage.data_dir import journal_of
from llcuda_net.storage.journal.disk import RealFiles
from llcuda_net.storage.journal.recovery import read
from llcuda_net.storage.results.sqlite import RESULTS

log = structlog.get_logger(__name__)

_FOLDER = "processes"
#: What to do where results of another store are in a data directory.
MOVE = "llcuda store migrate, see docs/results.md"


def folder_of(directory: Path, number: int) -> Path:
    """The data directory of a process."""
    return directory / _FOLDER / str(number)


def left_by_processes(directory: Path, processes: int = 0) -> None:
    """See that no process beyond these has left something unfinished. Blocks.

    Raises:
        StorageError: one has; the message says with how many processes to start.
    """
    numbers = [int(one.name) for one in (directory / _FOLDER).glob("*") if one.name.isdigit()]
    for number in sorted(numbers, reverse=True):
        if number <= processes:
            return
        if count := unfinished(folder_of(directory, number)):
            raise StorageError(
                f"{folder_of(directory, number)} has {_requests(count)} that did not end: start "
                f"with --processes {max(number, 2)} until they have",
                StorageError.REFUSED,
            )


def left_by_one(directory: Path) -> None:
    """See that a server without --processes has left nothing unfinished; blocks.

    Raises:
        StorageError: it has.
    """
    if count := unfinished(directory):
        raise StorageError(
            f"{directory} has {_requests(count)} of a server without --processes that did not end: "
            "start it so until they have",
            StorageError.REFUSED,
        )
    if (directory / RESULTS).exists():
        log.warning(
            "results_elsewhere",
            file=str(directory / RESULTS),
            do=MOVE,
        )


def unfinished(directory: Path) -> int:
    """How many requests the journal of a data directory has that did not end; blocks."""
    journal = journal_of(directory)
    return len(read(journal, RealFiles()).generations) if journal.is_dir() else 0


def _requests(count: int) -> str:
    return f"{count} request{'' if count == 1 else 's'}"
