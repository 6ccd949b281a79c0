"""The store in SQLite: results.db holds the results, derived.db the search index.

There are two files because SQLite allows one writer per file: the index follows the results without
ever delaying a commit, and it can be built again.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import apsw

from llcuda_net.errors import StorageError
from llcuda_net.storage.packing.codec import Codec, digest
from llcuda_net.storage.packing.packed_result import pack
from llcuda_net.storage.records import Result, encode, hash_of
from llcuda_net.storage.results import migrations, queries
from llcuda_net.storage.results import retention as pruning
from llcuda_net.storage.results.analyses import SqliteAnalyses
from llcuda_net.storage.results.connection import connect, errors, rows, snapshot, transaction
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
from llcuda_net.storage.results.reader import Reader
from llcuda_net.storage.results.scan import Scan
from llcuda_net.storage.results.search_index import SearchIndex

RESULTS, DERIVED = "results.db", "derived.db"
#: Pages of the write-ahead log from which `checkpoint` copies it into the database.
CHECKPOINT_PAGES = 1000

#: The first version of the schema that is read as it is.
_READABLE = 1
#: Bodies that are known to be intact, at most; then they are checked again.
_KNOWN_BODIES = 4096
#: Files up to this size are checked when a server opens them: 10 ms per MB.
_CHECKED_BYTES = 16 << 20
#: Results read by one statement of a long walk: at first, and at most.
_PAGE, _LARGEST_PAGE = 256, 4096

_INSERT = (
    "INSERT INTO results (id, created, finished, state, model, owner, key, request_hash, cacheable,"
    " tokens, prompt_tokens, size, preview, hash, meta, input, log, logprobs, beginning, seal)"
    " VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"
)
#: Where in these values the size is.
_SIZE = 11


class SqliteStore:
    """A Store in one directory; see interface.Store for the methods.

    Args:
        directory: must exist.
        write: the store may put and prune, and creates or migrates the files. Any number of stores
            may read beside it, and another process may write too: transactions are short.
        mend: check a small file first, and make its indices again where they are damaged.
        vfs: SQLite's name of a simulated disk, in tests.

    Raises:
        StorageError: the files are of a newer version, are damaged, or do not exist.
    """

    def __init__(
        self,
        directory: Path,
        *,
        write: bool = False,
        mend: bool = False,
        vfs: str | None = None,
    ) -> None:
        self._path = directory / RESULTS
        self._codec = Codec()
        self._models: dict[bytes, int] = {}
        self._new_models: dict[bytes, int] = {}
        self._known_bodies: set[bytes] = set()
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
                elif migrations.check(self._db, migrations.MAIN) < _READABLE:
                    raise StorageError(
                        f"{self._path} is of an earlier version: start llcuda-server once, which "
                        "updates it",
                        StorageError.REFUSED,
                    )
                self._reader = Reader(self._db, self._codec)
                self._scan = Scan(self._db, self._codec, self._reader)
                if mend and self._path.stat().st_size <= _CHECKED_BYTES:
                    self._scan.mend()
                self.search_index = SearchIndex(
                    directory / DERIVED, self._db, self._reader, create=write
                )
                self.analyses = SqliteAnalyses(self.search_index, self._db, self._reader)
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
                try:
                    self._put(list(unique.values()), replace=True)
                except apsw.CorruptError:  # an index has another entry for a damaged row
                    self._db.execute("REINDEX results")
                    self._put(list(unique.values()), replace=True)

    def _put(self, results: Sequence[Result], *, replace: bool = False) -> None:
        self._new_models.clear()
        added = queries.Added()
        with transaction(self._db):
            for result in results:
                if replace:  # what is there is damaged
                    self._db.execute("DELETE FROM results WHERE id = ?", (result.id,))
                row = self._row(result)
                self._db.execute(_INSERT, row)
                added.add(self._db.last_insert_rowid(), result.owner, result.created, row[_SIZE])
            added.count(self._db)
        self._models.update(self._new_models)

    def _row(self, result: Result) -> tuple[Any, ...]:
        sizes: dict[int, int] = {}

        def store_body(raw: bytes) -> int:
            number, sizes[number] = self._store_body(raw)
            return number

        packed = pack(result, self._codec, store_body, sizes.__getitem__)
        shown = packed.shown
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
            shown.tokens,
            shown.prompt_tokens,
            shown.size,
            shown.preview,
            packed.hash,
            packed.meta,
            packed.request,
            packed.log,
            packed.logprobs,
            packed.text,
            packed.seal,
        )

    def _store_body(self, raw: bytes) -> tuple[int, int]:
        """Store a body or count one more use of it: its number and its compressed length."""
        name = digest(raw)
        found = self._db.execute(
            "UPDATE bodies SET uses = uses + 1 WHERE hash = ? RETURNING id, length(data)", (name,)
        ).get
        if found is not None:
            if name not in self._known_bodies:
                self._mend_body(int(found[0]), name, raw)
            return int(found[0]), int(found[1])
        data = self._codec.pack(raw)
        self._db.execute(
            "INSERT INTO bodies (hash, uses, size, data) VALUES (?, 1, ?, ?)",
            (name, len(raw), data),
        )
        return self._db.last_insert_rowid(), len(data)

    def _mend_body(self, number: int, name: bytes, raw: bytes) -> None:
        """See to it that a body which another result will share is intact."""
        with contextlib.suppress(StorageError):
            if self._reader.body(number) == raw:
                if len(self._known_bodies) >= _KNOWN_BODIES:
                    self._known_bodies.clear()
                self._known_bodies.add(name)
                return
        self._db.execute(
            "UPDATE bodies SET size = ?, data = ? WHERE id = ?",
            (len(raw), self._codec.pack(raw), number),
        )

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
            else:  # if it is damaged, so is each result of this model
                self._db.execute(
                    "UPDATE models SET name = ?, fingerprint = ? WHERE id = ?",
                    (str(model.get("name", "")), encode(model), known),
                )
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
            return self.search_index.update()

    # -- reading ------------------------------------------------------------------------------

    def reached(self) -> int:
        """See Store."""
        with errors("results cannot be read"):
            sql = "SELECT seq FROM sqlite_sequence WHERE name = 'results'"
            return int(self._db.execute(sql).get or 0)

    def names(self) -> list[str]:
        """See Store: the one beside the journal, also if its files were replaced."""
        return ["sqlite"]

    def missing(self, ids: Collection[str]) -> set[str]:
        """See Store."""
        return {name for name in ids if not self._reader.stored(name)}

    def states(self, ids: Collection[str], owner: str | None = None) -> dict[str, str]:
        """See Store."""
        with errors("the states of results cannot be read"):
            found = rows(
                self._db,
                "SELECT id, state FROM results WHERE id IN (SELECT value FROM json_each(?))"
                " AND owner = coalesce(?, owner)",
                (json.dumps([*ids]), owner),
            )
        return dict(found)

    def get(self, result: str, owner: str | None = None) -> Result | None:
        """See Store."""
        with errors(f"the result {result} cannot be read"):
            return self._reader.get(result, owner)

    def find_by_key(self, key: str, owner: str) -> Result | None:
        """See Store."""
        with errors("the result of this key cannot be read"):
            return self._reader.find_by_key(key, owner)

    def find_cached(
        self, model: dict[str, Any], request_hash: bytes, owner: str | None = None
    ) -> Result | None:
        """See Store."""
        return self._reader.find_cached(model, request_hash, owner)

    def find(self, query: Query) -> list[Summary]:
        """See Store."""
        return [summary for summary, _ in self.listed(query)]

    def listed(self, query: Query) -> list[tuple[Summary, str]]:
        """See Store."""
        with errors("results cannot be listed"), snapshot(self._db):
            found = [self._reader.listed(seq, query) for _, seq in queries.listed(self._db, query)]
            return [one for one in found if one is not None]

    def walk(self, query: Query, words: str | None = None) -> Iterator[Summary]:
        """See Store."""
        if words is not None:
            with errors("results cannot be searched"):
                yield from self.search_index.walk(words, query)
            return
        size, after = _PAGE, None
        while True:
            with errors("results cannot be listed"), snapshot(self._db):
                page = queries.listed(self._db, replace(query, limit=size), after)
                found = [self._reader.listed(seq, query) for _, seq in page]
            yield from (one[0] for one in found if one is not None)
            if len(page) < size:
                return
            if after is not None and page[-1] >= after:
                raise queries.out_of_order("the index of results")
            size, after = min(2 * size, _LARGEST_PAGE), page[-1]

    def search(self, words: str, query: Query) -> list[Hit]:
        """See Store."""
        with errors("results cannot be searched"):
            return self.search_index.search(words, query)

    def unindexed(self, owner: str | None = None) -> int:
        """See Store."""
        with errors("results cannot be searched"):
            return self.search_index.lag(owner)

    def export(self, query: Query, problems: list[Problem] | None = None) -> Iterator[Result]:
        """See Store."""
        return self._scan.export(query, problems)

    def verify(self) -> Iterator[Problem | None]:
        """See Store."""
        return self._scan.verify()

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

    def delete(self, result: str, owner: str | None = None) -> Deleted | None:
        """See Store."""
        with errors(f"the result {result} cannot be deleted"):
            sql = "SELECT seq, owner, key FROM results WHERE id = ? AND (?2 IS NULL OR owner = ?2)"
            found = self._db.execute(sql, (result, owner)).get
            if found is None:
                return None
            seq, of, key = found
            is_gone = pruning.delete(
                self._db, seq, self.search_index.remove, self._references, self._reader.result
            )
            return Deleted(of, key) if is_gone else None

    def plan(self, retention: Retention) -> Plan:
        """See Store."""
        with errors("the store cannot be read"):
            return pruning.plan(self._db, retention)

    def prune(self, retention: Retention) -> Iterator[Step]:
        """See Store."""
        with errors("results cannot be pruned"):
            for step in pruning.steps(
                self._db, retention, self.search_index.remove, self._references, self._reader.result
            ):
                self.checkpoint()
                yield step

    def _references(
        self, request: bytes | int, log: bytes | int, logprobs: bytes | int | None
    ) -> list[int]:
        out = [column for column in (log, logprobs) if isinstance(column, int)]
        return out + self._codec.references(request, self._reader.body)

    def close(self) -> None:
        """See Store."""
        self.search_index.close()
        self._db.close()
