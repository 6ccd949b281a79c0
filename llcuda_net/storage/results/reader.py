"""Reads results, and checks each one against the hash that was stored with it.

A whole result is read by its number (the table itself, no index). A row of an earlier version has
no `seal`, and is checked as a whole. What an index says is checked by the row that it leads to.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import apsw
import structlog

from llcuda_net.errors import ResultDamaged, StorageError
from llcuda_net.storage.packing.codec import Codec
from llcuda_net.storage.packing.packed_result import sealed, summary_of, unpack
from llcuda_net.storage.records import Result, hash_of
from llcuda_net.storage.results.connection import errors, rows
from llcuda_net.storage.results.interface import DAMAGED, Query, Summary
from llcuda_net.storage.results.queries import indexed, matches

log = structlog.get_logger(__name__)

#: The columns of a whole result, of results `r` and models `m`.
WHOLE = (
    "r.seq, r.id, r.created, r.finished, r.state, r.owner, r.key, r.request_hash, r.cacheable,"
    " r.meta, r.input, r.log, r.logprobs, m.fingerprint, r.hash"
)
#: A result whose model is gone is damaged, and not invisible: so no inner join.
_FROM = " FROM results r LEFT JOIN models m ON m.id = r.model WHERE r.seq = ?"
_LISTED = (
    "SELECT r.id, r.created, r.finished, r.state, m.name, r.owner, r.tokens, r.prompt_tokens,"
    " r.size, r.preview, {}" + _FROM
)
#: Most results that may be tried for one cached answer.
_CANDIDATES = 8
#: Nanoseconds between the time in a result's id and the time of its creation, at most.
_APART = 10**9


class Reader:
    """Reads the results of one connection, of this or an earlier version."""

    def __init__(self, db: apsw.Connection, codec: Codec) -> None:
        self._db = db
        self._codec = codec
        columns = [row[1] for row in db.execute("PRAGMA table_info(results)")]
        sealed = "seal" in columns
        self._listed = _LISTED.format("r.beginning, r.seal" if sealed else "NULL, NULL")

    def __repr__(self) -> str:
        return f"<Reader of {self._db.filename}>"

    # -- whole results ------------------------------------------------------------------------

    def result(self, seq: int) -> Result | None:
        """The result of a number; None: there is none.

        Raises:
            StorageError: it is damaged.
        """
        row = self._row(f"SELECT {WHOLE}{_FROM}", seq)
        return None if row is None else self.checked(row)

    def _row(self, sql: str, seq: int) -> Sequence[Any] | None:
        try:
            with errors("a result cannot be read"):
                row: Sequence[Any] | None = self._db.execute(sql, (seq,)).get
                return row
        except StorageError as error:
            if error.code == StorageError.DAMAGED:
                raise ResultDamaged(f"number {seq}", str(error.__cause__)) from error
            raise

    def checked(self, row: Sequence[Any]) -> Result:
        """The result of the columns WHOLE.

        Raises:
            StorageError: it is damaged.
        """
        name = row[1] if isinstance(row[1], str) else f"number {row[0]}"
        return unpack(row[1:], name, self._codec, self._body_of_it)

    def _body_of_it(self, number: int) -> bytes:
        with errors("a part of it cannot be read"):
            return self.body(number)

    def body(self, number: int) -> bytes:
        """The bytes of a body."""
        data = self._db.execute("SELECT data FROM bodies WHERE id = ?", (number,)).get
        if not isinstance(data, bytes):
            raise StorageError(f"body {number} is not there", StorageError.DAMAGED)
        return self._codec.unpack(data)

    def get(self, name: str, owner: str | None) -> Result | None:
        """See Store."""
        found = self._result_at("id = ?", (name,), lambda one: one.id == name, name)
        if found is None and self._hides(name):
            # Committed since we looked, perhaps.
            found = self._result_at("id = ?", (name,), lambda one: one.id == name, name)
            if found is None:
                raise ResultDamaged(name, "its entry in the index is lost")
        return found if found is not None and owner in (None, found.owner) else None

    def _hides(self, name: str) -> bool:
        """Whether the index of ids, which does not have this one, is damaged.

        Another index may have it: by the time that the id begins with. And the table's newest
        result must be in both of them.
        """
        when = _time_of(name)
        if when is not None and None is not (
            self._db.execute(
                "SELECT 1 FROM results INDEXED BY results_created"
                " WHERE created BETWEEN ? AND ? AND id = ?",
                (when - _APART, when + _APART, name),
            ).get
        ):
            return True
        newest = self._db.execute(
            "SELECT seq, id, created FROM results NOT INDEXED ORDER BY seq DESC LIMIT 1"
        ).get
        return newest is not None and not (
            self._db.execute("SELECT seq FROM results WHERE id = ?", newest[1:2]).get == newest[0]
            and indexed(self._db, newest[2], newest[0])
        )

    def find_by_key(self, key: str, owner: str) -> Result | None:
        """See Store."""
        return self._result_at(
            "key = ? AND owner = ? ORDER BY seq DESC LIMIT 1",
            (key, owner),
            lambda one: (one.key, one.owner) == (key, owner),
            "of this key",
        )

    def _result_at(
        self, where: str, values: tuple[Any, ...], right: Callable[[Result], bool], name: str
    ) -> Result | None:
        seq = self._db.execute(f"SELECT seq FROM results WHERE {where}", values).get
        if seq is None:
            return None
        found = self.result(seq)
        # The statement may have been answered by the index alone.
        if found is None and self._db.execute(f"SELECT seq FROM results WHERE {where}", values).get:
            raise ResultDamaged(name, "its row is lost")
        if found is not None and not right(found):
            raise ResultDamaged(name, "the index leads to another result")
        return found

    def find_cached(
        self, model: dict[str, Any], request_hash: bytes, owner: str | None
    ) -> Result | None:
        """See Store. A damaged result is not served, and is no error: the request runs anew."""
        wanted = hash_of(model)
        mine, values = ("", []) if owner is None else (" AND owner = ?", [owner])
        try:
            with errors("the cached answers cannot be read"):
                # One model, looked up first: so the index has its results in order.
                number = self._db.execute("SELECT id FROM models WHERE hash = ?", (wanted,)).get
                seqs = rows(
                    self._db,
                    f"SELECT seq FROM results WHERE request_hash = ?{mine} AND model = ?"
                    " AND cacheable = 1 ORDER BY seq DESC LIMIT ?",
                    (request_hash, *values, number, _CANDIDATES),
                )
        except StorageError as error:
            if error.code != StorageError.DAMAGED:
                raise
            log.error("cached_answer_damaged", reason=error.message)
            return None
        for (seq,) in seqs:
            try:
                found = self.result(seq)
            except StorageError as error:
                if error.code != StorageError.DAMAGED:
                    raise
                log.error("cached_answer_damaged", reason=error.message)
                continue
            if (
                found is not None
                and found.cacheable
                and found.request_hash == request_hash
                and hash_of(found.model) == wanted
                and owner in (None, found.owner)
            ):
                return found
        return None

    def stored(self, name: str) -> bool:
        """Whether this result is there, and whole."""
        try:
            with errors("a result cannot be read"):
                return self.get(name, None) is not None
        except StorageError as error:
            if error.code != StorageError.DAMAGED:
                raise
            log.error("result_damaged", reason=error.message)
            return False

    # -- lists --------------------------------------------------------------------------------

    def summary(self, seq: int) -> tuple[Summary, str] | None:
        """A result for a list, with the beginning of its text; None: there is none.

        A damaged one has the state DAMAGED, and nothing but what may be its id and time.
        """
        name, created = "", 0
        try:
            row = self._row(self._listed, seq)
            if row is None:
                return None
            name = row[0] if isinstance(row[0], str) else name
            created = row[1] if isinstance(row[1], int) else created
            if row[-1] is None:  # of an earlier version
                found = self.result(seq)
                size = row[8] if isinstance(row[8], int) else 0
                return None if found is None else summary_of(found, size)
            if (intact := sealed(row)) is not None:
                return intact
        except StorageError as error:
            if error.code != StorageError.DAMAGED:
                raise
        return Summary(name, max(0, created), 0, DAMAGED, "", "", 0, 0, 0, ""), ""

    def listed(self, seq: int, query: Query) -> tuple[Summary, str] | None:
        """A result that an index names for a query; None: it is not of the query after all."""
        found = self.summary(seq)
        if found is None:  # the caller holds a snapshot, so nobody pruned it
            return Summary(f"number {seq}", 0, 0, DAMAGED, "", "", 0, 0, 0, ""), ""
        return found if found[0].state == DAMAGED or matches(query, found[0]) else None


def _time_of(name: str) -> int | None:
    """The nanoseconds that a UUIDv7 begins with; None: it is another id."""
    digits = name.replace("-", "")
    if len(digits) != 32 or digits[12] != "7":
        return None
    try:
        return int(digits[:12], 16) * 10**6
    except ValueError:
        return None
