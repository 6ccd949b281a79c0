"""Followers hear of what changes of their owner's conversations, and of nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from llcuda_net.server import changes
from llcuda_net.server.changes import (
    ADDED,
    ALL,
    CHANGED,
    CREATED,
    DELETED,
    Changes,
    Follower,
    Lookout,
)
from llcuda_net.server.objects import KeptObjects
from llcuda_net.storage.objects import conversations, entries, feed, sessions
from llcuda_net.storage.objects.postgres import PostgresObjects
from tests.support.server.conversations import PATH, begin, call, items, respond, running, said
from tests.support.storage.postgres import Postgres


async def test_a_follower_hears_of_its_owners() -> None:
    found = Changes()
    with found.following("ann") as one, found.following("ann") as two:
        found.note("bob", "conv_0", CREATED)
        assert one.pending == {}
        found.note("ann", "conv_1", CREATED)
        found.note("ann", "conv_1", ADDED)
        found.note("ann", "conv_2", CHANGED)
        found.note("ann", "conv_2", DELETED)
        assert await one.wait() == {"conv_1": CREATED, "conv_2": DELETED}
        assert two.take() == {"conv_1": CREATED, "conv_2": DELETED}
        with trio.move_on_after(0) as scope:
            await one.wait()
        assert scope.cancelled_caught
        found.note("ann", "conv_1", DELETED)
        assert await two.wait() == {"conv_1": DELETED}
    found.note("ann", "conv_3", CREATED)
    assert one.pending == {"conv_1": DELETED}
    assert repr(found) == "<Changes, 0 followers>"


async def test_too_many_are_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "MOST", 2)
    found = Changes()
    with found.following("") as one:
        for id_ in "abcd":
            found.note("", id_, ADDED)
        assert await one.wait() == {ALL: CHANGED}


async def test_each_change_is_noted(tmp_path: Path) -> None:
    async with running(tmp_path) as listener:
        with listener.server.changes.following("") as one:
            id_ = await begin(listener)
            assert one.take() == {id_: CREATED}
            await respond(listener, id_, "a")
            assert one.take() == {id_: ADDED}
            await call(listener, "POST", f"{PATH}/{id_}/items", {"items": [said("user", "x")]})
            assert one.take() == {id_: ADDED}
            await call(listener, "POST", f"{PATH}/{id_}", {"title": "t"})
            assert one.take() == {id_: CHANGED}
            (item, *_) = await items(listener, id_)
            await call(listener, "DELETE", f"{PATH}/{id_}/items/{item['id']}")
            assert one.take() == {id_: CHANGED}
            await call(listener, "DELETE", f"{PATH}/{id_}")
            assert one.take() == {id_: DELETED}


class Told:
    """What a lookout of a server tells, beside changes: sessions."""

    def __init__(self) -> None:
        self.sessions: list[set[bytes] | None] = []

    def __call__(self, hashes: Collection[bytes] | None) -> None:
        self.sessions.append(None if hashes is None else {*hashes})


@asynccontextmanager
async def looking(
    url: str, life: int
) -> AsyncIterator[tuple[KeptObjects, Lookout, Follower, Told]]:
    """A server on a database, which looks when the test says so."""
    objects = PostgresObjects(url)
    await objects.open()
    kept, found, told = KeptObjects(objects), Changes(), Told()
    kept.set_life(life)
    lookout = Lookout(kept, found, told)
    await lookout.look()
    assert told.sessions == [None]  # those that were read before
    told.sessions.clear()
    with found.following("ann") as follower:
        yield kept, lookout, follower, told
    await objects.aclose()


async def test_what_other_servers_change_is_told(postgres: Postgres) -> None:
    url = postgres.new_database()
    async with looking(url, 1) as (here, lookout, follower, told), looking(url, 2) as (there, *_):
        mine = await here.write(lambda db: conversations.create(db, "ann"))
        one = await there.write(lambda db: conversations.create(db, "ann"))
        two = await there.write(lambda db: conversations.create(db, "ann"))
        await there.write(lambda db: conversations.create(db, "bob"))
        await there.write(lambda db: conversations.delete(db, two))
        await there.write(
            lambda db: sessions.change(db, sessions.Session(b"h", "ann", b"b", 1, 2), [b"old"])
        )
        await lookout.look()
        assert follower.take() == {one.id: CREATED, two.id: DELETED}
        assert told.sessions == [{b"h", b"old"}]
        await lookout.look()
        assert (follower.take(), len(told.sessions)) == ({}, 1)
        await there.write(lambda db: entries.add_generation(db, mine, "g", question="What?"))
        await lookout.look()
        assert follower.take() == {mine.id: ADDED}
        await there.write(lambda db: entries.forget_words(db, "g"))
        await lookout.look()
        assert follower.take() == {mine.id: CHANGED}


async def test_who_could_not_look_for_long_is_told_that_anything_may_have_changed(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with looking(postgres.new_database(), 1) as (_, lookout, follower, told):
        monkeypatch.setattr(feed, "KEPT", -1)
        await lookout.look()
        assert follower.take() == {ALL: CHANGED}
        assert told.sessions == [None]
