"""Analyses of finished results: statistics of certainty, and embeddings in their spaces.

They live in the search index's file: they can be computed again from the results, and pruning a
result deletes them. Each cursor moves in the transaction that adds the work it counts, so that an
interruption neither loses work nor repeats it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import apsw
import msgspec

from llcuda_net.errors import StorageError
from llcuda_net.storage.records import Logprobs, encode
from llcuda_net.storage.results.codec import Codec, FetchBody, beginning, question
from llcuda_net.storage.results.connection import errors, rows, transaction
from llcuda_net.storage.results.interface import (
    CertaintyStats,
    Compute,
    Document,
    Embedding,
    Space,
    Summary,
)
from llcuda_net.storage.results.queries import SUMMARY
from llcuda_net.storage.results.search_index import SearchIndex

#: Results read in one step, and seconds that reading their log-probabilities may take.
_STEP_RESULTS, _STEP = 256, 0.02
#: Most bytes of log-probabilities in one step, one result apart.
_STEP_BYTES = 8 << 20
#: Embeddings read by one statement; no lock is held between statements.
_PAGE = 4096
_model = msgspec.msgpack.Decoder(dict[str, Any])


class SqliteAnalyses:
    """Analyses beside a SqliteStore; see interface.Analyses for the methods.

    Reading works on a read-only store, and finds nothing where nothing was analysed.
    """

    def __init__(
        self, search_index: SearchIndex, results: apsw.Connection, codec: Codec, fetch: FetchBody
    ) -> None:
        self._index = search_index
        self._results = results
        self._codec = codec
        self._fetch = fetch
        self._there = False

    def __repr__(self) -> str:
        return f"<SqliteAnalyses in {self._index!r}>"

    def _readable(self) -> bool:
        """Whether the tables exist; the file of an earlier version has none."""
        if not self._there and self._index.attach():
            sql = "SELECT 1 FROM derived.sqlite_schema WHERE name = 'embeddings'"
            self._there = self._results.execute(sql).get is not None
        return self._there

    # -- certainty ----------------------------------------------------------------------------

    def compute_certainty(self, compute: Compute) -> bool:
        """See Analyses."""
        with errors("results cannot be analysed"):
            db = self._index.open()
            started = time.perf_counter()
            cursor = db.execute("SELECT figured FROM cursor").get
            found: list[tuple[int, Logprobs]] = []
            last, more, size = cursor, False, 0
            for seq, column in rows(
                self._results,
                "SELECT seq, logprobs FROM results WHERE seq > ? ORDER BY seq LIMIT ?",
                (cursor, _STEP_RESULTS),
            ):
                late = time.perf_counter() - started > _STEP or size > _STEP_BYTES
                if late and last > cursor:
                    more = True
                    break
                last = seq
                if column is not None:
                    # `verify` reports damage; it must not stop the analysis of other results.
                    with contextlib.suppress(StorageError):
                        logprobs = self._codec.unpack_logprobs(column, self._fetch)
                        found.append((seq, logprobs))
                        size += sum(map(len, logprobs))
            if last == cursor:
                return False
            computed = compute([logprobs for _, logprobs in found]) if found else []
            with transaction(db):
                for (seq, _), one in zip(found, computed, strict=True):
                    db.execute(
                        "INSERT OR REPLACE INTO figures VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                        (
                            seq,
                            one.tokens,
                            one.mean_surprisal,
                            one.perplexity,
                            one.mean_entropy,
                            *one.least_certain,
                            one.span_surprisal,
                        ),
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
                "SELECT f.tokens, f.mean_surprisal, f.perplexity, f.mean_entropy, f.first,"
                " f.behind, f.span_surprisal FROM derived.figures f"
                " JOIN results r ON r.seq = f.seq WHERE r.id = ?",
                (result,),
            ).get
            if row is None:
                return None
            tokens, surprisal, perplexity, entropy, first, end, worst = row
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
            return [
                Space(number, _model.decode(model), *rest)
                for number, model, *rest in rows(self._results, sql)
            ]

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

    def unembedded(self, after: int, limit: int) -> list[Document]:
        """See Analyses."""
        with errors("results cannot be read"):
            return [
                self._document(*row)
                for row in rows(
                    self._results,
                    "SELECT seq, owner, input, log FROM results WHERE seq > ? ORDER BY seq LIMIT ?",
                    (after, limit),
                )
            ]

    def _document(self, seq: int, owner: str, request: bytes | int, log: bytes | int) -> Document:
        prompt = answer = ""
        # As above: a damaged result has no text.
        with contextlib.suppress(StorageError):
            prompt = question(self._codec.unpack_request(request, self._fetch))
            answer = "".join(self._codec.unpack_log(log, None, self._fetch).pieces)
        return Document(seq, owner, prompt, answer)

    def _pieces(self, log: bytes | int) -> list[str]:
        with contextlib.suppress(StorageError):
            return self._codec.unpack_log(log, None, self._fetch).pieces
        return []

    def embed(self, space: int, upto: int, rows: Sequence[tuple[int, float, bytes]]) -> None:
        """See Analyses."""
        with errors("embeddings cannot be stored"):
            db = self._index.open()
            with transaction(db):
                for seq, scale, codes in rows:
                    db.execute(
                        "INSERT OR IGNORE INTO embeddings (space, seq, scale, codes)"
                        " VALUES (?, ?, ?, ?)",
                        (space, seq, scale, codes),
                    )
                db.execute("UPDATE spaces SET seq = max(seq, ?) WHERE id = ?", (upto, space))

    def embeddings(self, space: int) -> Iterator[list[Embedding]]:
        """See Analyses."""
        last = 0
        while True:
            with errors("the embeddings cannot be read"):
                page = self._page(space, last)
            if not page:
                return
            yield page
            last = page[-1].id

    def _page(self, space: int, last: int) -> list[Embedding]:
        if not self._readable():
            return []
        return [
            Embedding(*row)
            for row in rows(
                self._results,
                "SELECT e.id, e.seq, r.owner, e.scale, e.codes FROM derived.embeddings e"
                " JOIN results r ON r.seq = e.seq"
                " WHERE e.space = ? AND e.id > ? ORDER BY e.id LIMIT ?",
                (space, last, _PAGE),
            )
        ]

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
                row = self._results.execute(
                    f"SELECT {SUMMARY}, r.log FROM results r"
                    " JOIN models m ON m.id = r.model WHERE r.seq = ?",
                    (seq,),
                ).get
                if row is not None:  # else it was pruned
                    out[seq] = Summary(*row[:10]), beginning(self._pieces(row[10]))
        return out

    def lag(self, seq: int, owner: str | None = None) -> int:
        """See Analyses."""
        with errors("results cannot be read"):
            sql = "SELECT count(*) FROM results WHERE seq > ?1 AND (?2 IS NULL OR owner = ?2)"
            return int(self._results.execute(sql, (seq, owner)).get)
