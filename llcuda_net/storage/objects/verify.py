"""Whether what clients keep is as it was written: every part of every file, every outcome.

Of objects.db its pages and its indices, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from llcuda_net.errors import StorageError
from llcuda_net.storage.objects.database import NAME, SqliteDatabase
from llcuda_net.storage.objects.files import hash_of
from llcuda_net.storage.objects.migrations import OBJECTS
from llcuda_net.storage.results import migrations
from llcuda_net.storage.results.connection import connect, errors, rows
from llcuda_net.storage.results.interface import Problem

#: Problems of the pages that are told.
_MOST = 100
_CHUNKS = (
    "SELECT chunks.id, coalesce(files.id, 'no file'), number, hash, data"
    " FROM chunks LEFT JOIN files ON files.seq = chunks.file WHERE chunks.id > ?"
    " ORDER BY chunks.id LIMIT 1"
)
_OUTCOMES = (
    "SELECT outcomes.id, coalesce(batches.id, 'no batch'), number + 1, hash, data"
    " FROM outcomes LEFT JOIN batches ON batches.seq = outcomes.batch WHERE outcomes.id > ?"
    " ORDER BY outcomes.id LIMIT 1"
)
#: The rows of a statement.
Rows = Callable[[str, Sequence[Any]], list[tuple[Any, ...]]]


def problems(directory: Path) -> Iterator[Problem | None]:
    """What is damaged in objects.db; None for each part that is as it was written.

    Nothing where there is no such file. A server may use it meanwhile.

    Raises:
        StorageError: it cannot be read at all.
    """
    path = directory / NAME
    if not path.exists():
        return
    try:
        with errors(f"{path} cannot be read"), closing(connect(path, write=False)) as db:
            migrations.check(db, OBJECTS)
            for (text,) in rows(db, f"PRAGMA integrity_check({_MOST})"):
                if text != "ok":
                    yield Problem("", f"{NAME}: {' '.join(str(text).split())}")
            yield from parts(SqliteDatabase(db).rows, NAME)
    except StorageError as error:
        if error.code != StorageError.DAMAGED:
            raise
        yield Problem("", error.message)


def parts(rows_of: Rows, where: str) -> Iterator[Problem | None]:
    """What is damaged of the parts of files, and of the outcomes of batches; None for each sound.

    Args:
        where: how messages begin.

    Raises:
        StorageError: they cannot be read.
    """
    for sql, what in (
        (_CHUNKS, "part {} of {}"),
        (_OUTCOMES, "what came of line {} of {}"),
    ):
        last = 0
        while found := rows_of(sql, (last,)):
            ((last, owner, number, hash_, data),) = found
            told = what.format(number, owner)
            sound = hash_of(data) == hash_
            yield None if sound else Problem("", f"{where}: {told} is damaged")
