"""Sessions: what is refused, what is repeated, and what an error is called."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import TypeVar

import psycopg
import pytest
from psycopg import errors as pg

from llcuda_net.errors import StorageError
from llcuda_net.storage.packing.codec import Codec
from llcuda_net.storage.postgres import connection as module
from llcuda_net.storage.postgres import writing
from llcuda_net.storage.postgres.connection import Connection, Session, as_storage_error
from llcuda_net.storage.postgres.store import PostgresStore
from llcuda_net.storage.postgres.writing import Putter
from llcuda_net.storage.results.interface import Query
from llcuda_net.storage.transfer.sides import postgres_side
from tests.support.storage.postgres import Postgres
from tests.support.storage.records import result

_T = TypeVar("_T")


@pytest.fixture
def url(postgres: Postgres) -> str:
    return postgres.new_database()


def refused(work: Callable[[], object]) -> StorageError:
    with pytest.raises(StorageError) as caught:
        work()
    return caught.value


def cut(url: str) -> None:
    """End all other connections to a database."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


def test_what_is_no_connection_string_is_refused_without_its_password() -> None:
    for wrong in ("postgresql://ann:secret@host:port/x?what=1", "host=a secret"):
        error = refused(lambda: Session(wrong, write=False))  # noqa: B023
        assert error.code == StorageError.INVALID
        assert "secret" not in error.message


@pytest.mark.parametrize("password", ["se/cret", "12/secret", "se@cret", "/secret", "secret@"])
def test_a_password_that_is_written_wrongly_is_no_part_of_a_message(password: str) -> None:
    error = refused(lambda: Session(f"postgresql://ann:{password}@localhost/x", write=False))
    assert error.code == StorageError.INVALID
    assert "%2F" in error.message
    assert "se" not in error.message.split()
    assert "cret" not in error.message


@pytest.mark.parametrize("rest", ["x?options=-c%20a@b", "?host=@socket&dbname=x", "x%40y"])
def test_an_at_sign_that_is_no_password_is_taken(rest: str) -> None:
    Session(f"postgresql://ann:a%40%2Fb@localhost/{rest}", write=False).close()


def test_settings_of_the_environment_and_the_database_change_nothing(
    postgres: Postgres, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for name in ("datestyle = 'German'", "bytea_output = 'escape'", "search_path = 'none'"):
            connection.execute(f"ALTER DATABASE {connection.info.dbname} SET {name}".encode())
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    stored = result(1, request={"prompt": "東京 \U0001f30a e\u0301"})
    store = PostgresStore(url, write=True)
    store.put([stored])
    while store.update_index():
        pass
    assert store.get(stored.id) == stored
    assert [hit.summary.id for hit in store.search("東京", Query())] == [stored.id]
    assert [day.day for day in store.stats().days] == ["2023-11-14"]
    store.close()


def test_whoever_is_stopped_within_a_transaction_holds_up_nobody_for_long(url: str) -> None:
    session, tries = Session(url, write=True), []

    def stopped_once(db: Connection) -> int:
        tries.append(1)
        (shown,) = db.execute("SHOW idle_in_transaction_session_timeout").fetchone() or ("",)
        assert shown == "5s"
        if len(tries) == 1:
            db.execute("SET LOCAL idle_in_transaction_session_timeout = '1ms'")
            with pytest.raises(psycopg.Error):
                while True:  # until it has ended
                    time.sleep(0.05)
                    db.execute("SELECT 1")
            db.execute("SELECT 1")  # as who wakes up
        return len(tries)

    assert session.change("it", stopped_once) == 2
    session.close()


def test_who_copies_a_large_file_may_read_for_longer(url: str) -> None:
    PostgresStore(url, write=True).close()
    with postgres_side(url) as side:
        sql = "SELECT current_setting('idle_in_transaction_session_timeout')"
        assert side.change(lambda db: db.value(sql)) == "0"
        assert side.rows(sql, ()) == [("5s",)]


def test_a_database_that_takes_no_writes_any_more_is_looked_for_elsewhere(url: str) -> None:
    session, processes = Session(url, write=True), []

    def demoted_once(db: Connection) -> None:
        processes.append(db.info.backend_pid)
        if len(processes) == 1:
            raise pg.ReadOnlySqlTransaction("cannot execute INSERT")

    session.change("it", demoted_once)
    assert len({*processes}) == 2
    session.close()


def test_a_pooler_in_transaction_mode_is_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def pooled(db: Connection) -> int:
        return 0  # whoever asks last has the process

    def in_session_mode(db: Connection) -> int:
        return -db.info.backend_pid  # each has its own, which is not that which it was told

    monkeypatch.setattr(module, "_process", pooled)
    error = refused(lambda: PostgresStore(url, write=True))
    assert error.code == StorageError.REFUSED
    assert "pooler in transaction mode" in error.message
    monkeypatch.setattr(module, "_process", in_session_mode)
    PostgresStore(url, write=True).close()


def test_a_database_that_is_not_there(postgres: Postgres) -> None:
    error = refused(lambda: PostgresStore("host=/nowhere dbname=x password=secret", write=True))
    assert (error.code, error.retry) == (StorageError.BUSY, True)
    assert "secret" not in error.message
    assert "/nowhere" in error.message
    error = refused(lambda: PostgresStore(postgres.url("none"), write=True))
    assert "none" in error.message


def test_a_database_that_answers_and_refuses_is_said_to(postgres: Postgres) -> None:
    with psycopg.connect(postgres.new_database(), autocommit=True) as connection:
        connection.execute("CREATE ROLE guest LOGIN CONNECTION LIMIT 0")
    none, guest = postgres.url("none"), postgres.new_database() + "&user=guest"
    for url, why in (
        (none, 'refuses: database "none" does not exist'),
        (guest, 'refuses: too many connections for role "guest"'),
    ):
        error = refused(lambda: Session(url, write=True).ask("no", lambda db: db))  # noqa: B023
        assert (error.code, error.retry) == (StorageError.BUSY, True)
        assert error.message.endswith(why)


def test_a_password_that_is_wanted_is_asked_for(own_postgres: Postgres) -> None:
    url = own_postgres.new_database()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE ROLE guest LOGIN PASSWORD 'secret'")
    own_postgres.kill()
    rules = own_postgres.folder / "data" / "pg_hba.conf"
    rules.write_text("local all guest scram-sha-256\nlocal all all trust\n")
    own_postgres.start()
    for more, why in (
        ("&passfile=/nowhere", "wants a password: put it into ~/.pgpass"),
        ("&password=wrong", 'refuses: password authentication failed for user "guest"'),
    ):
        guest = Session(f"{url}&user=guest{more}", write=True)
        error = refused(lambda: guest.ask("no", lambda db: db))  # noqa: B023
        assert error.message.endswith(why)
        assert error.code == StorageError.BUSY


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_an_encoding_that_cannot_hold_all_texts_is_refused(
    postgres: Postgres, encoding: str
) -> None:
    error = refused(lambda: PostgresStore(postgres.new_database(encoding), write=True))
    assert error.code == StorageError.REFUSED
    assert f"the encoding {encoding}, which" in error.message


def test_a_connection_that_broke_is_made_anew(url: str) -> None:
    store = PostgresStore(url, write=True)
    store.put([result(1)])
    cut(url)
    assert store.get(result(1).id) == result(1)
    cut(url)
    store.put([result(2)])
    assert store.reached() == 2
    store.close()
    error = refused(lambda: store.get("x"))
    assert "closed" in error.message


class Losing(Session):
    """A session that loses its connection after a commit, before it knows of it."""

    def __init__(self, url: str) -> None:
        super().__init__(url, write=True)
        self.losses = 1

    def _repeat(self, what: str, work: Callable[[Connection], _T]) -> _T:
        def losing(db: Connection) -> _T:
            out = work(db)
            if self.losses:
                self.losses -= 1
                db.close()
                raise psycopg.OperationalError("the answer was lost")
            return out

        return super()._repeat(what, losing)


def test_a_put_whose_answer_was_lost_is_stored_once(url: str) -> None:
    store = PostgresStore(url, write=True)
    session = Losing(url)
    request = {"prompt": "a shared text " * 200}
    Putter(session, Codec()).put([result(n, request=request) for n in (1, 2)])
    assert session.losses == 0
    assert store.reached() == 2
    assert store.get(result(2).id) == result(2, request=request)
    assert [problem for problem in store.verify() if problem] == []
    session.close()
    store.close()


def test_a_delete_whose_answer_was_lost_says_what_it_deleted(url: str) -> None:
    store = PostgresStore(url, write=True)
    store.put([result(1)])
    session = Losing(url)
    store._session.close()
    store._session = session
    gone = store.delete(result(1).id)
    assert gone is not None
    assert gone.owner == result(1).owner
    assert session.losses == 0
    assert store.delete(result(1).id) is None
    store.close()


def test_many_large_bodies_are_stored_by_several_statements(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "_AT_ONCE", 1000)
    store = PostgresStore(url, write=True)
    some = [result(n, request={"prompt": f"{n} " * 5000}) for n in range(5)]
    store.put([*some, *some[:2]])
    assert [store.get(one.id) for one in some] == some
    assert [problem for problem in store.verify() if problem] == []
    store.close()


def test_indexing_of_long_texts_stops_between_two(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = PostgresStore(url, write=True)
    store.put([result(n) for n in range(10)])
    now = itertools.count(0.0, 0.006)
    monkeypatch.setattr(time, "perf_counter", lambda: next(now))
    assert store.update_index()
    assert 0 < store.unindexed() < 10
    while store.update_index():
        pass
    assert store.unindexed() == 0
    assert len(store.search("number", Query())) == 10
    store.close()


def test_a_killed_database_keeps_what_it_has_acknowledged(own_postgres: Postgres) -> None:
    store = PostgresStore(own_postgres.new_database(), write=True)
    store.put([result(n) for n in range(10)])
    own_postgres.kill()
    error = refused(lambda: store.put([result(10)]))
    assert error.code == StorageError.BUSY
    assert refused(lambda: store.get(result(1).id)).code == StorageError.BUSY
    own_postgres.start()
    store.put([result(10)])
    assert store.reached() == 11
    assert store.missing([result(n).id for n in range(11)]) == set()
    store.close()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (pg.DiskFull("x"), StorageError.FULL),
        (pg.DataCorrupted("x"), StorageError.DAMAGED),
        (pg.UndefinedTable("x"), StorageError.DAMAGED),
        (pg.InsufficientPrivilege("x"), StorageError.REFUSED),
        (pg.InvalidPassword("x"), StorageError.REFUSED),
        (pg.AdminShutdown("x"), StorageError.BUSY),
        (pg.DeadlockDetected("x"), StorageError.BUSY),
        (pg.QueryCanceled("x"), StorageError.BUSY),
        (pg.ReadOnlySqlTransaction("x"), StorageError.BUSY),
        (pg.StringDataRightTruncation("x"), StorageError.INVALID),
        (pg.ProgramLimitExceeded("x"), StorageError.INVALID),
        (pg.InternalError_("invalid memory alloc request size 1"), StorageError.INVALID),
        (pg.InternalError_("tuple concurrently updated"), StorageError.BUSY),
        (pg.IdleInTransactionSessionTimeout("x"), StorageError.BUSY),
        (pg.SyntaxError("x"), StorageError.FAILED),
    ],
)
def test_errors_have_the_code_by_which_a_server_acts(error: psycopg.Error, code: str) -> None:
    found = as_storage_error(error, "it cannot be done", "the database x at y")
    assert found.code == code
    assert found.message.startswith("it cannot be done: ")
    assert found.retry == (code in (StorageError.BUSY, StorageError.FULL))


def test_conflicts_are_repeated(url: str) -> None:
    PostgresStore(url, write=True).close()
    session = Session(url, write=True)
    tries: list[int] = []

    def conflicting(db: Connection) -> int:
        tries.append(1)
        db.execute("INSERT INTO llcuda.models (hash, name, fingerprint) VALUES ('a', 'b', 'c')")
        if len(tries) < 3:
            raise pg.DeadlockDetected("x")
        return len(tries)

    assert session.change("it", conflicting) == 3
    assert session.ask("it", lambda db: db.execute("SELECT 1 FROM llcuda.models").rowcount) == 1
    tries[:] = []

    def always(db: Connection) -> None:
        tries.append(1)
        raise pg.SerializationFailure("x")

    assert refused(lambda: session.change("it", always)).code == StorageError.BUSY
    assert len(tries) == 5
    session.close()
