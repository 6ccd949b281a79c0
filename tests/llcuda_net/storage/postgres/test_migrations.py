"""The schema: made once, whoever comes; and databases of other versions."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from llcuda_net.errors import StorageError
from llcuda_net.storage.postgres import migrations
from llcuda_net.storage.postgres.connection import Session
from llcuda_net.storage.postgres.migrations import MIGRATIONS, Migration
from llcuda_net.storage.postgres.store import PostgresStore
from tests.support.storage.postgres import Postgres
from tests.support.storage.records import result

LAST = MIGRATIONS[-1].number
NEXT = (
    *MIGRATIONS,
    Migration(LAST + 1, "another", "CREATE TABLE llcuda.another (a integer)"),
)


@pytest.fixture
def url(postgres: Postgres) -> str:
    return postgres.new_database()


def test_of_several_that_start_at_once_one_migrates(url: str) -> None:
    with ThreadPoolExecutor(6) as pool:
        stores = [*pool.map(lambda _: PostgresStore(url, write=True), range(6))]
    stores[0].put([result(1)])
    assert {store.reached() for store in stores} == {1}
    with psycopg.connect(url) as connection:
        sql = "SELECT number, name FROM llcuda.migrations"
        assert connection.execute(sql).fetchall() == [(one.number, one.name) for one in MIGRATIONS]
    for store in stores:
        store.close()


def test_a_later_version_keeps_what_is_there(url: str) -> None:
    store = PostgresStore(url, write=True)
    store.put([result(1)])
    session = Session(url, write=True)
    with pytest.raises(StorageError, match="earlier version"):
        migrations.check(session, NEXT)
    migrations.migrate(session, NEXT)
    migrations.check(session, NEXT)
    migrations.migrate(session, NEXT)  # does nothing
    assert store.get(result(1).id) == result(1)
    for write in (True, False):
        with pytest.raises(
            StorageError, match=f"^the database .* version {LAST + 1}, .* {LAST}:"
        ) as caught:
            PostgresStore(url, write=write)
        assert caught.value.code == StorageError.REFUSED
    session.close()
    store.close()


def test_a_migration_that_fails_leaves_nothing(url: str) -> None:
    broken = (
        *MIGRATIONS,
        Migration(LAST + 1, "x", "CREATE TABLE llcuda.a (b integer); SELECT 1 / 0"),
    )
    session = Session(url, write=True)
    with pytest.raises(StorageError):
        migrations.migrate(session, broken)
    assert session.ask("it", migrations.applied) == {one.number for one in MIGRATIONS}
    migrations.migrate(session, NEXT)
    session.close()


def test_reading_makes_nothing(url: str) -> None:
    with pytest.raises(StorageError, match="there are no results") as caught:
        PostgresStore(url)
    assert caught.value.code == StorageError.REFUSED
    with psycopg.connect(url) as connection:
        sql = "SELECT count(*) FROM pg_namespace WHERE nspname = 'llcuda'"
        assert connection.execute(sql).fetchone() == (0,)


def test_versions_from_14_on_understand_it() -> None:
    # In CREATE TABLE, only those from 16 on know a column's storage.
    assert not [one.name for one in MIGRATIONS if " STORAGE " in one.sql.replace("SET STORAGE", "")]


def test_texts_are_compared_by_their_bytes_whatever_the_locale_of_the_database(url: str) -> None:
    PostgresStore(url, write=True).close()
    sql = (
        "SELECT table_name, column_name, collation_name FROM information_schema.columns"
        " WHERE table_schema = 'llcuda' AND data_type = 'text' AND collation_name IS DISTINCT"
        " FROM 'C'"
    )
    with psycopg.connect(url) as connection:
        assert connection.execute(sql).fetchall() == []
