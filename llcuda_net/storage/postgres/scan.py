"""Goes through all results in PostgreSQL: to export them, and to verify them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from llcuda_net.errors import StorageError
from llcuda_net.storage.packing.codec import Codec, digest
from llcuda_net.storage.packing.packed_result import summary_of
from llcuda_net.storage.postgres.connection import Connection, Session
from llcuda_net.storage.postgres.queries import Place, page, place
from llcuda_net.storage.postgres.rows import Found, listed, whole
from llcuda_net.storage.records import Result
from llcuda_net.storage.results.interface import Problem, Query, Summary

#: Results, and bodies, that one statement reads.
_PAGE = 32
#: Bodies whose uses are not what results say, that are named at most.
_PROBLEMS = 20
_USES = (
    "SELECT encode(name, 'hex'), b.uses, coalesce(u.uses, 0) FROM bodies b FULL JOIN"
    " (SELECT substring(r.bodies FROM 16 * i + 1 FOR 16) AS name, count(*) AS uses"
    " FROM results r, generate_series(0, length(r.bodies) / 16 - 1) i GROUP BY 1) u USING (name)"
    " WHERE b.uses IS DISTINCT FROM u.uses LIMIT %s"
)


class Scan:
    """Walks over the results of one session."""

    def __init__(self, session: Session, codec: Codec) -> None:
        self._session = session
        self._codec = codec

    def __repr__(self) -> str:
        return f"<Scan of {self._session!r}>"

    def export(self, query: Query, problems: list[Problem] | None = None) -> Iterator[Result]:
        """See Store."""
        what = "results cannot be read"
        after: Place | None = None
        if (name := query.after) is not None:
            after = self._session.ask(what, lambda db: place(db, name))
            if after is None:
                return
        left = query.limit
        while left is None or left > 0:
            size = _PAGE if left is None else min(left, _PAGE)
            some = self._session.ask(what, partial(self._page, query=query, after=after, size=size))
            for at, found in some:
                after = at
                if found.result is not None:
                    yield found.result
                elif problems is None:
                    found.intact()
                else:
                    problems.append(_problem(found))
            if len(some) < size:
                return
            left = None if left is None else left - len(some)

    def _page(
        self, db: Connection, query: Query, after: Place | None, size: int
    ) -> list[tuple[Place, Found]]:
        clause, values = page(replace(query, limit=size), after, ascending=True)
        rows = db.execute(f"SELECT r.created, r.seq FROM results r {clause}", values).fetchall()
        read = whole(db, self._codec, "WHERE r.seq = ANY(%s)", ([seq for _, seq in rows],))
        by_seq = {found.seq: found for found in read}
        # One that was deleted meanwhile is left out, and the page seems to be the last one: so
        # places are taken from what was there.
        found = [((created, seq), by_seq[seq]) for created, seq in rows if seq in by_seq]
        if len(found) < len(rows):
            return self._page(db, query, after, size)
        return found

    def verify(self) -> Iterator[Problem | None]:
        """See Store."""
        yield from self._bodies()
        what = "results cannot be read"
        last = 0
        while True:
            read, shown = self._session.ask(what, partial(self._both, after=last))
            for found in read:
                last = found.seq
                if found.result is None:
                    yield _problem(found)
                elif found.seq not in shown:
                    continue  # deleted meanwhile
                elif summary_of(found.result, found.size) == shown[found.seq]:
                    yield None
                else:
                    yield Problem(
                        found.id, "it is whole, but what lists show of it is not what was stored"
                    )
            if len(read) < _PAGE:
                return

    def _both(
        self, db: Connection, after: int
    ) -> tuple[list[Found], dict[int, tuple[Summary, str]]]:
        """The next results, whole, and as lists show them."""
        clause, values = "WHERE r.seq > %s ORDER BY r.seq LIMIT %s", (after, _PAGE)
        shown = {seq: (summary, text) for seq, summary, text in listed(db, clause, values)}
        return whole(db, self._codec, clause, values), shown

    def _bodies(self) -> Iterator[Problem | None]:
        what = "the bodies cannot be read"
        last = b""
        while True:
            rows = self._session.ask(what, partial(_some_bodies, after=last))
            for name, data in rows:
                last = name
                try:
                    intact = digest(self._codec.unpack(data))[: len(name)] == name
                    why = "its hash differs"
                except StorageError as error:
                    intact, why = False, error.message
                if intact:
                    yield None
                else:
                    yield Problem("", f"the body {name.hex()} is not what was stored: {why}")
            if len(rows) < _PAGE:
                break
        for name, counted, used in self._session.ask(
            what, lambda db: db.execute(_USES, (_PROBLEMS,)).fetchall()
        ):
            yield Problem("", f"the body {name} is used by {used} results, and counts {counted}")


def _some_bodies(db: Connection, after: bytes) -> list[tuple[bytes, bytes]]:
    sql = "SELECT name, data FROM bodies WHERE name > %s ORDER BY name LIMIT %s"
    return [(name, data) for name, data in db.execute(sql, (after, _PAGE), binary=True)]


def _problem(found: Found) -> Problem:
    why = "" if found.error is None else found.error.why
    return Problem(found.id, f"it is not what was stored: {why}")
