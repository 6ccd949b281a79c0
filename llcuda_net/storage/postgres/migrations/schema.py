"""Brings the schema up to date, one migration after the other.

A migration and its record are one transaction, under an advisory lock of the database: of several
servers that start at once, one migrates, and the others wait and find it done.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import structlog

from llcuda_net.errors import NewerFormat, StorageError
from llcuda_net.storage.postgres.connection import SCHEMA, Connection, Session
from llcuda_net.storage.postgres.migrations.leases import LEASES, LIVES, MIRROR
from llcuda_net.storage.postgres.migrations.migration import Migration
from llcuda_net.storage.postgres.migrations.objects import OBJECTS
from llcuda_net.storage.postgres.migrations.owners import OWNERS
from llcuda_net.storage.postgres.migrations.results import RESULTS
from llcuda_net.storage.postgres.migrations.secret import SECRET
from llcuda_net.util.version import package_version

log = structlog.get_logger(__name__)

#: The advisory lock of migrations: "llcuda" in ASCII.
_LOCK = int.from_bytes(b"llcuda", "big")

#: All of them, in the order of their numbers.
MIGRATIONS = (RESULTS, LEASES, MIRROR, LIVES, SECRET, OWNERS, OBJECTS)


def migrate(session: Session, migrations: Sequence[Migration] = MIGRATIONS) -> None:
    """Bring a database up to the last of these versions.

    Raises:
        StorageError: it is newer than this program knows, or may not be changed by this user.
    """
    before = session.ask("the schema cannot be read", applied)
    if before == {one.number for one in migrations}:
        return
    made = [
        session.change(
            "the schema cannot be made",
            partial(_apply, migration=migration, newest=migrations[-1].number),
        )
        for migration in migrations
    ]
    check(session, migrations)
    if before and any(made):
        version = migrations[-1].number
        log.info("store_updated", database=session.place, version=version, before=max(before))


def check(session: Session, migrations: Sequence[Migration] = MIGRATIONS) -> None:
    """See that a database has this version.

    Raises:
        StorageError: it has none, or another one.
    """
    found = session.ask("the schema cannot be read", applied)
    if not found:
        raise StorageError(
            f"there are no results in {session.place}: nothing was stored yet, or it is the wrong "
            "one",
            StorageError.REFUSED,
        )
    newest = migrations[-1].number
    if max(found) > newest:
        raise _newer(session.place, max(found), newest)
    if not found.issuperset(one.number for one in migrations):
        raise StorageError(
            f"{session.place} is of an earlier version: start llcuda-server once, which updates it",
            StorageError.REFUSED,
        )


def applied(db: Connection) -> set[int]:
    """The numbers of the migrations that were made; none in a database without our schema."""
    # Of the catalogue, as this statement sees it: to_regclass may remember that there is none.
    sql = (
        "SELECT 1 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname = %s AND c.relname = 'migrations'"
    )
    if db.execute(sql, (SCHEMA,)).fetchone() is None:
        return set()
    return {number for (number,) in db.execute(f"SELECT number FROM {SCHEMA}.migrations")}


def _apply(db: Connection, migration: Migration, newest: int) -> bool:
    """Make one change, if nobody else has made it; whether it was made here."""
    db.execute("SET LOCAL statement_timeout = 0")
    db.execute("SET LOCAL lock_timeout = 0")
    db.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
    found = applied(db)  # a statement of its own: it sees what the holder of the lock has done
    if max(found, default=0) > newest:
        raise _newer(f"the database {db.info.dbname}", max(found), newest)
    if migration.number in found:
        return False
    if not found:
        db.execute(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}")
        db.execute(
            f"CREATE TABLE {SCHEMA}.migrations (number integer PRIMARY KEY, name text NOT NULL,"
            " applied timestamptz NOT NULL DEFAULT now())"
        )
    db.execute(migration.sql)
    _compare_bytes(db)
    db.execute(
        f"INSERT INTO {SCHEMA}.migrations (number, name) VALUES (%s, %s)",
        (migration.number, migration.name),
    )
    return True


def _compare_bytes(db: Connection) -> None:
    """Compare and order texts by their bytes, as SQLite does, whatever the database's locale is.

    Nor can an index become wrong by an update of the system's locales.
    """
    sql = (
        "SELECT attrelid::regclass::text, string_agg("
        "format('ALTER %%I TYPE text COLLATE \"C\"', attname), ', ')"
        " FROM pg_attribute WHERE attnum > 0 AND atttypid = 'text'::regtype"
        " AND attcollation <> '\"C\"'::regcollation AND attrelid IN"
        " (SELECT oid FROM pg_class WHERE relnamespace = %s::regnamespace AND relkind = 'r')"
        " GROUP BY attrelid"
    )
    for table, changes in db.execute(sql, (SCHEMA,)).fetchall():
        db.execute(f"ALTER TABLE {table} {changes}")


def _newer(place: str, found: int, newest: int) -> NewerFormat:
    return NewerFormat(place, found, newest, ours=package_version())
