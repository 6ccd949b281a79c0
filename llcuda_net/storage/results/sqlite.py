"""The store in SQLite: results.db holds the results, derived.db the search index.

There are two files because SQLite allows one writer per file: the index follows the results without
ever delaying a commit, and it can be built again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import apsw
import msgspec

from llcuda_net.errors import StorageError
from llcuda_net.storage.records import DECODE_ERRORS, Result, damaged, encode, hash_of
from llcuda_net.storage.results import migrations, queries
from llcuda_net.storage.results import retention as pruning
from llcuda_net.storage.results.analyses import SqliteAnalyses
from llcuda_net.storage.results.codec import (
    Codec,
    Meta,
    beginning,
    digest,
    preview,
    unpack_meta,
)
from llcuda_net.storage.results.connection import connect, errors, transaction
from llcuda_net.storage.results.interface import (
    Hit,
    Plan,
    Problem,
    Query,
    Retention,
    Stats,
    Step,
    Summary,
)
from llcuda_net.storage.results.search_index import SearchIndex

RESULTS, DERIVED = "results.db", "derived.db"
#: Pages of the write-ahead log from which `checkpoint` copies it into the database.
CHECKPOINT_PAGES = 1000
#: Bytes that a result takes besides its contents: columns, and entries in indices.
_ROW = 300

_INSERT = (
    "INSERT INTO results (id, created, finished, state, model, owner, key, request_hash, cacheable,"
    " tokens, prompt_tokens, size, preview, hash, meta, input, log, logprobs)"
    " VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"
)
_WHOLE = (
    "SELECT r.id, r.created, r.finished, r.state, r.owner, r.key, r.request_hash, r.cacheable,"
    " r.meta, r.input, r.log, r.logprobs, m.fingerprint, r.hash"
    " FROM results r JOIN models m ON m.id = r.model "
)
_fingerprint = msgspec.msgpack.Decoder(dict[str, Any])


class SqliteStore:
    """A Store in one directory; see interface.Store for the methods.

    Args:
        directory: must exist.
        write: the store may put and prune, and creates or migrates the files. Any number of stores
            may read beside it, and another process may write too: transactions are short.
        vfs: SQLite's name of a simulated disk, in tests.

    Raises:
        StorageError: the files are of a newer version, are damaged, or do not exist.
    """

    def __init__(self, directory: Path, *, write: bool = False, vfs: str | None = None) -> None:
        self._path = directory / RESULTS
        self._codec = Codec()
        self._models: dict[bytes, int] = {}
        self._new_models: dict[bytes, int] = {}
        self._wal_pages = 0
        self._write = write
        if not write and not self._path.exists():
            raise StorageError(
                f"there are no results in {directory}: nothing was stored yet, or --data-dir is "
                "another one",
                StorageError.REFUSED,
            )
        with errors(f"cannot open {self._path}"):
            self._db = connect(self._path, create=write, write=write, vfs=vfs)
            try:
                if write:
                    migrations.migrate(self._db, migrations.MAIN)
                    self._db.wal_autocheckpoint(0)
                    self._db.set_wal_hook(self._committed)
                elif migrations.check(self._db, migrations.MAIN) < migrations.MAIN[-1].number:
                    raise StorageError(
                        f"{self._path} is of an earlier version: start llcuda-server once, which "
                        "updates it",
                        StorageError.REFUSED,
                    )
                self.search_index = SearchIndex(directory / DERIVED, self._db, create=write)
                self.analyses = SqliteAnalyses(self.search_index, self._db, self._codec, self._body)
            except BaseException:
                self._db.close()
                raise

    def __repr__(self) -> str:
        how = "writing" if self._write else "reading"
        return f"<SqliteStore {self._path}, {how}, {self._wal_pages} pages of log>"

    def _committed(self, _: apsw.Connection, __: str, pages: int) -> int:
        self._wal_pages = pages
        return apsw.SQLITE_OK

    # -- writing ------------------------------------------------------------------------------

    def put(self, results: Sequence[Result]) -> None:
        """See Store."""
        with errors("results cannot be stored"):
            try:
                self._put(results)
            except apsw.ConstraintError:
                # Rare: after a restart, a result that was committed but not yet forgotten.
                wanted = self.missing([result.id for result in results])
                unique = {result.id: result for result in results if result.id in wanted}
                self._put(list(unique.values()))

    def _put(self, results: Sequence[Result]) -> None:
        self._new_models.clear()
        with transaction(self._db):
            for result in results:
                self._db.execute(_INSERT, self._row(result))
        self._models.update(self._new_models)

    def _row(self, result: Result) -> tuple[Any, ...]:
        size = 0

        def store_body(raw: bytes) -> int:
            nonlocal size
            number, length = self._store_body(raw)
            size += length
            return number

        codec = self._codec
        meta = encode(Meta.of(result))
        request = codec.pack_request(result.request, store_body)
        log = codec.pack_log(result.log, store_body)
        probabilities = result.log.logprobs
        logprobs = None
        if probabilities is not None:
            logprobs = codec.column(encode(probabilities), store_body)
        size += _ROW + len(meta)
        for column in (request, log, logprobs):
            if isinstance(column, bytes):
                size += len(column)
        return (
            result.id,
            result.created,
            result.finished,
            result.state,
            self._model(result.model),
            result.owner,
            result.key,
            result.request_hash,
            int(result.cacheable),
            result.usage.get("completion_tokens", len(result.log.pieces)),
            result.usage.get("prompt_tokens", 0),
            size,
            preview(result.request),
            digest(encode(result)),
            meta,
            request,
            log,
            logprobs,
        )

    def _store_body(self, raw: bytes) -> tuple[int, int]:
        """Store a body or count one more use of it: its number and its compressed length."""
        name = digest(raw)
        found = self._db.execute(
            "UPDATE bodies SET uses = uses + 1 WHERE hash = ? RETURNING id, length(data)", (name,)
        ).get
        if found is not None:
            return int(found[0]), int(found[1])
        data = self._codec.pack(raw)
        self._db.execute(
            "INSERT INTO bodies (hash, uses, size, data) VALUES (?, 1, ?, ?)",
            (name, len(raw), data),
        )
        return self._db.last_insert_rowid(), len(data)

    def _model(self, model: dict[str, Any]) -> int:
        name = hash_of(model)
        known = self._models.get(name) or self._new_models.get(name)
        if known is None:
            known = self._db.execute("SELECT id FROM models WHERE hash = ?", (name,)).get
            if known is None:
                self._db.execute(
                    "INSERT INTO models (hash, name, fingerprint) VALUES (?, ?, ?)",
                    (name, str(model.get("name", "")), encode(model)),
                )
                known = self._db.last_insert_rowid()
            self._new_models[name] = known  # certain once it is committed
        return known

    def checkpoint(self) -> None:
        """See Store: copies a long write-ahead log into the database."""
        if self._wal_pages < CHECKPOINT_PAGES:
            return
        self._wal_pages = 0
        with errors("the store's log cannot be copied"), contextlib.suppress(apsw.BusyError):
            self._db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)

    def update_index(self) -> bool:
        """See Store."""
        with errors("the search index cannot be brought up to date"):
            return self.search_index.update(self._document)

    def _document(self, request: bytes | int, log: bytes | int) -> tuple[dict[str, Any], str]:
        codec = self._codec
        text = "".join(codec.unpack_log(log, None, self._body).pieces)
        return codec.unpack_request(request, self._body), text

    # -- reading ------------------------------------------------------------------------------

    def reached(self) -> int:
        """See Store."""
        with errors("results cannot be read"):
            sql = "SELECT seq FROM sqlite_sequence WHERE name = 'results'"
            return int(self._db.execute(sql).get or 0)

    def missing(self, ids: Collection[str]) -> set[str]:
        """See Store."""
        with errors("results cannot be read"):
            return {
                name
                for name in ids
                if self._db.execute("SELECT 1 FROM results WHERE id = ?", (name,)).get is None
            }

    def get(self, result: str, owner: str | None = None) -> Result | None:
        """See Store."""
        return self._one("WHERE r.id = ?1 AND (?2 IS NULL OR r.owner = ?2)", (result, owner))

    def find_by_key(self, key: str, owner: str) -> Result | None:
        """See Store."""
        return self._one(
            "WHERE r.key = ? AND r.owner = ? ORDER BY r.seq DESC LIMIT 1", (key, owner)
        )

    def find_cached(
        self, model: dict[str, Any], request_hash: bytes, owner: str | None = None
    ) -> Result | None:
        """See Store."""
        return self._one(
            "WHERE r.request_hash = ?1 AND r.cacheable = 1 AND m.hash = ?2"
            " AND (?3 IS NULL OR r.owner = ?3) ORDER BY r.seq DESC LIMIT 1",
            (request_hash, hash_of(model), owner),
        )

    def _one(self, where: str, values: tuple[Any, ...]) -> Result | None:
        with errors("a result cannot be read"):
            row = self._db.execute(_WHOLE + where, values).get
            return None if row is None else self._result(row)

    def _result(self, row: Sequence[Any]) -> Result:
        (name, created, finished, state, owner, key, request_hash, cacheable) = row[:8]
        (meta_data, request, log, logprobs, fingerprint, _) = row[8:]
        codec, fetch = self._codec, self._body
        meta = unpack_meta(meta_data)
        try:
            model = _fingerprint.decode(fingerprint)
        except DECODE_ERRORS as error:
            raise damaged("a model's fingerprint", error) from error
        return Result(
            id=name,
            state=state,
            created=created,
            finished=finished,
            request=codec.unpack_request(request, fetch),
            log=codec.unpack_log(log, logprobs, fetch),
            model=model,
            key=key,
            request_hash=request_hash,
            owner=owner,
            cacheable=bool(cacheable),
            **{name: getattr(meta, name) for name in Meta.__struct_fields__},
        )

    def _body(self, number: int) -> bytes:
        data = self._db.execute("SELECT data FROM bodies WHERE id = ?", (number,)).get
        if data is None:
            raise StorageError(f"body {number} is not there", StorageError.DAMAGED)
        return self._codec.unpack(data)

    def find(self, query: Query) -> list[Summary]:
        """See Store."""
        with errors("results cannot be listed"):
            return [Summary(*row) for row in queries.newest(self._db, query)]

    def listed(self, query: Query) -> list[tuple[Summary, str]]:
        """See Store."""
        with errors("results cannot be listed"):
            found = queries.newest(self._db, query, f"{queries.SUMMARY}, r.log")
            return [(Summary(*row[:-1]), self._beginning(row[-1])) for row in found]

    def _beginning(self, log: bytes | int) -> str:
        # `verify` reports damage; a list still shows the others.
        with contextlib.suppress(StorageError):
            return beginning(self._codec.unpack_log(log, None, self._body).pieces)
        return ""

    def search(self, words: str, query: Query) -> list[Hit]:
        """See Store."""
        with errors("results cannot be searched"):
            return self.search_index.search(words, query, self._document)

    def export(self, query: Query) -> Iterator[Result]:
        """See Store."""
        for seq in queries.sequence(self._db, query):
            found = self._one("WHERE r.seq = ?", (seq,))
            if found is not None:  # otherwise it was pruned meanwhile
                yield found

    def verify(self) -> Iterator[Problem | None]:
        """See Store."""
        for number, name, data in queries.pages(
            self._db, "SELECT id, hash, data FROM bodies WHERE id > ? ORDER BY id LIMIT 100"
        ):
            yield _checked("", f"body {number}", lambda d=data: self._codec.unpack(d), name)
        for row in queries.pages(
            self._db,
            _WHOLE.replace("SELECT ", "SELECT r.seq, ")
            + "WHERE r.seq > ? ORDER BY r.seq LIMIT 100",
        ):
            yield _checked(row[1], "it", lambda r=row[1:]: encode(self._result(r)), row[-1])

    def stats(self, owner: str | None = None) -> Stats:
        """See Store."""
        with errors("the store cannot be read"):
            stats = queries.stats(self._db, owner)
            stats.days = self.search_index.days(owner)
            stats.tokens = sum(day.tokens for day in stats.days)
            stats.prompt_tokens = sum(day.prompt_tokens for day in stats.days)
            stats.unindexed = self.search_index.lag()
            folder = self._path.parent
            for name in (RESULTS, DERIVED):
                for path in folder.glob(f"{name}*"):
                    with contextlib.suppress(FileNotFoundError):
                        stats.bytes += path.stat().st_size
            return stats

    # -- the rest -----------------------------------------------------------------------------

    def plan(self, retention: Retention) -> Plan:
        """See Store."""
        with errors("the store cannot be read"):
            return pruning.plan(self._db, retention)

    def prune(self, retention: Retention) -> Iterator[Step]:
        """See Store."""
        with errors("results cannot be pruned"):
            for step in pruning.steps(
                self._db, retention, self.search_index.remove, self._references
            ):
                self.checkpoint()
                yield step

    def _references(
        self, request: bytes | int, log: bytes | int, logprobs: bytes | int | None
    ) -> list[int]:
        out = [column for column in (log, logprobs) if isinstance(column, int)]
        return out + self._codec.references(request, self._body)

    def close(self) -> None:
        """See Store."""
        self.search_index.close()
        self._db.close()


def _checked(result: str, what: str, compute: Any, expected: bytes) -> Problem | None:
    try:
        if digest(compute()) == expected:
            return None
        return Problem(result, f"{what} is not what was stored: its hash differs")
    except StorageError as error:
        return Problem(result, f"{what} cannot be read: {error}")
