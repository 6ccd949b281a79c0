"""The search index in PostgreSQL: words, and counts per day; brought up to date behind the results.

Whoever has the lock on the row of `progress` brings it up to date; another server that comes
meanwhile has nothing to do. What the index finds is read, and looked at with storage/words.py: so
the results are those that SQLite's index finds, in another order.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from llcuda_net.storage.packing.codec import Codec, prompt_text
from llcuda_net.storage.packing.packed_result import summary_of
from llcuda_net.storage.postgres.connection import Connection, Session
from llcuda_net.storage.postgres.queries import Place, conditions, page, place, where
from llcuda_net.storage.postgres.rows import Found, listed, whole
from llcuda_net.storage.postgres.terms import MODEL, OWNER, STATE, any_word, query, tag, vector
from llcuda_net.storage.records import Result
from llcuda_net.storage.results.interface import DAMAGED, Hit, Query, Summary
from llcuda_net.storage.results.queries import matches
from llcuda_net.storage.words import Wanted, excerpts, parse

#: Target duration of one step in seconds, and results that are read at once.
_STEP, _STEP_RESULTS = 0.02, 32
#: Indexed characters of a prompt and of a text.
_INDEXED = 200_000
#: Matches that are compared, the newest ones; and those that are read at once.
_COMPARED, _PAGE = 1000, 50
_NS_A_DAY = 86_400 * 10**9

_TERMS = (
    # Those that were deleted meanwhile are left out: the lock keeps the others.
    "INSERT INTO terms (seq, words) SELECT d.seq, d.words::tsvector"
    " FROM unnest(%s::bigint[], %s::text[]) AS d (seq, words)"
    " JOIN results r ON r.seq = d.seq FOR KEY SHARE OF r"
)
_DAYS = (
    "INSERT INTO days (day, model, owner, state, results, tokens, prompt_tokens)"
    " VALUES (%s, %s, %s, %s, %s, %s, %s) ON CONFLICT (day, model, owner, state) DO UPDATE SET"
    " results = days.results + excluded.results, tokens = days.tokens + excluded.tokens,"
    " prompt_tokens = days.prompt_tokens + excluded.prompt_tokens"
)


class SearchIndex:
    """Words and counts of one session."""

    def __init__(self, session: Session, codec: Codec) -> None:
        self._session = session
        self._codec = codec

    def __repr__(self) -> str:
        return f"<SearchIndex of {self._session!r}>"

    # -- bringing up to date ------------------------------------------------------------------

    def update(self) -> bool:
        """Count and index some results; whether there may be more to do."""
        return self._session.change("the search index cannot be brought up to date", self._update)

    def _update(self, db: Connection) -> bool:
        sql = "SELECT counted, indexed FROM progress FOR UPDATE SKIP LOCKED"
        row = db.execute(sql).fetchone()
        if row is None:
            return False
        counted, indexed = row
        started = time.perf_counter()
        last = min(counted, indexed)
        vectors: list[tuple[int, str]] = []
        groups: Counter[tuple[str, str, str, str]] = Counter()
        tokens: Counter[tuple[str, str, str, str]] = Counter()
        prompt_tokens: Counter[tuple[str, str, str, str]] = Counter()
        while time.perf_counter() - started < _STEP:
            clause = "WHERE r.seq > %s ORDER BY r.seq LIMIT %s"
            found = whole(db, self._codec, clause, (last, _STEP_RESULTS))
            for one in found:
                if last > min(counted, indexed) and time.perf_counter() - started > _STEP:
                    break  # the next step goes on: long texts take a while each
                last = one.seq
                if one.result is None:
                    continue  # it must not stop the indexing of others
                if one.seq > indexed:
                    vectors.append((one.seq, _vector(one.result)))
                if one.seq > counted:
                    shown, _ = summary_of(one.result, 0)
                    group = _day(shown.created), shown.model, shown.owner, shown.state
                    groups[group] += 1
                    tokens[group] += shown.tokens
                    prompt_tokens[group] += shown.prompt_tokens
            if len(found) < _STEP_RESULTS:
                break
        if last == min(counted, indexed):
            return False
        if vectors:
            db.execute(_TERMS, tuple(map(list, zip(*vectors, strict=True))))
        for (day, model, owner, state), results in sorted(groups.items()):
            group = day, model, owner, state
            db.execute(
                _DAYS,
                (day, model.encode(), owner, state, results, tokens[group], prompt_tokens[group]),
            )
        db.execute(
            "UPDATE progress SET counted = greatest(counted, %s), indexed = greatest(indexed, %s)",
            (last, last),
        )
        return True

    # -- reading ------------------------------------------------------------------------------

    def search(self, words: str, query_: Query) -> list[Hit]:
        """See Store.search."""
        wanted = parse(words)
        limit = query_.limit
        most = None if limit is None else max(_COMPARED, limit)
        return self._session.ask(
            "results cannot be searched", lambda db: self._search(db, wanted, query_, most)
        )

    def _search(self, db: Connection, wanted: Wanted, query_: Query, most: int | None) -> list[Hit]:
        rest, values = conditions(_rest(query_))
        found = db.execute(
            "SELECT t.seq, ts_rank(t.words, %s::tsquery, 1) FROM terms t JOIN results r USING (seq)"
            f" {where(['t.words @@ %s::tsquery', *rest])} ORDER BY t.seq DESC LIMIT %s",
            (
                any_word(wanted),
                _expression(wanted, query_),
                *values,
                None if most is None else most + 1,
            ),
        ).fetchall()
        compared = None if most is None or len(found) <= most else most
        best = sorted(found[:compared], key=lambda row: row[1], reverse=True)
        out: list[Hit] = []
        limit = len(best) if query_.limit is None else max(0, query_.limit)
        for first in range(0, len(best), _PAGE):
            some: dict[int, float] = dict(best[first : first + _PAGE])
            read = {one.seq: one for one in self._read(db, [*some])}
            for seq, score in some.items():
                if len(out) >= limit:
                    return out
                if seq in read and (hit := _hit(db, read[seq], score, wanted, query_)) is not None:
                    out.append(replace(hit, of_newest=compared))
        return out

    def _read(self, db: Connection, seqs: list[int]) -> list[Found]:
        return whole(db, self._codec, "WHERE r.seq = ANY(%s)", (seqs,))

    def walk(self, words: str, query_: Query) -> Iterator[Summary]:
        """See Store.walk; each page is read by short statements."""
        wanted = parse(words)
        what = "results cannot be searched"
        after: Place | None = None
        if query_.after is not None:
            name = query_.after
            after = self._session.ask(what, lambda db: place(db, name))
            if after is None:
                return
        while True:
            found = self._session.ask(
                what, partial(self._page, wanted=wanted, query_=query_, after=after)
            )
            for _, hit in found:
                if hit is not None:
                    yield hit.summary
            if len(found) < _PAGE:
                return
            after = found[-1][0]

    def _page(
        self, db: Connection, wanted: Wanted, query_: Query, after: Place | None
    ) -> list[tuple[Place, Hit | None]]:
        """The next matches of the index, with their places; None: it is none after all."""
        also = (["r.seq = t.seq", "t.words @@ %s::tsquery"], [_expression(wanted, query_)])
        clause, values = page(replace(_rest(query_), limit=_PAGE), after, also=also)
        rows = db.execute(
            f"SELECT r.created, r.seq FROM results r, terms t {clause}", values
        ).fetchall()
        read = {one.seq: one for one in self._read(db, [seq for _, seq in rows])}
        return [
            (
                (created, seq),
                _hit(db, read[seq], 0.0, wanted, query_) if seq in read else None,
            )
            for created, seq in rows
        ]


def _expression(wanted: Wanted, query_: Query) -> str:
    """What the index is asked for: the words, and what it knows besides words."""
    tags = [[tag(STATE, state) for state in query_.states]] if query_.states else []
    tags += [[tag(OWNER, query_.owner)]] if query_.owner is not None else []
    tags += [[tag(MODEL, query_.model)]] if query_.model is not None else []
    return query(wanted, tags)


def _rest(query_: Query) -> Query:
    """What of a query the index does not know."""
    return replace(query_, states=(), owner=None, model=None)


def _hit(db: Connection, found: Found, score: float, wanted: Wanted, query_: Query) -> Hit | None:
    """A result that the index names; None: it is not what is wanted."""
    if found.result is None:
        shown = [*listed(db, "WHERE r.seq = %s", (found.seq,))]
        return Hit(replace(shown[0][1], state=DAMAGED), score, "", "") if shown else None
    summary, _ = summary_of(found.result, found.size)
    excerpt = excerpts(wanted, *_texts(found.result))
    if excerpt is None or not matches(query_, summary):
        return None
    prompt, text = excerpt
    return Hit(summary, score, prompt, text)


def _vector(found: Result) -> str:
    model = str(found.model.get("name", ""))
    tags = [tag(OWNER, found.owner), tag(STATE, found.state), tag(MODEL, model)]
    return vector(_texts(found), tags)


def _texts(found: Result) -> tuple[str, str]:
    """The texts of a result, as far as they are indexed."""
    return _clean(prompt_text(found.request)), _clean(found.text)


def _clean(text: str) -> str:
    return text[:_INDEXED].encode("utf-8", "replace").decode()


def _day(created: int) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(created // _NS_A_DAY * 86_400))
