"""The store of objects in PostgreSQL: moments, lost answers, names that are held, and texts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from llcuda_net.errors import StorageError
from llcuda_net.storage.objects import conversations, postgres
from llcuda_net.storage.objects.interface import Database
from llcuda_net.storage.objects.postgres import PostgresObjects
from tests.support.storage.postgres import Postgres


@pytest.fixture
def url(postgres: Postgres) -> str:
    return postgres.new_database()


@asynccontextmanager
async def opened(url: str, life: int = 1) -> AsyncIterator[PostgresObjects]:
    objects = PostgresObjects(url)
    await objects.open()
    objects.life = life
    try:
        yield objects
    finally:
        await objects.aclose()


def titles(db: Database) -> list[str | None]:
    return [one.title for one in conversations.listed(db, "ann", 99)]


async def test_what_one_server_writes_another_reads(url: str) -> None:
    async with opened(url) as a, opened(url, 2) as b:
        assert a.shared
        made = await a.write(lambda db: conversations.create(db, "ann", title="t"))
        assert await b.read(lambda db: conversations.get(db, made.id, "ann")) == made
        assert await b.write(lambda db: db.life) == 2
    with pytest.raises(StorageError, match="closed"):
        await a.read(titles)


async def test_all_that_is_read_is_of_one_moment(url: str) -> None:
    async with opened(url) as a, opened(url) as b:

        def twice(db: Database) -> list[list[str | None]]:
            before = titles(db)
            trio.from_thread.run(b.write, lambda db: conversations.create(db, "ann", title="new"))
            return [before, titles(db)]

        assert await a.read(twice) == [[], []]
        assert await a.read(titles) == ["new"]
        # And one that writes sees what others have committed.
        assert await a.write(twice) == [["new"], ["new", "new"]]
        with pytest.raises(StorageError, match="read-only"):
            await a.read(lambda db: conversations.create(db, "ann"))


async def test_a_function_that_raises_changes_nothing(url: str) -> None:
    def change(db: Database) -> None:
        conversations.create(db, "ann")
        raise LookupError

    async with opened(url) as objects:
        with pytest.raises(LookupError):
            await objects.write(change)
        assert await objects.read(titles) == []


async def test_an_answer_that_was_lost_is_asked_for_again(url: str) -> None:
    id_, tries = conversations.new_id(), 0

    def change(db: Database) -> str:
        nonlocal tries
        tries += 1
        made = conversations.create(db, "ann", id_=id_, title="t")
        if tries == 1:  # it is committed all the same, and nobody hears of it
            db.run("COMMIT")
            pid = db.value("SELECT pg_backend_pid()")
            with psycopg.connect(url) as other:
                other.execute("SELECT pg_terminate_backend(%s, 60000)", (pid,))
        return made.id

    async with opened(url) as objects:
        assert await objects.write(change) == id_
        assert await objects.read(titles) == ["t"]
    assert tries == 2


async def test_a_database_that_is_gone_is_an_error_for_now(own_postgres: Postgres) -> None:
    async with opened(own_postgres.new_database()) as objects:
        own_postgres.kill()
        for ask in (objects.read, objects.write):
            with pytest.raises(StorageError, match="does not answer") as caught:
                await ask(titles)
            assert caught.value.retry
        own_postgres.start()
        assert await objects.read(titles) == []
        assert objects.failed is None


async def test_a_name_is_held_by_one_server_at_a_time(url: str) -> None:
    inside = entered = 0

    async def hold(objects: PostgresObjects) -> None:
        nonlocal inside, entered
        for n in range(6):
            async with objects.held(f"other {n}"), objects.held("one"):
                inside += 1
                entered += 1
                assert inside == 1
                await trio.sleep(0.01)
                inside -= 1

    async with opened(url) as a, opened(url) as b, trio.open_nursery() as nursery:
        nursery.start_soon(hold, a)
        nursery.start_soon(hold, b)
    assert entered == 12


async def test_who_does_not_let_go_is_passed(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "_PATIENCE", 0.1)
    async with opened(url) as a, opened(url) as b, a.held("one"):
        async with b.held("one"):
            pass
        async with b.held("two"):
            pass


async def test_a_name_that_was_held_is_free_after_its_holder_is_gone(url: str) -> None:
    async with opened(url) as b:
        async with opened(url) as a:
            assert await a._take(postgres._key("one"))
            assert not await b._hold("pg_try_advisory_lock", postgres._key("one"))
        assert await b._take(postgres._key("one"))


@given(text=st.text(st.sampled_from("a\0\ue00c\ue00d\ue00e")))
def test_any_text_is_what_it_was(text: str) -> None:
    given = postgres._given(text)
    assert "\0" not in given
    assert postgres._found(given) == text
    assert postgres._given([text]) == [given]


async def test_texts_with_nul_are_kept_and_found(url: str) -> None:
    async with opened(url) as objects:
        made = await objects.write(lambda db: conversations.create(db, "a\0nn", title="b\0c d"))
        assert made.title == "b\0c d"
        found = await objects.read(
            lambda db: conversations.listed(db, "a\0nn", 9, words=["\0c", "d"])
        )
        assert found == [made]
        assert await objects.read(lambda db: conversations.get(db, "\0", None)) is None
