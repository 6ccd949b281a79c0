"""The search index: full text, counts per day, and the tables that analyses.py uses.

Everything in it is computed from the results, and lives in a file of its own. Its cursor is the
number of the last indexed result, and moves in the transaction that indexes. The index is emptied
and built again if it belongs to another store, or is ahead of the store (after the restore of a
backup).
"""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import apsw

from llcuda_net.errors import StorageError
from llcuda_net.storage.results import migrations
from llcuda_net.storage.results.codec import prompt_text
from llcuda_net.storage.results.connection import connect, rows, transaction
from llcuda_net.storage.results.interface import HIGHLIGHT, DayStats, Hit, Query, Summary
from llcuda_net.storage.results.queries import conditions

#: Target duration of one step in seconds, and most results in it.
_STEP, _STEP_RESULTS = 0.02, 256
#: Indexed characters of a prompt and of a text.
_INDEXED = 200_000
_EXCERPT_WORDS = 24
_NS_A_DAY = 86_400 * 10**9

#: Returns the request and the text of two columns.
Document = Callable[[bytes | int, bytes | int], tuple[dict[str, Any], str]]


class SearchIndex:
    """derived.db, beside a connection to results.db.

    Args:
        results: the connection that reads results.
        create: make the file if it does not exist.
    """

    def __init__(self, path: Path, results: apsw.Connection, *, create: bool) -> None:
        self._path = path
        self._results = results
        self._db: apsw.Connection | None = None
        self._attached = False
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
                for path in self._path.parent.glob(f"{self._path.name}*"):
                    path.unlink()
                self._db = self._prepare()
        return self._db

    def _prepare(self) -> apsw.Connection:
        # Not durable: a power cut takes the cursor too, so that lost work is computed again.
        db = connect(self._path, create=True, durable=False)
        try:
            migrations.migrate(db, migrations.DERIVED)
            store = self._results.execute("SELECT store FROM identity").get
            newest = self._results.execute("SELECT coalesce(max(seq), 0) FROM results").get
            last = self._results.execute("SELECT seq FROM sqlite_sequence WHERE name = 'results'")
            newest = max(newest, last.get or 0)
            if db.execute("SELECT store FROM cursor WHERE seq <= ?", (newest,)).get != store:
                with transaction(db):
                    db.execute("INSERT INTO texts(texts) VALUES ('delete-all')")
                    db.execute(
                        "DELETE FROM rollups; DELETE FROM cursor; DELETE FROM figures;"
                        " DELETE FROM spaces; DELETE FROM embeddings"
                    )
                    db.execute("INSERT INTO cursor (store, seq) VALUES (?, 0)", (store,))
        except BaseException:
            db.close()
            raise
        return db

    # -- bringing up to date ------------------------------------------------------------------

    def update(self, document: Document) -> bool:
        """Index some results; whether there may be more."""
        db = self.open()
        started = time.perf_counter()
        cursor = db.execute("SELECT seq FROM cursor").get
        batch = rows(
            self._results,
            "SELECT r.seq, r.created, m.name, r.owner, r.state, r.tokens, r.prompt_tokens, r.input,"
            " r.log FROM results r JOIN models m ON m.id = r.model"
            " WHERE r.seq > ? ORDER BY r.seq LIMIT ?",
            (cursor, _STEP_RESULTS),
        )
        if not batch:
            return False
        days: Counter[tuple[str, str, str, str]] = Counter()
        tokens: Counter[tuple[str, str, str, str]] = Counter()
        prompt_tokens: Counter[tuple[str, str, str, str]] = Counter()
        done = 0
        with transaction(db):
            for row in batch:
                seq, created, model, owner, state, count, prompt_count, request, log = row
                prompt, text = _texts(document, request, log)
                db.execute(
                    "INSERT INTO texts (rowid, prompt, text) VALUES (?, ?, ?)",
                    (seq, prompt[:_INDEXED], text[:_INDEXED]),
                )
                group = (_day(created), model, owner, state)
                days[group] += 1
                tokens[group] += count
                prompt_tokens[group] += prompt_count
                done += 1
                if time.perf_counter() - started > _STEP:
                    break
            for group, results in days.items():
                db.execute(
                    "INSERT INTO rollups VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
                    " results = results + excluded.results, tokens = tokens + excluded.tokens,"
                    " prompt_tokens = prompt_tokens + excluded.prompt_tokens",
                    (*group, results, tokens[group], prompt_tokens[group]),
                )
            db.execute("UPDATE cursor SET seq = ?", (batch[done - 1][0],))
        return done < len(batch) or len(batch) == _STEP_RESULTS

    def remove(self, seqs: Sequence[int]) -> None:
        """Remove results that are about to be deleted."""
        db = self.open()
        with transaction(db):
            for seq in seqs:
                db.execute("DELETE FROM texts WHERE rowid = ?", (seq,))
                db.execute("DELETE FROM figures WHERE seq = ?", (seq,))
                db.execute("DELETE FROM embeddings WHERE seq = ?", (seq,))

    # -- reading ------------------------------------------------------------------------------

    def attach(self) -> bool:
        """Attach the file to the reading connection, as `derived`; whether it exists."""
        if not self._attached and self._path.exists():
            self._results.execute("ATTACH ? AS derived", (str(self._path),))
            self._attached = True
        return self._attached

    def search(self, words: str, query: Query, document: Document) -> list[Hit]:
        """See Store.search."""
        match = match_expression(words)
        if not self.attach():
            return []
        wanted, values = conditions(query)
        sql = (
            "SELECT r.id, r.created, r.finished, r.state, m.name, r.owner, r.tokens,"
            " r.prompt_tokens, r.size, r.preview, -t.rank, r.input, r.log"
            " FROM derived.texts t JOIN results r ON r.seq = t.rowid"
            " JOIN models m ON m.id = r.model"
            f" WHERE {' AND '.join(['t.texts MATCH ?', *wanted])} ORDER BY t.rank LIMIT ?"
        )
        limit = -1 if query.limit is None else max(0, query.limit)
        found = rows(self._results, sql, [match, *values, limit])
        excerpts = _excerpts(match, [_texts(document, *row[11:]) for row in found])
        return [
            Hit(Summary(*row[:10]), row[10], *excerpt)
            for row, excerpt in zip(found, excerpts, strict=True)
        ]

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

    def lag(self) -> int:
        """Results that are not indexed yet."""
        cursor = 0
        if self.attach():
            cursor = self._results.execute("SELECT seq FROM derived.cursor").get or 0
        return int(
            self._results.execute("SELECT count(*) FROM results WHERE seq > ?", (cursor,)).get
        )

    def close(self) -> None:
        """Close the file."""
        if self._db is not None:
            self._db.close()


def match_expression(words: str) -> str:
    """The FTS5 expression of a user's search words; see Store.search.

    Raises:
        StorageError: they hold no word.
    """
    terms: list[str] = []
    for number, part in enumerate(words.split('"')):
        if number % 2:
            if any(c.isalnum() for c in part):
                terms.append(f'"{part}"')
            continue
        for word in part.split():
            prefix = word.endswith("*")
            bare = word.rstrip("*")
            if word == "OR":
                if terms and terms[-1] != "OR":
                    terms.append("OR")
            elif any(c.isalnum() for c in bare):
                terms.append(f'"{bare}"' + "*" * prefix)
    if terms and terms[-1] == "OR":
        terms.pop()
    if not terms:
        raise StorageError("give at least one word to search for", StorageError.INVALID)
    out = terms[0]
    for before, term in itertools.pairwise(terms):
        out += f" {term}" if "OR" in (before, term) else f" AND {term}"
    return out


def _texts(document: Document, request: bytes | int, log: bytes | int) -> tuple[str, str]:
    try:
        found, text = document(request, log)
    except StorageError:
        return "", ""  # `verify` reports the damage; it must not stop the indexing of others
    return _clean(prompt_text(found)), _clean(text)


def _clean(text: str) -> str:
    """The text without characters that SQLite rejects, or that end a string."""
    return text.replace("\0", " ").encode("utf-8", "replace").decode()


def _excerpts(match: str, texts: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Excerpts around the words. The index stores no texts, so these are indexed again."""
    db = apsw.Connection(":memory:")
    try:
        db.execute(
            "CREATE VIRTUAL TABLE t USING fts5 (prompt, text,"
            " tokenize='unicode61 remove_diacritics 2')"
        )
        for number, (prompt, text) in enumerate(texts):
            db.execute(
                "INSERT INTO t (rowid, prompt, text) VALUES (?, ?, ?)",
                (number, prompt[:_INDEXED], text[:_INDEXED]),
            )
        found = {
            number: (prompt, text)
            for number, prompt, text in db.execute(
                "SELECT rowid, snippet(t, 0, ?1, ?2, '…', ?3), snippet(t, 1, ?1, ?2, '…', ?3)"
                " FROM t WHERE t MATCH ?4",
                (*HIGHLIGHT, _EXCERPT_WORDS, match),
            )
        }
        return [found.get(number, ("", "")) for number in range(len(texts))]
    finally:
        db.close()


def _day(created: int) -> str:
    days = created // _NS_A_DAY
    return time.strftime("%Y-%m-%d", time.gmtime(days * 86_400))
