"""The schema in PostgreSQL, as numbered migrations.

A migration and its record are one transaction, under an advisory lock of the database: of several
servers that start at once, one migrates, and the others wait and find it done. A migration that was
released is never edited: a change of the schema is one more at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import structlog

from llcuda_net.errors import StorageError
from llcuda_net.storage.postgres.connection import SCHEMA, Connection, Session

log = structlog.get_logger(__name__)

#: The advisory lock of migrations: "llcuda" in ASCII.
_LOCK = int.from_bytes(b"llcuda", "big")


@dataclass(frozen=True)
class Migration:
    """One change of the schema."""

    number: int
    name: str
    sql: str


MIGRATIONS = (
    Migration(
        1,
        "results, words and analyses",
        """
        -- Which store this is, and how many results it ever got. Who stores results takes their
        -- numbers here, in that transaction: so numbers become visible in their order.
        CREATE TABLE store (
            one boolean PRIMARY KEY DEFAULT true CHECK (one),
            identity uuid NOT NULL DEFAULT gen_random_uuid(),
            reached bigint NOT NULL DEFAULT 0
        ) WITH (fillfactor = 10);
        INSERT INTO store DEFAULT VALUES;

        CREATE TABLE models (
            id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            hash bytea NOT NULL UNIQUE,
            name bytea NOT NULL,
            fingerprint bytea NOT NULL
        );
        CREATE INDEX models_name ON models (name);

        -- Large contents, each once: compressed, under a part of the hash of what was compressed.
        CREATE TABLE bodies (
            name bytea PRIMARY KEY,
            uses integer NOT NULL,
            data bytea STORAGE EXTERNAL NOT NULL
        ) WITH (fillfactor = 90);

        -- What clients say is bytes in UTF-8, since a text of PostgreSQL cannot hold a NUL.
        -- input, log and logprobs: a content, or 2 and the name of the body that is it.
        -- bodies: the names of those that it uses, one behind the other.
        CREATE TABLE results (
            seq bigint PRIMARY KEY,
            id text NOT NULL UNIQUE,
            created bigint NOT NULL,
            finished bigint NOT NULL,
            state text NOT NULL,
            model integer NOT NULL,
            owner text NOT NULL,
            key bytea,
            request_hash bytea NOT NULL,
            cacheable boolean NOT NULL,
            tokens bigint NOT NULL,
            prompt_tokens bigint NOT NULL,
            size bigint NOT NULL,
            preview bytea NOT NULL,
            beginning bytea NOT NULL,
            seal bytea NOT NULL,
            hash bytea NOT NULL,
            meta bytea STORAGE EXTERNAL NOT NULL,
            input bytea STORAGE EXTERNAL NOT NULL,
            log bytea STORAGE EXTERNAL NOT NULL,
            logprobs bytea STORAGE EXTERNAL,
            bodies bytea STORAGE EXTERNAL NOT NULL
        );
        CREATE INDEX results_created ON results (created, seq) INCLUDE (size);
        CREATE INDEX results_owned ON results (owner, created, seq) INCLUDE (size);
        CREATE INDEX results_numbered ON results (owner, seq);
        CREATE INDEX results_model ON results (model, created, seq);
        CREATE INDEX results_state ON results (state, created, seq) WHERE state <> 'done';
        CREATE INDEX results_key ON results (key, owner, seq) WHERE key IS NOT NULL;
        CREATE INDEX results_cache ON results (request_hash, model, seq) WHERE cacheable;

        -- Up to which number results are counted, indexed, and have their certainty.
        CREATE TABLE progress (
            one boolean PRIMARY KEY DEFAULT true CHECK (one),
            counted bigint NOT NULL DEFAULT 0,
            indexed bigint NOT NULL DEFAULT 0,
            figured bigint NOT NULL DEFAULT 0
        ) WITH (fillfactor = 10);
        INSERT INTO progress DEFAULT VALUES;

        -- Words as storage/postgres/terms.py makes them.
        CREATE TABLE terms (
            seq bigint PRIMARY KEY REFERENCES results ON DELETE CASCADE,
            words tsvector NOT NULL
        );
        CREATE INDEX terms_words ON terms USING gin (words);

        CREATE TABLE days (
            day date NOT NULL,
            model bytea NOT NULL,
            owner text NOT NULL,
            state text NOT NULL,
            results bigint NOT NULL,
            tokens bigint NOT NULL,
            prompt_tokens bigint NOT NULL,
            PRIMARY KEY (day, model, owner, state)
        );

        CREATE TABLE certainty (
            seq bigint PRIMARY KEY REFERENCES results ON DELETE CASCADE,
            tokens bigint NOT NULL,
            mean_surprisal double precision,
            perplexity double precision,
            mean_entropy double precision,
            first bigint NOT NULL,
            behind bigint NOT NULL,
            span_surprisal double precision,
            hash bytea NOT NULL
        );

        -- A space for each model, dimension and recipe, that goes up to the result `seq`.
        CREATE TABLE spaces (
            id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            model bytea NOT NULL,
            dim integer NOT NULL,
            recipe integer NOT NULL,
            seq bigint NOT NULL
        );
        CREATE TABLE embeddings (
            id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            space integer NOT NULL REFERENCES spaces ON DELETE CASCADE,
            seq bigint NOT NULL REFERENCES results ON DELETE CASCADE,
            scale double precision NOT NULL,
            codes bytea STORAGE EXTERNAL NOT NULL,
            hash bytea NOT NULL,
            UNIQUE (seq, space)
        );
        CREATE INDEX embeddings_space ON embeddings (space, id);
        -- Results whose embedding was damaged.
        CREATE TABLE lost (
            space integer NOT NULL REFERENCES spaces ON DELETE CASCADE,
            seq bigint NOT NULL REFERENCES results ON DELETE CASCADE,
            PRIMARY KEY (space, seq)
        );
        """,
    ),
    Migration(
        2,
        "servers, their leases and what they have",
        """
        -- A row per life of a server, and its lease apart from it: a write of tokens locks the
        -- server's row in share mode, and a renewal must not wait for that.
        CREATE TABLE servers (
            number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            name text NOT NULL,
            address text NOT NULL,
            started timestamptz NOT NULL DEFAULT clock_timestamp(),
            fenced boolean NOT NULL DEFAULT false,
            adopter bigint,
            adopted boolean NOT NULL DEFAULT false
        ) WITH (fillfactor = 50);
        CREATE TABLE leases (
            server bigint PRIMARY KEY REFERENCES servers,
            expires timestamptz NOT NULL
        ) WITH (fillfactor = 10);

        -- Generations that are not over.
        CREATE TABLE generations (
            id text PRIMARY KEY,
            owner text NOT NULL,
            server bigint NOT NULL,
            epoch bigint NOT NULL DEFAULT 1
        );
        CREATE INDEX generations_server ON generations (server);

        -- Batches of records, as a journal's files have them. No reference to `servers`: its check
        -- would lock the row again, and the writer has it.
        CREATE TABLE journal (
            server bigint NOT NULL,
            number bigint NOT NULL,
            data bytea STORAGE EXTERNAL NOT NULL,
            PRIMARY KEY (server, number)
        );
        """,
    ),
)


def migrate(session: Session, migrations: Sequence[Migration] = MIGRATIONS) -> None:
    """Bring a database up to the last of these versions.

    Raises:
        StorageError: it is newer than this program knows, or may not be changed by this user.
    """
    if session.ask("the schema cannot be read", version) == migrations[-1].number:
        return
    for migration in migrations:
        session.change(
            "the schema cannot be made",
            partial(_apply, migration=migration, newest=migrations[-1].number),
        )
    check(session, migrations)


def check(session: Session, migrations: Sequence[Migration] = MIGRATIONS) -> None:
    """See that a database has this version.

    Raises:
        StorageError: it has none, or another one.
    """
    found = session.ask("the schema cannot be read", version)
    newest = migrations[-1].number
    if found == 0:
        raise StorageError(
            f"there are no results in {session.place}: nothing was stored yet, or it is the wrong "
            "one",
            StorageError.REFUSED,
        )
    if found > newest:
        raise _newer(session.place, found, newest)
    if found < newest:
        raise StorageError(
            f"{session.place} is of an earlier version: start llcuda-server once, which updates it",
            StorageError.REFUSED,
        )


def version(db: Connection) -> int:
    """The number of the last migration; 0 for a database without our schema."""
    # Of the catalogue, as this statement sees it: to_regclass may remember that there is none.
    sql = (
        "SELECT 1 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname = %s AND c.relname = 'migrations'"
    )
    if db.execute(sql, (SCHEMA,)).fetchone() is None:
        return 0
    row = db.execute(f"SELECT coalesce(max(number), 0) FROM {SCHEMA}.migrations").fetchone()
    assert row is not None
    return int(row[0])


def _apply(db: Connection, migration: Migration, newest: int) -> None:
    """Make one change, if nobody else has made it."""
    db.execute("SET LOCAL statement_timeout = 0")
    db.execute("SET LOCAL lock_timeout = 0")
    db.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
    found = version(db)  # a statement of its own: it sees what the holder of the lock has done
    if found > newest:
        raise _newer(db.info.dbname, found, newest)
    if found >= migration.number:
        return
    if found == 0:
        db.execute(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}")
        db.execute(
            f"CREATE TABLE {SCHEMA}.migrations (number integer PRIMARY KEY, name text NOT NULL,"
            " applied timestamptz NOT NULL DEFAULT now())"
        )
    db.execute(migration.sql)
    db.execute(
        f"INSERT INTO {SCHEMA}.migrations (number, name) VALUES (%s, %s)",
        (migration.number, migration.name),
    )
    log.info("store_updated", database=db.info.dbname, version=migration.number)


def _newer(place: str, found: int, newest: int) -> StorageError:
    return StorageError(
        f"{place} has version {found}, this llcuda knows up to {newest}: upgrade llcuda",
        StorageError.REFUSED,
    )
