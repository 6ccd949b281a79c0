"""Goes through all of a store: to export it, to verify it, and to mend its indices.

What an index does not have, the table still may. So an export of everything looks at the table too,
and `verify` at the table alone, beside SQLite's own check of the indices against it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial

import apsw
import structlog

from llcuda_net.errors import ResultDamaged, StorageError
from llcuda_net.storage.packing.codec import Codec, digest
from llcuda_net.storage.packing.packed_result import summary_of
from llcuda_net.storage.records import Result
from llcuda_net.storage.results import queries
from llcuda_net.storage.results.connection import errors, rows, transaction
from llcuda_net.storage.results.interface import Problem, Query
from llcuda_net.storage.results.reader import Reader

log = structlog.get_logger(__name__)

#: Problems of the file itself that are named, at most.
_PROBLEMS = 20


class Scan:
    """Walks over the results of one connection."""

    def __init__(self, db: apsw.Connection, codec: Codec, reader: Reader) -> None:
        self._db = db
        self._codec = codec
        self._reader = reader

    def __repr__(self) -> str:
        return f"<Scan of {self._db.filename}>"

    def export(self, query: Query, problems: list[Problem] | None = None) -> Iterator[Result]:
        """See Store."""
        for seq, check in self._numbers(query, problems):
            try:
                found = self._reader.result(seq)
                check(found)
            except StorageError as error:
                if problems is None or error.code != StorageError.DAMAGED:
                    raise
                problems.append(self._problem(seq, error))
            else:
                if found is not None and queries.matches(query, summary_of(found, 0)[0]):
                    yield found

    def _numbers(
        self, query: Query, problems: list[Problem] | None
    ) -> Iterator[tuple[int, Callable[[Result | None], None]]]:
        """Numbers of a query's results, and a check of what each leads to.

        Of a query for everything, those too that the index does not have.
        """
        last = 0
        seen: dict[int, bytearray] = {}  # bits, by the numbers' upper halves
        try:
            with errors("the index of the results cannot be read"):
                if query == Query(limit=None):
                    last = queries.last_number(self._db)
                for created, seq in queries.sequence(self._db, query):
                    if last:
                        seen.setdefault(seq >> 16, bytearray(1 << 13))[(seq & 0xFFFF) >> 3] |= (
                            1 << (seq & 7)
                        )
                    yield seq, partial(self._check_indexed, created, seq)
        except StorageError as error:
            if problems is None or error.code != StorageError.DAMAGED:
                raise
            problems.append(Problem("", error.message))
        nothing = bytes(1 << 13)
        with errors("results cannot be read"):
            for seq in queries.numbers(self._db, last):
                if not seen.get(seq >> 16, nothing)[(seq & 0xFFFF) >> 3] & 1 << (seq & 7):
                    yield seq, _no_check

    def _check_indexed(self, created: int, seq: int, found: Result | None) -> None:
        if found is None and queries.indexed(self._db, created, seq):  # it was not pruned meanwhile
            raise ResultDamaged(f"number {seq}", "its row is lost")

    def _problem(self, seq: int, error: StorageError) -> Problem:
        """What is wrong with a result, by its id if that can still be read."""
        if error.code != StorageError.DAMAGED:
            raise error
        with contextlib.suppress(StorageError):
            if (found := self._reader.summary(seq)) is not None and found[0].id:
                why = error.why if isinstance(error, ResultDamaged) else error.message
                return Problem(found[0].id, f"it is not what was stored: {why}")
        return Problem("", error.message)

    # -- checking -----------------------------------------------------------------------------

    def verify(self) -> Iterator[Problem | None]:
        """See Store."""
        with errors("the store cannot be read"):
            try:
                texts = self._file_problems()
            except apsw.CorruptError as error:  # of a file that was cut, SQLite checks nothing
                texts = [str(error)]
        yield from (Problem("", f"the file: {text}") for text in texts)
        try:
            with errors("the bodies cannot be read"):
                for number, name, data in queries.pages(
                    self._db, "SELECT id, hash, data FROM bodies WHERE id > ? ORDER BY id LIMIT 100"
                ):
                    yield _checked_body(self._codec, number, name, data)
        except StorageError as error:
            yield Problem("", error.message)
        try:
            with errors("results cannot be read"):
                yield from self._result_problems()
        except StorageError as error:
            if error.code != StorageError.DAMAGED:
                raise
            yield Problem("", error.message)

    def _result_problems(self) -> Iterator[Problem | None]:
        for seq in queries.numbers(self._db, queries.last_number(self._db)):
            try:
                found = self._reader.result(seq)
            except StorageError as error:
                yield self._problem(seq, error)
                continue
            listed = None if found is None else self._reader.summary(seq)
            if found is None or listed is None:
                continue  # pruned meanwhile, or never there
            if summary_of(found, listed[0].size) == listed:
                yield None
            else:
                yield Problem(
                    found.id, "it is whole, but what lists show of it is not what was stored"
                )

    def _file_problems(self) -> list[str]:
        """What SQLite itself finds wrong with the file: its pages, and its indices."""
        found = rows(self._db, f"PRAGMA main.integrity_check({_PROBLEMS})")
        return [" ".join(str(text).split()) for (text,) in found if text != "ok"]

    def mend(self) -> None:
        """Make the indices again where they are not what the table says; else only log it."""
        with errors("the store cannot be checked"):
            problems = self._file_problems()
            if not problems:
                return
            for problem in problems:
                log.error("store_damaged", path=self._db.filename, reason=problem)
            with contextlib.suppress(apsw.CorruptError, apsw.ConstraintError):
                with transaction(self._db):
                    self._db.execute("REINDEX")
                if not self._file_problems():
                    log.warning("store_mended", path=self._db.filename, what="its indices")


def _no_check(_: Result | None) -> None:
    """The table itself has this number."""


def _checked_body(codec: Codec, number: int, name: bytes, data: bytes) -> Problem | None:
    try:
        if digest(codec.unpack(data)) == name:
            return None
        return Problem("", f"body {number} is not what was stored: its hash differs")
    except StorageError as error:
        return Problem("", f"body {number} cannot be read: {error}")
