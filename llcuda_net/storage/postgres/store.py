"""The store in PostgreSQL, which several servers share: results, their words, their analyses."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import structlog

from llcuda_net.errors import StorageError
from llcuda_net.storage.packing.codec import Codec
from llcuda_net.storage.postgres import migrations, queries
from llcuda_net.storage.postgres import retention as pruning
from llcuda_net.storage.postgres.analyses import PostgresAnalyses
from llcuda_net.storage.postgres.connection import Connection, Session
from llcuda_net.storage.postgres.queries import Place, storable
from llcuda_net.storage.postgres.rows import Found, listed, whole
from llcuda_net.storage.postgres.scan import Scan
from llcuda_net.storage.postgres.search import SearchIndex
from llcuda_net.storage.postgres.writing import Before, Putter, delete
from llcuda_net.storage.records import Result, hash_of
from llcuda_net.storage.results.interface import (
    Deleted,
    Hit,
    Plan,
    Problem,
    Query,
    Retention,
    Stats,
    Step,
    Summary,
)

log = structlog.get_logger(__name__)

#: Most results that may be tried for one cached answer.
_CANDIDATES = 8
#: Results read by one statement of a long walk: at first, and at most.
_PAGE, _LARGEST_PAGE = 256, 4096
_WHAT = "results cannot be read"


class PostgresStore:
    """A Store in one database; see interface.Store for the methods.

    Args:
        url: see Session.
        write: the store may put, delete and prune, and makes or migrates the schema.

    Raises:
        StorageError: the database does not answer, is of a newer version, or has no results.
    """

    def __init__(self, url: str, *, write: bool = False) -> None:
        self._write = write
        self._session = Session(url, write=write)
        self._codec = Codec()
        self._putter = Putter(self._session, self._codec)
        self._scan = Scan(self._session, self._codec)
        self._index = SearchIndex(self._session, self._codec)
        self.analyses = PostgresAnalyses(self._session, self._codec)
        try:
            if write:
                migrations.migrate(self._session)
            else:
                migrations.check(self._session)
        except BaseException:
            self._session.close()
            raise

    def __repr__(self) -> str:
        return f"<PostgresStore {self._session!r}>"

    # -- writing ------------------------------------------------------------------------------

    def guard(self, before: Before) -> None:
        """Have something done in each transaction of `put`, first, with the ids of its results.

        Args:
            before: may raise StorageError, and then they are not stored.
        """
        self._putter.before = before

    def put(self, results: Sequence[Result]) -> None:
        """See Store."""
        self._check_writing()
        self._putter.put(results)

    def _check_writing(self) -> None:
        if not self._write:
            raise StorageError("this store was opened to read", StorageError.INVALID)

    def checkpoint(self) -> None:
        """See Store: PostgreSQL does that by itself."""

    def update_index(self) -> bool:
        """See Store."""
        return self._index.update()

    # -- reading ------------------------------------------------------------------------------

    def reached(self) -> int:
        """See Store."""
        sql = "SELECT reached FROM store"
        return self._session.ask(_WHAT, lambda db: queries.number(db, sql, []))

    def names(self) -> list[str]:
        """See Store: the identity, which a backup keeps, and where it is."""
        return [self._session.ask(_WHAT, _identity), self._session.place]

    def missing(self, ids: Collection[str]) -> set[str]:
        """See Store."""
        out = {*ids}
        for found in self._whole("WHERE r.id = ANY(%s)", [*map(storable, ids)]):
            if found.error is None:
                out.discard(found.id)
            else:
                log.error("result_damaged", reason=found.error.message)
        return out

    def _whole(self, clause: str, *values: Any) -> list[Found]:
        return self._session.ask(_WHAT, lambda db: whole(db, self._codec, clause, values))

    def states(self, ids: Collection[str], owner: str | None = None) -> dict[str, str]:
        """See Store."""
        sql = "SELECT id, state FROM results WHERE id = ANY(%s) AND owner = coalesce(%s, owner)"
        values = ([*map(storable, ids)], None if owner is None else storable(owner))
        return self._session.ask(_WHAT, lambda db: dict(db.execute(sql, values).fetchall()))

    def get(self, result: str, owner: str | None = None) -> Result | None:
        """See Store."""
        clause = "WHERE r.id = %s AND r.owner = coalesce(%s, r.owner)"
        return _intact(self._whole(clause, storable(result), owner))

    def find_by_key(self, key: str, owner: str) -> Result | None:
        """See Store."""
        clause = "WHERE r.key = %s AND r.owner = %s ORDER BY r.seq DESC LIMIT 1"
        return _intact(self._whole(clause, key.encode("utf-8", "replace"), storable(owner)))

    def find_cached(
        self, model: dict[str, Any], request_hash: bytes, owner: str | None = None
    ) -> Result | None:
        """See Store. A damaged result is not served, and is no error: the request runs anew."""
        clause = (
            "WHERE r.request_hash = %s AND r.cacheable AND r.owner = coalesce(%s, r.owner)"
            " AND r.model = (SELECT id FROM models WHERE hash = %s) ORDER BY r.seq DESC LIMIT %s"
        )
        wanted = hash_of(model)
        for found in self._whole(clause, request_hash, owner, wanted, _CANDIDATES):
            if found.result is None:
                assert found.error is not None
                log.error("cached_answer_damaged", reason=found.error.message)
            elif hash_of(found.result.model) == wanted:
                return found.result
        return None

    def find(self, query: Query) -> list[Summary]:
        """See Store."""
        return [summary for summary, _ in self.listed(query)]

    def listed(self, query: Query) -> list[tuple[Summary, str]]:
        """See Store."""
        found = self._session.ask("results cannot be listed", lambda db: _listed(db, query))
        return [(summary, text) for _, summary, text in found]

    def walk(self, query: Query, words: str | None = None) -> Iterator[Summary]:
        """See Store."""
        if words is not None:
            yield from self._index.walk(words, query)
            return
        after: Place | None = None
        size = _PAGE
        while True:
            one = replace(query, limit=size, ascending=False)
            page = self._session.ask(
                "results cannot be listed", partial(_listed, query=one, after=after)
            )
            yield from (summary for _, summary, _ in page)
            if len(page) < size:
                return
            seq, last, _ = page[-1]
            after, size = (last.created, seq), min(2 * size, _LARGEST_PAGE)

    def search(self, words: str, query: Query) -> list[Hit]:
        """See Store."""
        return self._index.search(words, query)

    def unindexed(self, owner: str | None = None) -> int:
        """See Store."""

        def count(db: Connection) -> int:
            indexed = queries.number(db, "SELECT indexed FROM progress", [])
            return queries.count_after(db, indexed, owner)

        return self._session.ask("results cannot be searched", count)

    def export(self, query: Query, problems: list[Problem] | None = None) -> Iterator[Result]:
        """See Store."""
        return self._scan.export(query, problems)

    def verify(self) -> Iterator[Problem | None]:
        """See Store."""
        return self._scan.verify()

    def stats(self, owner: str | None = None) -> Stats:
        """See Store."""
        return self._session.ask("the store cannot be read", lambda db: queries.stats(db, owner))

    # -- the rest -----------------------------------------------------------------------------

    def delete(self, result: str, owner: str | None = None) -> Deleted | None:
        """See Store."""
        self._check_writing()
        where = "id = %s AND owner = coalesce(%s, owner)"
        found: list[tuple[Any, ...]] = []

        def once_or_again(db: Connection) -> list[tuple[Any, ...]]:
            # Again, since the answer was lost, there is none any more.
            found.extend(delete(db, where, (storable(result), owner)))
            return found[-1:]

        gone = self._session.change(f"the result {result} cannot be deleted", once_or_again)
        if not gone:
            return None
        ((_, _, of, key),) = gone
        return Deleted(of, None if key is None else key.decode("utf-8", "replace"))

    def plan(self, retention: Retention) -> Plan:
        """See Store."""
        return self._session.ask("the store cannot be read", lambda db: pruning.plan(db, retention))

    def prune(self, retention: Retention) -> Iterator[Step]:
        """See Store."""
        self._check_writing()
        return pruning.steps(self._session, retention)

    def close(self) -> None:
        """See Store."""
        self._session.close()


def _listed(
    db: Connection, query: Query, after: Place | None = None
) -> list[tuple[int, Summary, str]]:
    """A query's results, after a place of the list, or else after `query.after`."""
    if after is None and query.after is not None:
        after = queries.place(db, query.after)
        if after is None:
            return []
    return [*listed(db, *queries.page(query, after, ascending=query.ascending))]


def _identity(db: Connection) -> str:
    row = db.execute("SELECT identity FROM store").fetchone()
    assert row is not None
    return f"the database {row[0]}"


def _intact(found: list[Found]) -> Result | None:
    return found[0].intact() if found else None
