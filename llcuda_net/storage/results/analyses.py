"""Analyses of finished results: statistics of certainty, and embeddings in their spaces.

They live in the search index's file: they can be computed again from the results, and pruning a
result deletes them. Each cursor moves in the transaction that adds the work it counts, so that an
interruption neither loses work nor repeats it. Beside each row is its hash: what is damaged is
computed again.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import apsw
import msgspec

from llcuda_net.errors import StorageError
from llcuda_net.storage.packing.codec import question
from llcuda_net.storage.records import DECODE_ERRORS, Logprobs, encode
from llcuda_net.storage.results.buckets import ALL, holds
from llcuda_net.storage.results.connection import errors, rows, transaction
from llcuda_net.storage.results.interface import (
    DAMAGED,
    CertaintyStats,
    Compute,
    Document,
    Embedding,
    Space,
    Summary,
)
from llcuda_net.storage.results.queries import count_after
from llcuda_net.storage.results.reader import Reader
from llcuda_net.storage.results.search_index import SearchIndex, check_of

#: Results read in one step, and seconds that reading their log-probabilities may take.
_STEP_RESULTS, _STEP = 256, 0.02
#: Most bytes of log-probabilities in one step, one result apart.
_STEP_BYTES = 8 << 20
#: Embeddings read by one statement; no lock is held between statements.
_PAGE = 4096
_MOST_ID = (1 << 63) - 1
_model = msgspec.msgpack.Decoder(dict[str, Any])


class SqliteAnalyses:
    """Analyses beside a SqliteStore; see interface.Analyses for the methods.

    Reading works on a read-only store, and finds nothing where nothing was analysed.
    """

    def __init__(self, search_index: SearchIndex, results: apsw.Connection, reader: Reader) -> None:
        self._index = search_index
        self._results = results
        self._reader = reader

    def __repr__(self) -> str:
        return f"<SqliteAnalyses in {self._index!r}>"

    def _readable(self) -> bool:
        return self._index.is_current()

    # -- certainty ----------------------------------------------------------------------------

    def compute_certainty(self, compute: Compute) -> bool:
        """See Analyses."""
        with errors("results cannot be analysed"):
            db = self._index.open()
            started = time.perf_counter()
            cursor = db.execute("SELECT figured FROM cursor").get
            found: list[tuple[int, Logprobs]] = []
            last, more, size = cursor, False, 0
            for seq, some in rows(
                self._results,
                "SELECT seq, logprobs IS NOT NULL FROM results WHERE seq > ? ORDER BY seq LIMIT ?",
                (cursor, _STEP_RESULTS),
            ):
                late = time.perf_counter() - started > _STEP or size > _STEP_BYTES
                if late and last > cursor:
                    more = True
                    break
                last = seq
                if some:
                    # `verify` reports damage; it must not stop the analysis of other results.
                    with contextlib.suppress(StorageError):
                        result = self._reader.result(seq)
                        if result is not None and result.log.logprobs is not None:
                            found.append((seq, result.log.logprobs))
                            size += sum(map(len, result.log.logprobs))
            if last <= cursor:  # nothing new, or rows that are out of order
                return False
            computed = compute([logprobs for _, logprobs in found]) if found else []
            with transaction(db):
                for (seq, _), one in zip(found, computed, strict=True):
                    row = (
                        seq,
                        one.tokens,
                        one.mean_surprisal,
                        one.perplexity,
                        one.mean_entropy,
                        *one.least_certain,
                        one.span_surprisal,
                    )
                    db.execute(
                        "INSERT OR REPLACE INTO figures VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                        (*row, check_of(*row)),
                    )
                # Another process may have done the same meanwhile.
                db.execute("UPDATE cursor SET figured = max(figured, ?)", (last,))
            return more or self.lag(last) > 0

    def certainty(self, result: str) -> CertaintyStats | None:
        """See Analyses."""
        with errors("a result's analysis cannot be read"):
            if not self._readable():
                return None
            row = self._results.execute(
                "SELECT f.seq, f.tokens, f.mean_surprisal, f.perplexity, f.mean_entropy, f.first,"
                " f.behind, f.span_surprisal, f.hash FROM derived.figures f"
                " JOIN results r ON r.seq = f.seq WHERE r.id = ?",
                (result,),
            ).get
            if row is None or check_of(*row[:-1]) != row[-1]:
                return None  # whoever shows them computes them then
            _, tokens, surprisal, perplexity, entropy, first, end, worst, _ = row
            return CertaintyStats(tokens, surprisal, perplexity, entropy, (first, end), worst)

    def certainty_seq(self) -> int:
        """See Analyses."""
        with errors("the analysis cannot be read"):
            if not self._readable():
                return 0
            return int(self._results.execute("SELECT figured FROM derived.cursor").get or 0)

    # -- embeddings ---------------------------------------------------------------------------

    def spaces(self) -> list[Space]:
        """See Analyses."""
        with errors("the embeddings cannot be read"):
            if not self._readable():
                return []
            sql = "SELECT id, model, dim, recipe, seq FROM derived.spaces ORDER BY id DESC"
            out = []
            for number, model, *rest in rows(self._results, sql):
                with contextlib.suppress(*DECODE_ERRORS):  # damaged: another takes its place
                    out.append(Space(number, _model.decode(model), *rest))
            return out

    def open_space(self, model: dict[str, Any], dim: int, recipe: int, seq: int = 0) -> Space:
        """See Analyses."""
        with errors("embeddings cannot be stored"):
            db = self._index.open()
            with transaction(db):
                db.execute(
                    "INSERT INTO spaces (model, dim, recipe, seq) VALUES (?, ?, ?, ?)",
                    (encode(model), dim, recipe, seq),
                )
                number = db.last_insert_rowid()
            return Space(number, model, dim, recipe, seq)

    def update_model(self, space: Space, model: dict[str, Any]) -> None:
        """See Analyses."""
        with errors("embeddings cannot be stored"):
            db = self._index.open()
            with transaction(db):
                db.execute("UPDATE spaces SET model = ? WHERE id = ?", (encode(model), space.id))

    def unembedded(self, after: int, limit: int, space: int = 0) -> list[Document]:
        """See Analyses."""
        with errors("results cannot be read"):
            found = []
            if self._readable():
                found = rows(
                    self._results,
                    "SELECT seq FROM derived.lost WHERE space = ? ORDER BY seq LIMIT ?",
                    (space, limit),
                )
            if not found:
                new = rows(
                    self._results,
                    "SELECT seq FROM results WHERE seq > ? ORDER BY seq LIMIT ?",
                    (after, limit),
                )
                found = sorted(row for row in new if row[0] > after)  # damage may disorder them
            return [self._document(seq) for (seq,) in found]

    def _document(self, seq: int) -> Document:
        # As above: a damaged result has no text, nor has one that was pruned meanwhile.
        with contextlib.suppress(StorageError):
            if (found := self._reader.result(seq)) is not None:
                return Document(seq, found.owner, question(found.request), found.text)
        return Document(seq, "", "", "")

    def embed(self, space: int, upto: int, rows: Sequence[tuple[int, float, bytes]]) -> None:
        """See Analyses."""
        with errors("embeddings cannot be stored"):
            db = self._index.open()
            with transaction(db):
                for seq, scale, codes in rows:
                    db.execute(
                        "INSERT OR IGNORE INTO embeddings (space, seq, scale, codes, hash)"
                        " VALUES (?, ?, ?, ?, ?)",
                        (space, seq, scale, codes, check_of(space, seq, scale, codes)),
                    )
                db.execute("DELETE FROM lost WHERE space = ? AND seq <= ?", (space, upto))
                db.execute("UPDATE spaces SET seq = max(seq, ?) WHERE id = ?", (upto, space))

    def embeddings(
        self,
        space: int,
        after: int = 0,
        *,
        upto: int | None = None,
        buckets: int = ALL,
        owner: str | None = None,
    ) -> Iterator[list[Embedding]]:
        """See Analyses."""
        last = after
        while True:
            before = last
            with errors("the embeddings cannot be read"):
                page, last, bad = self._page(space, last, upto)
                if bad:
                    self._lose(space, bad)
            if last == before:
                return
            wanted = [one for one in page if holds(buckets, one.seq) and owner in (None, one.owner)]
            if wanted:
                yield wanted

    def _page(
        self, space: int, last: int, upto: int | None
    ) -> tuple[list[Embedding], int, list[tuple[int, int]]]:
        """The next embeddings, the last of their ids, and the id and number of damaged ones."""
        page, bad = [], []
        if self._readable():
            for id_, seq, owner, scale, codes, check in rows(
                self._results,
                "SELECT e.id, e.seq, r.owner, e.scale, e.codes, e.hash FROM derived.embeddings e"
                " JOIN results r ON r.seq = e.seq"
                " WHERE e.space = ? AND e.id > ? AND e.id <= ? ORDER BY e.id LIMIT ?",
                (space, last, _MOST_ID if upto is None else upto, _PAGE),
            ):
                last = id_
                if check_of(space, seq, scale, codes) == check:
                    page.append(Embedding(id_, seq, owner, scale, codes))
                else:
                    bad.append((id_, seq))
        return page, last, bad

    def _lose(self, space: int, bad: list[tuple[int, int]]) -> None:
        """Delete damaged embeddings, so that they are computed again."""
        db = self._index.open()
        with transaction(db):
            for id_, seq in bad:
                db.execute("DELETE FROM embeddings WHERE id = ?", (id_,))
                db.execute("INSERT OR IGNORE INTO lost VALUES (?, ?)", (space, seq))

    def count(self, space: int) -> int:
        """See Analyses."""
        with errors("the embeddings cannot be read"):
            if not self._readable():
                return 0
            sql = "SELECT count(*) FROM derived.embeddings WHERE space = ?"
            return int(self._results.execute(sql, (space,)).get)

    def summaries(self, seqs: Collection[int]) -> dict[int, tuple[Summary, str]]:
        """See Analyses."""
        out = {}
        with errors("results cannot be read"):
            for seq in seqs:
                found = self._reader.summary(seq)
                if found is not None and found[0].state != DAMAGED:  # else it was pruned
                    out[seq] = found
        return out

    def numbers(self, ids: Collection[str]) -> dict[str, int]:
        """See Analyses."""
        sql = "SELECT id, seq FROM results WHERE id IN (SELECT value FROM json_each(?))"
        with errors("results cannot be read"):
            return dict(rows(self._results, sql, (json.dumps([*ids]),)))

    def numbered(self, after: int, limit: int) -> list[tuple[int, str]]:
        """See Analyses."""
        sql = "SELECT seq, id FROM results WHERE seq > ? ORDER BY seq LIMIT ?"
        with errors("results cannot be read"):
            found = rows(self._results, sql, (after, limit))
            return sorted((seq, id_) for seq, id_ in found if seq > after)  # damage may disorder

    def lag(self, seq: int, owner: str | None = None) -> int:
        """See Analyses."""
        with errors("results cannot be read"):
            return count_after(self._results, seq, owner)
