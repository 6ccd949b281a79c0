"""Analyses of finished results in PostgreSQL: statistics of certainty, and embeddings.

Each cursor moves in the transaction that adds the work it counts, under a lock on its row: what two
servers do at once, one of them does in vain. A result that is deleted takes its analyses with it,
by foreign keys. Beside each row is its hash: what is damaged is computed again.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Iterator, Sequence
from functools import partial
from typing import Any

import msgspec

from llcuda_net.storage.packing.codec import Codec, digest, question
from llcuda_net.storage.postgres.connection import Connection, Session
from llcuda_net.storage.postgres.queries import count_after, number
from llcuda_net.storage.postgres.rows import Found, listed, whole
from llcuda_net.storage.records import DECODE_ERRORS, Logprobs, encode
from llcuda_net.storage.results.buckets import ALL, BUCKETS, packed
from llcuda_net.storage.results.interface import (
    DAMAGED,
    CertaintyStats,
    Compute,
    Document,
    Embedding,
    Space,
    Summary,
)

#: Results that one step looks at, and seconds that reading their log-probabilities may take.
_STEP_RESULTS, _STEP = 256, 0.02
#: Results that are read at once.
_READ = 16
#: Embeddings read by one statement.
_PAGE = 4096
#: Bytes of the hash of a row.
_CHECK = 8
_WHAT_COMPUTE = "results cannot be analysed"
_WHAT_STORE = "embeddings cannot be stored"
_WHAT_READ = "the analyses cannot be read"
_model = msgspec.msgpack.Decoder(dict[str, Any])

_CERTAINTY = (
    "INSERT INTO certainty SELECT d.* FROM (VALUES (%s::bigint, %s::bigint, %s::float8,"
    " %s::float8, %s::float8, %s::bigint, %s::bigint, %s::float8, %s::bytea)) AS d (seq)"
    " JOIN results r ON r.seq = d.seq FOR KEY SHARE OF r"
)
_EMBEDDINGS = (
    "INSERT INTO embeddings (space, seq, scale, codes, hash)"
    " SELECT %s, d.seq, d.scale, d.codes, d.hash"
    " FROM unnest(%s::bigint[], %s::float8[], %s::bytea[], %s::bytea[])"
    " WITH ORDINALITY AS d (seq, scale, codes, hash, place) JOIN results r ON r.seq = d.seq"
    " ORDER BY d.place FOR KEY SHARE OF r"
)
#: Its result may be deleted meanwhile.
_LOST = (
    "INSERT INTO lost SELECT %s, seq FROM results WHERE seq = %s FOR KEY SHARE"
    " ON CONFLICT DO NOTHING"
)


class PostgresAnalyses:
    """Analyses beside a PostgresStore; see interface.Analyses for the methods."""

    def __init__(self, session: Session, codec: Codec) -> None:
        self._session = session
        self._codec = codec

    def __repr__(self) -> str:
        return f"<PostgresAnalyses of {self._session!r}>"

    # -- certainty ----------------------------------------------------------------------------

    def compute_certainty(self, compute: Compute) -> bool:
        """See Analyses."""
        cursor, last, found = self._session.ask(_WHAT_COMPUTE, self._without_certainty)
        if last <= cursor:
            return False
        computed = compute([logprobs for _, logprobs in found]) if found else []
        rows = []
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
            rows.append((*row, _check_of(*row)))

        def store(db: Connection) -> bool:
            figured = number(db, "SELECT figured FROM progress FOR UPDATE", [])
            if figured == cursor:  # else another server has done the same meanwhile
                for row in rows:
                    db.execute(_CERTAINTY, row)
                db.execute("UPDATE progress SET figured = %s", (last,))
            return count_after(db, max(figured, last)) > 0

        return self._session.change(_WHAT_COMPUTE, store)

    def _without_certainty(self, db: Connection) -> tuple[int, int, list[tuple[int, Logprobs]]]:
        """The cursor, how far it may move, and the log-probabilities of results up to there."""
        started = time.perf_counter()
        cursor = number(db, "SELECT figured FROM progress", [])
        found: list[tuple[int, Logprobs]] = []
        sql = "SELECT seq, logprobs IS NOT NULL FROM results WHERE seq > %s ORDER BY seq LIMIT %s"
        batch = db.execute(sql, (cursor, _STEP_RESULTS)).fetchall()
        last = cursor
        for first in range(0, len(batch), _READ):
            if first and time.perf_counter() - started > _STEP:
                break
            some = batch[first : first + _READ]
            seqs = [seq for seq, has in some if has]
            for one in self._read(db, seqs) if seqs else ():
                # `verify` reports damage; it must not stop the analysis of other results.
                if one.result is not None and one.result.log.logprobs is not None:
                    found.append((one.seq, one.result.log.logprobs))
            last = some[-1][0]
        return cursor, last, found

    def _read(self, db: Connection, seqs: list[int]) -> list[Found]:
        return whole(db, self._codec, "WHERE r.seq = ANY(%s) ORDER BY r.seq", (seqs,))

    def certainty(self, result: str) -> CertaintyStats | None:
        """See Analyses."""
        row = self._session.ask(
            _WHAT_READ,
            lambda db: db.execute(
                "SELECT c.* FROM certainty c JOIN results r USING (seq) WHERE r.id = %s", (result,)
            ).fetchone(),
        )
        if row is None or _check_of(*row[:-1]) != row[-1]:
            return None  # whoever shows them computes them then
        _, tokens, surprisal, perplexity, entropy, first, end, worst, _ = row
        return CertaintyStats(tokens, surprisal, perplexity, entropy, (first, end), worst)

    def certainty_seq(self) -> int:
        """See Analyses."""
        return self._session.ask(
            _WHAT_READ, lambda db: number(db, "SELECT figured FROM progress", [])
        )

    # -- embeddings ---------------------------------------------------------------------------

    def spaces(self) -> list[Space]:
        """See Analyses."""
        rows = self._session.ask(
            _WHAT_READ,
            lambda db: db.execute(
                "SELECT id, model, dim, recipe, seq FROM spaces ORDER BY id DESC"
            ).fetchall(),
        )
        out = []
        for id_, model, *rest in rows:
            with contextlib.suppress(*DECODE_ERRORS):  # damaged: another takes its place
                out.append(Space(id_, _model.decode(model), *rest))
        return out

    def open_space(self, model: dict[str, Any], dim: int, recipe: int, seq: int = 0) -> Space:
        """See Analyses."""
        sql = "INSERT INTO spaces (model, dim, recipe, seq) VALUES (%s, %s, %s, %s) RETURNING id"
        values = [encode(model), dim, recipe, seq]
        id_ = self._session.change(_WHAT_STORE, lambda db: number(db, sql, values))
        return Space(id_, model, dim, recipe, seq)

    def update_model(self, space: Space, model: dict[str, Any]) -> None:
        """See Analyses."""
        values = (encode(model), space.id)
        sql = "UPDATE spaces SET model = %s WHERE id = %s"
        self._session.change(_WHAT_STORE, lambda db: db.execute(sql, values))

    def unembedded(self, after: int, limit: int, space: int = 0) -> list[Document]:
        """See Analyses."""

        def read(db: Connection) -> list[Document]:
            sql = "SELECT seq FROM lost WHERE space = %s ORDER BY seq LIMIT %s"
            seqs = [row[0] for row in db.execute(sql, (space, limit))]
            if not seqs:
                sql = "SELECT seq FROM results WHERE seq > %s ORDER BY seq LIMIT %s"
                seqs = [row[0] for row in db.execute(sql, (after, limit))]
            read = {one.seq: one for one in self._read(db, seqs)} if seqs else {}
            return [_document(seq, read.get(seq)) for seq in seqs]

        return self._session.ask("results cannot be read", read)

    def embed(self, space: int, upto: int, rows: Sequence[tuple[int, float, bytes]]) -> None:
        """See Analyses."""

        def store(db: Connection) -> None:
            # The lock on the space's row keeps another server from adding the same meanwhile.
            db.execute("SELECT 1 FROM spaces WHERE id = %s FOR UPDATE", (space,))
            if rows:
                hashes = [_check_of(space, seq, scale, codes) for seq, scale, codes in rows]
                columns = map(list, zip(*rows, strict=True))
                sql = f"{_EMBEDDINGS} ON CONFLICT DO NOTHING"
                db.execute(sql, (space, *columns, hashes))
            db.execute("DELETE FROM lost WHERE space = %s AND seq <= %s", (space, upto))
            db.execute("UPDATE spaces SET seq = greatest(seq, %s) WHERE id = %s", (upto, space))

        self._session.change(_WHAT_STORE, store)

    def embeddings(
        self,
        space: int,
        after: int = 0,
        *,
        upto: int | None = None,
        buckets: int = ALL,
        owner: str | None = None,
    ) -> Iterator[list[Embedding]]:
        """See Analyses. Who adds has locked the space: so ids are seen in their order."""
        last = after
        wanted: list[tuple[str, object]] = [("e.space = %s", space)]
        if upto is not None:
            wanted.append(("e.id <= %s", upto))
        if buckets != ALL:
            wanted.append((f"get_bit(%s, (e.seq %% {BUCKETS})::int) = 1", packed(buckets)))
        if owner is not None:
            wanted.append(("r.owner = %s", owner))
        while True:
            read = partial(_embeddings, [*wanted, ("e.id > %s", last)])
            rows = self._session.ask(_WHAT_READ, read)
            if not rows:
                return
            last = rows[-1][0]
            page, bad = [], []
            for id_, seq, owner, scale, codes, check in rows:
                if _check_of(space, seq, scale, codes) == check:
                    page.append(Embedding(id_, seq, owner, scale, codes))
                else:
                    bad.append((id_, seq))
            if bad:
                self._lose(space, bad)
            if page:
                yield page

    def _lose(self, space: int, bad: list[tuple[int, int]]) -> None:
        """Delete damaged embeddings, so that they are computed again."""

        def lose(db: Connection) -> None:
            for id_, seq in bad:
                db.execute("DELETE FROM embeddings WHERE id = %s", (id_,))
                db.execute(_LOST, (space, seq))

        self._session.change(_WHAT_STORE, lose)

    def count(self, space: int) -> int:
        """See Analyses."""
        sql = "SELECT count(*) FROM embeddings WHERE space = %s"
        return self._session.ask(_WHAT_READ, lambda db: number(db, sql, [space]))

    def summaries(self, seqs: Collection[int]) -> dict[int, tuple[Summary, str]]:
        """See Analyses."""
        found = self._session.ask(
            "results cannot be read",
            lambda db: [*listed(db, "WHERE r.seq = ANY(%s)", ([*seqs],))],
        )
        by_seq = {seq: (shown, text) for seq, shown, text in found if shown.state != DAMAGED}
        return {seq: by_seq[seq] for seq in seqs if seq in by_seq}

    def numbers(self, ids: Collection[str]) -> dict[str, int]:
        """See Analyses."""
        sql = "SELECT id, seq FROM results WHERE id = ANY(%s)"
        return self._session.ask(
            "results cannot be read", lambda db: dict(db.execute(sql, ([*ids],)).fetchall())
        )

    def numbered(self, after: int, limit: int) -> list[tuple[int, str]]:
        """See Analyses."""
        sql = "SELECT seq, id FROM results WHERE seq > %s ORDER BY seq LIMIT %s"
        return self._session.ask(
            "results cannot be read",
            lambda db: [(seq, id_) for seq, id_ in db.execute(sql, (after, limit))],
        )

    def lag(self, seq: int, owner: str | None = None) -> int:
        """See Analyses."""
        return self._session.ask("results cannot be read", lambda db: count_after(db, seq, owner))


def _embeddings(wanted: Sequence[tuple[str, object]], db: Connection) -> list[tuple[Any, ...]]:
    where = " AND ".join(condition for condition, _ in wanted)
    sql = (
        "SELECT e.id, e.seq, r.owner, e.scale, e.codes, e.hash FROM embeddings e"
        f" JOIN results r USING (seq) WHERE {where} ORDER BY e.id LIMIT {_PAGE}"
    )
    return db.execute(sql, [value for _, value in wanted], binary=True).fetchall()


def _document(seq: int, found: Found | None) -> Document:
    # A damaged result has no text, nor has one that was deleted meanwhile.
    if found is None or found.result is None:
        return Document(seq, "", "", "")
    one = found.result
    return Document(seq, one.owner, question(one.request), one.text)


def _check_of(*values: str | float | bytes | None) -> bytes:
    """The hash of a row that was computed: beside it, it says whether the row is intact."""
    return digest(encode(values))[:_CHECK]
