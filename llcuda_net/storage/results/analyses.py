"""What was computed of finished results: figures of certainty, and embeddings in their spaces.

It lies in derived.db: all of it can be computed again from the results, and goes with them when
they are pruned. Each cursor moves in the transaction that adds what it stands for, so that work is
neither lost nor done twice, wherever it was cut off.
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
from llcuda_net.storage.results.codec import Codec, Fetch, beginning, question
from llcuda_net.storage.results.connection import errors, rows, transaction
from llcuda_net.storage.results.interface import (
    Compute,
    Document,
    Embedding,
    Figures,
    Space,
    Summary,
)
from llcuda_net.storage.results.queries import SUMMARY
from llcuda_net.storage.results.search_index import SearchIndex

#: Results looked at in one step, and seconds that reading their log-probabilities may take.
_STEP_RESULTS, _STEP = 256, 0.02
#: Embeddings read by one statement: between statements nothing is held.
_PAGE = 4096
_model = msgspec.msgpack.Decoder(dict[str, Any])


class SqliteAnalyses:
    """Analyses beside a SqliteStore; see store.Analyses for the methods.

    Reading works where nothing may be written, and finds nothing where nothing was analysed.
    """

    def __init__(
        self, search_index: SearchIndex, results: apsw.Connection, codec: Codec, fetch: Fetch
    ) -> None:
        self._derived = search_index
        self._results = results
        self._codec = codec
        self._fetch = fetch
        self._there = False

    def _readable(self) -> bool:
        """Whether there is something to read; an earlier version's file has nothing of it."""
        if not self._there and self._derived.attach():
            sql = "SELECT 1 FROM derived.sqlite_schema WHERE name = 'embeddings'"
            self._there = self._results.execute(sql).get is not None
        return self._there

    # -- certainty ----------------------------------------------------------------------------

    def figure(self, compute: Compute) -> bool:
        """See Analyses."""
        with errors("results cannot be analysed"):
            db = self._derived.open()
            started = time.perf_counter()
            cursor = db.execute("SELECT figured FROM cursor").get
            found: list[tuple[int, Logprobs]] = []
            last, more = cursor, False
            for seq, column in rows(
                self._results,
                "SELECT seq, logprobs FROM results WHERE seq > ? ORDER BY seq LIMIT ?",
                (cursor, _STEP_RESULTS),
            ):
                if time.perf_counter() - started > _STEP and last > cursor:
                    more = True
                    break
                last = seq
                if column is not None:
                    # `verify` names what is damaged; here it must not keep others from being done.
                    with contextlib.suppress(StorageError):
                        found.append((seq, self._codec.unpack_logprobs(column, self._fetch)))
            if last == cursor:
                return False
            figures = compute([logprobs for _, logprobs in found]) if found else []
            with transaction(db):
                for (seq, _), one in zip(found, figures, strict=True):
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
                # Somebody else may have done the same meanwhile.
                db.execute("UPDATE cursor SET figured = max(figured, ?)", (last,))
            return more or self.behind(last) > 0

    def figures(self, result: str) -> Figures | None:
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
            tokens, surprisal, perplexity, entropy, first, behind, worst = row
            return Figures(tokens, surprisal, perplexity, entropy, (first, behind), worst)

    def figured(self) -> int:
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
            db = self._derived.open()
            with transaction(db):
                db.execute(
                    "INSERT INTO spaces (model, dim, recipe, seq) VALUES (?, ?, ?, ?)",
                    (encode(model), dim, recipe, seq),
                )
                number = db.last_insert_rowid()
            return Space(number, model, dim, recipe, seq)

    def know(self, space: Space, model: dict[str, Any]) -> None:
        """See Analyses."""
        with errors("embeddings cannot be stored"):
            db = self._derived.open()
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
        asked = answer = ""
        # As above: what is damaged has no text.
        with contextlib.suppress(StorageError):
            asked = question(self._codec.unpack_request(request, self._fetch))
            answer = "".join(self._codec.unpack_log(log, None, self._fetch).pieces)
        return Document(seq, owner, asked, answer)

    def _pieces(self, log: bytes | int) -> list[str]:
        with contextlib.suppress(StorageError):
            return self._codec.unpack_log(log, None, self._fetch).pieces
        return []

    def embed(self, space: int, upto: int, rows: Sequence[tuple[int, float, bytes]]) -> None:
        """See Analyses."""
        with errors("embeddings cannot be stored"):
            db = self._derived.open()
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

    def behind(self, seq: int, owner: str | None = None) -> int:
        """See Analyses."""
        with errors("results cannot be read"):
            sql = "SELECT count(*) FROM results WHERE seq > ?1 AND (?2 IS NULL OR owner = ?2)"
            return int(self._results.execute(sql, (seq, owner)).get)
