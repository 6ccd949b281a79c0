"""The search index: full text, counts per day, and the tables that analyses.py uses.

Everything in it is computed from the results, and lives in a file of its own. Its cursors are the
numbers of the last result that was counted, and of the last whose text was indexed; each moves in
the transaction that does the work. The index is emptied and built again if it belongs to another
store, or is ahead of the store (after the restore of a backup); the text alone, if an earlier
version indexed it in another way.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import apsw
import structlog

from llcuda_net.errors import StorageError
from llcuda_net.storage.packing.codec import digest, prompt_text
from llcuda_net.storage.packing.packed_result import summary_of
from llcuda_net.storage.ranking import register, weight
from llcuda_net.storage.records import Result, encode
from llcuda_net.storage.results import migrations
from llcuda_net.storage.results.connection import connect, rows, transaction
from llcuda_net.storage.results.interface import DAMAGED, DayStats, Hit, Query, Summary
from llcuda_net.storage.results.queries import (
    count_after,
    last_number,
    listed,
    matches,
    out_of_order,
    places,
    range_of_time,
)
from llcuda_net.storage.results.reader import Reader
from llcuda_net.storage.words import (
    Wanted,
    excerpts,
    match_expression,
    normal,
    parse,
    word_expressions,
)

log = structlog.get_logger(__name__)

#: Target duration of one step in seconds, and most results in it.
_STEP, _STEP_RESULTS = 0.02, 256
#: Indexed characters of a prompt and of a text.
_INDEXED = 200_000
#: Bytes of the hash of a row.
_CHECK = 8
#: Rows of an earlier version's index that one step deletes.
_OLD_ROWS = 200
#: Indices of earlier versions.
_OLD = ("texts", "words")
#: What a result is found by besides its words; and bytes of a hash in the word for it.
_OWNER, _STATE, _MODEL = "o", "s", "m"
_TAG = 6
#: Matches that are compared, the newest ones; and occurrences by which a word's rarity is judged.
_COMPARED, _SAMPLE = 1000, 500
#: Most results in a page of a list with common words.
_LARGEST_PAGE = 4096
_NS_A_DAY = 86_400 * 10**9


class SearchIndex:
    """derived.db, beside a connection to results.db.

    Args:
        results: the connection that reads results.
        reader: reads whole results of it.
        create: make the file if it does not exist.
    """

    def __init__(
        self, path: Path, results: apsw.Connection, reader: Reader, *, create: bool
    ) -> None:
        self._path = path
        self._results = results
        self._reader = reader
        self._db: apsw.Connection | None = None
        self._attached = 0  # the number of the attached file
        self._current = False
        register(results)
        if create:
            self.open()

    def __repr__(self) -> str:
        how = "open" if self._db is not None else "attached" if self._attached else "closed"
        return f"<SearchIndex {self._path}, {how}>"

    def open(self) -> apsw.Connection:
        """The connection that writes; makes the file if it does not exist."""
        if self._db is None:
            try:
                self._db = self._prepare()
            except (apsw.CorruptError, apsw.NotADBError):
                self._delete()
                self._db = self._prepare()
        return self._db

    def _delete(self) -> None:
        self.close()
        for path in self._path.parent.glob(f"{self._path.name}*"):
            path.unlink(missing_ok=True)

    def _prepare(self) -> apsw.Connection:
        # Not durable: a power cut takes the cursor too, so that lost work is computed again.
        db = connect(self._path, create=True, durable=False)
        try:
            db.create_scalar_function("check_of", check_of, deterministic=True)
            migrations.migrate(db, migrations.DERIVED, quiet=True)  # it can be made anew
            store = self._results.execute("SELECT store FROM identity").get
            latest = self._results.execute("SELECT coalesce(max(seq), 0) FROM results").get
            latest = max(latest, last_number(self._results))
            known = "SELECT store FROM cursor WHERE max(seq, indexed) <= ?"
            if db.execute(known, (latest,)).get != store:
                with transaction(db):
                    db.execute("INSERT INTO terms(terms) VALUES ('delete-all')")
                    db.execute(
                        "DELETE FROM rollups; DELETE FROM cursor; DELETE FROM figures;"
                        " DELETE FROM spaces; DELETE FROM embeddings; DELETE FROM lost"
                    )
                    db.execute("INSERT INTO cursor (store, seq) VALUES (?, 0)", (store,))
        except BaseException:
            db.close()
            raise
        return db

    # -- bringing up to date ------------------------------------------------------------------

    def update(self) -> bool:
        """Count and index some results; whether there may be more to do."""
        try:
            return self._update()
        except apsw.CorruptError:
            if self._is_intact():
                raise  # so it is the results that are damaged
            log.error("search_index_damaged", path=str(self._path), then="it is made again")
            self._delete()
            return True

    def _update(self) -> bool:
        db = self.open()
        started = time.perf_counter()
        counted, indexed = db.execute("SELECT seq, indexed FROM cursor").get
        batch = rows(
            self._results,
            "SELECT seq FROM results WHERE seq > ? ORDER BY seq LIMIT ?",
            (min(counted, indexed), _STEP_RESULTS),
        )
        if not batch:
            return self._delete_old()
        if batch[-1][0] <= min(counted, indexed):
            raise out_of_order("the table of results")
        counts: Counter[tuple[str, str, str, str]] = Counter()
        tokens: Counter[tuple[str, str, str, str]] = Counter()
        prompt_tokens: Counter[tuple[str, str, str, str]] = Counter()
        done = 0
        with transaction(db):
            if db.execute("SELECT seq, indexed FROM cursor").get != (counted, indexed):
                return True  # another process has done it
            for (seq,) in batch:
                found = self._intact(seq)
                if found is not None and seq > indexed:
                    tags = [(_OWNER, found.owner), (_STATE, found.state), (_MODEL, _model(found))]
                    db.execute(
                        "INSERT INTO terms (rowid, prompt, text, tags) VALUES (?, ?, ?, ?)",
                        (
                            seq,
                            *(normal(text) for text in _texts(found)),
                            " ".join(_tag(*one) for one in tags),
                        ),
                    )
                if found is not None and seq > counted:
                    shown, _ = summary_of(found, 0)
                    group = (_day(shown.created), shown.model, shown.owner, shown.state)
                    counts[group] += 1
                    tokens[group] += shown.tokens
                    prompt_tokens[group] += shown.prompt_tokens
                done += 1
                if time.perf_counter() - started > _STEP:
                    break
            for group, results in counts.items():
                db.execute(
                    "INSERT INTO rollups VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
                    " results = results + excluded.results, tokens = tokens + excluded.tokens,"
                    " prompt_tokens = prompt_tokens + excluded.prompt_tokens",
                    (*group, results, tokens[group], prompt_tokens[group]),
                )
            last = batch[done - 1][0]
            db.execute("UPDATE cursor SET seq = max(seq, ?1), indexed = max(indexed, ?1)", (last,))
        return done < len(batch) or len(batch) == _STEP_RESULTS or self._delete_old()

    def _is_intact(self) -> bool:
        try:
            return bool(self.open().execute("PRAGMA quick_check(1)").get == "ok")
        except apsw.CorruptError:
            return False

    def _intact(self, seq: int) -> Result | None:
        """A result; None if it is damaged, which must not stop the indexing of others."""
        try:
            return self._reader.result(seq)
        except StorageError as error:
            if error.code != StorageError.DAMAGED:
                raise
            return None

    def _delete_old(self) -> bool:
        """Delete some of an earlier version's index; whether there is more of it."""
        db = self.open()
        there = "SELECT 1 FROM sqlite_schema WHERE name = ?"
        for name in _OLD:
            if db.execute(there, (name,)).get is None:
                continue
            with transaction(db):
                if db.execute(there, (name,)).get is None:
                    return True  # another process has done it
                db.execute(
                    f"DELETE FROM {name}_data WHERE id IN (SELECT id FROM {name}_data"
                    " WHERE id > 10 LIMIT ?)",  # up to 10: what FTS5 needs to open it
                    (_OLD_ROWS,),
                )
                if not db.changes():
                    db.execute(f"DROP TABLE {name}")
            return True
        return False

    def remove(self, seqs: Sequence[int]) -> None:
        """Remove results that are about to be deleted."""
        db = self.open()
        with transaction(db):
            for seq in seqs:
                db.execute("DELETE FROM terms WHERE rowid = ?", (seq,))
                db.execute("DELETE FROM figures WHERE seq = ?", (seq,))
                db.execute("DELETE FROM lost WHERE seq = ?", (seq,))
                db.execute("DELETE FROM embeddings WHERE seq = ?", (seq,))

    # -- reading ------------------------------------------------------------------------------

    def attach(self) -> bool:
        """Attach the file to the reading connection, as `derived`; whether it is there."""
        file = self._path.stat().st_ino if self._path.exists() else 0
        if self._attached not in (0, file):  # it was made again
            self._results.execute("DETACH derived")
            self._attached, self._current = 0, False
        if not self._attached and file:
            self._results.execute("ATTACH ? AS derived", (str(self._path),))
            self._attached = file
        return bool(self._attached)

    def is_current(self) -> bool:
        """Whether the attached file is of this version; an earlier one has counts only for us."""
        if self.attach() and not self._current:
            sql = "SELECT 1 FROM derived.sqlite_schema WHERE name = 'terms'"
            self._current = self._results.execute(sql).get is not None
        return self._current

    def search(self, words: str, query: Query) -> list[Hit]:
        """See Store.search."""
        wanted = parse(words)
        if not self.is_current():
            return []
        limit = math.inf if query.limit is None else max(0, query.limit)
        most = None if query.limit is None else max(_COMPARED, query.limit)
        matching, values = self._matching(wanted, query)
        weights = self._weights(wanted)
        sql = (
            f"SELECT w.rowid, score(w.terms{', ?' * len(weights)}) FROM derived.terms w"
            f" WHERE {matching} ORDER BY w.rowid DESC LIMIT ?"
        )
        found = rows(self._results, sql, [*weights, *values, -1 if most is None else most + 1])
        compared = None if most is None or len(found) <= most else most
        best = sorted(found[:compared], key=lambda row: row[1], reverse=True)
        out: list[Hit] = []
        for seq, score in best:
            if len(out) >= limit:
                break
            hit = self._hit(seq, score, wanted, query)
            if hit is not None:
                out.append(replace(hit, of_newest=compared))
        return out

    def walk(self, words: str, query: Query) -> Iterator[Summary]:
        """See Store.walk; each page is read by short statements."""
        wanted = parse(words)
        if not self.is_current():
            return
        matching, values = self._matching(wanted, query)
        sql = f"SELECT w.rowid FROM derived.terms w WHERE {matching} ORDER BY w.rowid DESC"
        found = rows(self._results, f"{sql} LIMIT ?", [*values, _COMPARED + 1])
        if len(found) <= _COMPARED:  # few: in the order of the list
            pages: Iterable[list[int]] = [places(self._results, [seq for (seq,) in found], query)]
        else:  # many: so the list itself is full of them
            pages = self._common(sql, values, query)
        for page in pages:
            for seq in page:
                hit = self._hit(seq, 0.0, wanted, query)
                if hit is not None:
                    yield hit.summary

    def _common(self, sql: str, values: list[Any], query: Query) -> Iterator[list[int]]:
        """Numbers of a list's results that a statement about the index finds, page by page."""
        after, size = None, _STEP_RESULTS
        while page := listed(self._results, replace(query, limit=size), after):
            seqs = [seq for _, seq in page]
            among = [*values[:-2], min(seqs), max(seqs) + 1]
            found = {seq for (seq,) in rows(self._results, sql, among)}
            yield [seq for seq in seqs if seq in found]
            if after is not None and page[-1] >= after:
                raise out_of_order("the index of results")
            after, size = page[-1], min(2 * size, _LARGEST_PAGE)

    def _matching(self, wanted: Wanted, query: Query) -> tuple[str, list[Any]]:
        """A condition on the index, as far as it knows what a query asks for, and its values.

        The last two of them are a range of numbers.
        """
        tags = [[_tag(_STATE, state) for state in query.states]] if query.states else []
        tags += [[_tag(_OWNER, query.owner)]] if query.owner is not None else []
        tags += [[_tag(_MODEL, query.model)]] if query.model is not None else []
        every = [f"({' OR '.join(some)})" for some in tags]
        text = " AND ".join([f"({match_expression(wanted)})", *every])
        bounds = range_of_time(self._results, query.since, query.until)
        return "w.terms MATCH ? AND w.rowid >= ? AND w.rowid < ?", [text, *bounds]

    def _weights(self, wanted: Wanted) -> list[float]:
        """What each phrase counts; of a phrase of many words, the rarest word of it.

        How rare a word is, is taken from its newest occurrences: counting all would take longer.
        """
        last = self._results.execute("SELECT indexed FROM derived.cursor").get or 0
        texts = max(0, count_after(self._results, 0) - count_after(self._results, last))
        sql = (
            "SELECT count(*), min(rowid) FROM (SELECT rowid FROM derived.terms WHERE terms MATCH ?"
            " ORDER BY rowid DESC LIMIT ?)"
        )

        def frequency(word: str) -> float:
            count, first = self._results.execute(sql, (word, _SAMPLE)).get
            return float(count if count < _SAMPLE else count * texts / max(1, last - first + 1))

        return [
            weight(min(frequency(word) for word in word_expressions(phrase)), texts)
            for every in wanted
            for phrase in every
        ]

    def _hit(self, seq: int, score: float, wanted: Wanted, query: Query) -> Hit | None:
        """A result that the index names; None: it is not what is wanted, or was pruned."""
        try:
            found = self._reader.result(seq)
        except StorageError as error:
            if error.code != StorageError.DAMAGED:
                raise
            listed = self._reader.summary(seq)
            return None if listed is None else Hit(replace(listed[0], state=DAMAGED), score, "", "")
        if found is None:
            return None
        size = self._results.execute("SELECT size FROM results WHERE seq = ?", (seq,)).get
        shown, _ = summary_of(found, size)
        # A damaged index may name any result.
        excerpt = excerpts(wanted, *_texts(found))
        if excerpt is None or not matches(query, shown):
            return None
        prompt, text = excerpt
        return Hit(shown, score, prompt, text)

    def days(self, owner: str | None) -> list[DayStats]:
        """Counts per day, newest first."""
        if not self.attach():
            return []
        found = rows(
            self._results,
            "SELECT day, model, state, sum(results), sum(tokens), sum(prompt_tokens)"
            " FROM derived.rollups WHERE ?1 IS NULL OR owner = ?1"
            " GROUP BY day, model, state ORDER BY day DESC, model, state",
            (owner,),
        )
        return [DayStats(*row) for row in found]

    def lag(self, owner: str | None = None) -> int:
        """Results of an owner (None: of all) that search does not find yet."""
        cursor = 0
        if self.is_current():
            cursor = self._results.execute("SELECT indexed FROM derived.cursor").get or 0
        return count_after(self._results, cursor, owner)

    def close(self) -> None:
        """Close the file."""
        if self._db is not None:
            self._db.close()
            self._db = None


def check_of(*values: str | int | float | bytes | None) -> bytes:
    """The hash of a row that was computed: beside it, it tells whether the row is intact."""
    return digest(encode(values))[:_CHECK]


def _model(found: Result) -> str:
    return str(found.model.get("name", ""))


def _tag(kind: str, value: str) -> str:
    """A word that no text has: `normal` leaves out what it begins with."""
    return f"\ue000{kind}{digest(value.encode('utf-8', 'replace'))[:_TAG].hex()}"


def _texts(found: Result) -> tuple[str, str]:
    """The texts of a result, as far as they are indexed, without what SQLite rejects."""
    return _clean(prompt_text(found.request)), _clean(found.text)


def _clean(text: str) -> str:
    return text[:_INDEXED].encode("utf-8", "replace").decode()


def _day(created: int) -> str:
    days = created // _NS_A_DAY
    return time.strftime("%Y-%m-%d", time.gmtime(days * 86_400))
