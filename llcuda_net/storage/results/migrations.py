"""The SQLite schema, as numbered migrations.

All that a file lacks is one transaction: a kill or a full disk leaves it as it was, and what wrote
it still opens it. A migration that was released is never edited: a change of the schema is one more
at the end. tests/llcuda_net/storage/results/test_sqlite.py runs them from each earlier version.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import apsw
import structlog

from llcuda_net.errors import StorageError
from llcuda_net.storage.formats import version_file

log = structlog.get_logger(__name__)

#: Bytes of a file whose update is told of before it is done, too.
_LARGE = 16 << 20


@dataclass(frozen=True)
class Migration:
    """One change of the schema."""

    number: int
    name: str
    sql: str


MAIN = (
    Migration(
        1,
        "results, bodies and models",
        """
        CREATE TABLE identity (store BLOB NOT NULL) STRICT;
        INSERT INTO identity VALUES (randomblob(16));

        CREATE TABLE models (
            id INTEGER PRIMARY KEY,
            hash BLOB NOT NULL UNIQUE,
            name TEXT NOT NULL,
            fingerprint BLOB NOT NULL
        ) STRICT;
        CREATE INDEX models_name ON models (name);

        -- Large contents, each once: compressed, under the hash of what was compressed.
        CREATE TABLE bodies (
            id INTEGER PRIMARY KEY,
            hash BLOB NOT NULL UNIQUE,
            uses INTEGER NOT NULL,
            size INTEGER NOT NULL,
            data BLOB NOT NULL
        ) STRICT;

        -- input, log and logprobs: a content itself, or an integer: the body that is it.
        -- AUTOINCREMENT, because the derived file remembers numbers.
        CREATE TABLE results (
            seq INTEGER PRIMARY KEY AUTOINCREMENT,
            id TEXT NOT NULL UNIQUE,
            created INTEGER NOT NULL,
            finished INTEGER NOT NULL,
            state TEXT NOT NULL,
            model INTEGER NOT NULL REFERENCES models,
            owner TEXT NOT NULL,
            key TEXT,
            request_hash BLOB NOT NULL,
            cacheable INTEGER NOT NULL,
            tokens INTEGER NOT NULL,
            prompt_tokens INTEGER NOT NULL,
            size INTEGER NOT NULL,
            preview TEXT NOT NULL,
            hash BLOB NOT NULL,
            meta BLOB NOT NULL,
            input ANY NOT NULL,
            log ANY NOT NULL,
            logprobs ANY
        ) STRICT;
        CREATE INDEX results_created ON results (created, size);
        CREATE INDEX results_model ON results (model, created);
        CREATE INDEX results_owner ON results (owner, created) WHERE owner != '';
        CREATE INDEX results_state ON results (state, created) WHERE state != 'done';
        CREATE INDEX results_key ON results (key, owner) WHERE key IS NOT NULL;
        CREATE INDEX results_cache ON results (request_hash, model) WHERE cacheable = 1;
        """,
    ),
    Migration(
        2,
        "seals of rows in lists",
        """
        -- The beginning of the text, and a hash of what lists show; NULL in earlier rows.
        ALTER TABLE results ADD COLUMN beginning TEXT;
        ALTER TABLE results ADD COLUMN seal BLOB;
        """,
    ),
    Migration(
        3,
        "lists and counts that read what they show",
        """
        -- Every list is a merge of groups, and each group is a range of one of these in order of
        -- time: queries.py names them, so that no statistics of SQLite's planner matter.
        CREATE INDEX results_listed ON results (state, model, created);
        CREATE INDEX results_owned ON results (owner, state, model, created);
        DROP INDEX results_model;
        DROP INDEX results_owner;
        DROP INDEX results_state;
        DROP INDEX results_cache;
        CREATE INDEX results_cache ON results (request_hash, owner, model) WHERE cacheable = 1;

        -- Of every 1024 numbers: how many results there are, their bytes, and the bounds of the
        -- times at which they were created. What was deleted leaves the bounds as they are. Who
        -- inserts results counts them, a batch at once: a trigger would cost 10 us a result.
        CREATE TABLE zones (
            zone INTEGER PRIMARY KEY,
            results INTEGER NOT NULL,
            bytes INTEGER NOT NULL,
            first INTEGER NOT NULL,
            last INTEGER NOT NULL
        ) STRICT;
        CREATE TABLE owner_zones (
            owner TEXT NOT NULL,
            zone INTEGER NOT NULL,
            results INTEGER NOT NULL,
            PRIMARY KEY (owner, zone)
        ) STRICT, WITHOUT ROWID;
        INSERT INTO zones
            SELECT seq >> 10, count(*), sum(size), min(created), max(created)
            FROM results NOT INDEXED GROUP BY seq >> 10;
        INSERT INTO owner_zones
            SELECT owner, seq >> 10, count(*) FROM results NOT INDEXED GROUP BY owner, seq >> 10;
        CREATE TRIGGER results_removed AFTER DELETE ON results BEGIN
            UPDATE zones SET results = results - 1, bytes = bytes - OLD.size
                WHERE zone = OLD.seq >> 10;
            DELETE FROM zones WHERE zone = OLD.seq >> 10 AND results <= 0;
            UPDATE owner_zones SET results = results - 1
                WHERE owner = OLD.owner AND zone = OLD.seq >> 10;
            DELETE FROM owner_zones
                WHERE owner = OLD.owner AND zone = OLD.seq >> 10 AND results <= 0;
        END;
        """,
    ),
)

DERIVED = (
    Migration(
        1,
        "full text and rollups",
        """
        -- What was derived, and from which results: those of `store` up to `seq`.
        CREATE TABLE cursor (store BLOB NOT NULL, seq INTEGER NOT NULL) STRICT;

        CREATE VIRTUAL TABLE texts USING fts5 (
            prompt, text,
            content='', contentless_delete=1, tokenize='unicode61 remove_diacritics 2'
        );

        CREATE TABLE rollups (
            day TEXT NOT NULL,
            model TEXT NOT NULL,
            owner TEXT NOT NULL,
            state TEXT NOT NULL,
            results INTEGER NOT NULL,
            tokens INTEGER NOT NULL,
            prompt_tokens INTEGER NOT NULL,
            PRIMARY KEY (day, model, owner, state)
        ) STRICT, WITHOUT ROWID;
        """,
    ),
    Migration(
        2,
        "analyses: certainty and embeddings",
        """
        -- How sure the model was: of results with log-probabilities, up to `figured`.
        ALTER TABLE cursor ADD COLUMN figured INTEGER NOT NULL DEFAULT 0;
        CREATE TABLE figures (
            seq INTEGER PRIMARY KEY,
            tokens INTEGER NOT NULL,
            mean_surprisal REAL,
            perplexity REAL,
            mean_entropy REAL,
            first INTEGER NOT NULL,
            behind INTEGER NOT NULL,
            span_surprisal REAL
        ) STRICT;

        -- A space for each model, dimension and recipe, that goes up to the result `seq`.
        CREATE TABLE spaces (
            id INTEGER PRIMARY KEY,
            model BLOB NOT NULL,
            dim INTEGER NOT NULL,
            recipe INTEGER NOT NULL,
            seq INTEGER NOT NULL
        ) STRICT;
        CREATE TABLE embeddings (
            id INTEGER PRIMARY KEY,
            space INTEGER NOT NULL,
            seq INTEGER NOT NULL,
            scale REAL NOT NULL,
            codes BLOB NOT NULL
        ) STRICT;
        CREATE UNIQUE INDEX embeddings_seq ON embeddings (seq, space);
        """,
    ),
    Migration(
        3,
        "text of all scripts, and hashes of what was computed",
        """
        -- Normalised by words.py. `texts`, which this replaces, is deleted in steps. Filled up to
        -- `indexed`, apart from the counts, which go up to `seq`.
        CREATE VIRTUAL TABLE words USING fts5 (
            prompt, text, content='', contentless_delete=1, tokenize='ascii'
        );
        ALTER TABLE cursor ADD COLUMN indexed INTEGER NOT NULL DEFAULT 0;

        -- check_of: a function of this program, see analyses.py.
        ALTER TABLE figures ADD COLUMN hash BLOB;
        UPDATE figures SET hash = check_of(
            seq, tokens, mean_surprisal, perplexity, mean_entropy, first, behind, span_surprisal
        );
        ALTER TABLE embeddings ADD COLUMN hash BLOB;
        UPDATE embeddings SET hash = check_of(space, seq, scale, codes);
        -- Results whose embedding was damaged.
        CREATE TABLE lost (
            space INTEGER NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY (space, seq)
        ) STRICT, WITHOUT ROWID;
        """,
    ),
    Migration(
        4,
        "words by prefix, and by owner, state and model",
        """
        -- `words`, which this replaces, is deleted in steps. `tags` has a word for the owner, one
        -- for the state and one for the model, none of which a text can have.
        CREATE VIRTUAL TABLE terms USING fts5 (
            prompt, text, tags,
            content='', contentless_delete=1, tokenize='ascii', prefix='1 2 3'
        );
        -- Merges of eight: with the prefixes, FTS5's usual four would cost a third more.
        INSERT INTO terms (terms, rank) VALUES ('automerge', 8);
        UPDATE cursor SET indexed = 0;
        """,
    ),
)


def version(connection: apsw.Connection) -> int:
    """The number of the last migration; 0 for a new file.

    Raises:
        StorageError: the file is another program's database.
    """
    names = {row[0] for row in connection.execute("SELECT name FROM sqlite_schema")}
    if not names:
        return 0
    if "migrations" not in names:
        raise StorageError(
            f"{connection.filename} is a database of something else: choose another --data-dir",
            StorageError.REFUSED,
        )
    return len(_recorded(connection))


def _recorded(connection: apsw.Connection) -> dict[int, str]:
    """The migrations of a file, by number."""
    found = dict(connection.execute("SELECT number, name FROM migrations ORDER BY name"))
    if sorted(found) != list(range(1, len(found) + 1)):
        raise _damaged(connection)
    return found


def _damaged(connection: apsw.Connection) -> StorageError:
    return StorageError(
        f"{connection.filename} is damaged: restore it from a backup", StorageError.DAMAGED
    )


def check(connection: apsw.Connection, migrations: Sequence[Migration]) -> int:
    """The version of a file.

    Raises:
        NewerFormat: it is newer than this program knows; nothing of it was changed.
        StorageError: it is damaged, or another program's.
    """
    found = version(connection)
    newest = migrations[-1].number
    recorded = _recorded(connection) if found else {}
    if any(recorded.get(one.number, one.name) != one.name for one in migrations):
        raise _damaged(connection)
    if found > newest:
        path = Path(connection.filename)
        wal = path.with_name(f"{path.name}-wal")
        if wal.exists() and wal.stat().st_size:
            # Who closes a database last copies its write-ahead log: all is to stay as it was.
            connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        raise version_file.newer(str(path), path.parent, found, newest)
    return found


def migrate(
    connection: apsw.Connection, migrations: Sequence[Migration], *, quiet: bool = False
) -> None:
    """Bring a file up to the last of these versions.

    Args:
        quiet: do not log that an earlier version was updated.

    Raises:
        StorageError: as `check`.
        apsw.Error: it failed; the file is as it was.
    """
    found = check(connection, migrations)
    newest = migrations[-1].number
    if found == newest:
        return
    size = connection.execute("PRAGMA page_count").get * connection.execute("PRAGMA page_size").get
    if found and size > _LARGE:  # it may take seconds: version 3 some 13 us a result
        log.info("store_is_updated", path=connection.filename, version=found, bytes=size)
    started = time.monotonic()
    connection.execute("BEGIN IMMEDIATE")
    try:
        # Checked again in the transaction: another process may have migrated it meanwhile.
        done = check(connection, migrations)
        connection.execute(
            "CREATE TABLE IF NOT EXISTS migrations ("
            "number INTEGER PRIMARY KEY, name TEXT NOT NULL, applied INTEGER NOT NULL"
            ") STRICT"
        )
        for migration in migrations[done:]:
            connection.execute(migration.sql)
            connection.execute(
                "INSERT INTO migrations VALUES (?, ?, ?)",
                (migration.number, migration.name, time.time_ns()),
            )
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # SQLite itself rolls back after some errors
            connection.execute("ROLLBACK")
        raise
    if found and not quiet:
        log.info(
            "store_updated",
            path=connection.filename,
            version=newest,
            before=found,
            seconds=round(time.monotonic() - started, 3),
        )
