"""Followers hear of what changes of their owner's conversations, and of nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from llcuda_net.server import changes
from llcuda_net.server.changes import ADDED, ALL, CHANGED, CREATED, DELETED, Changes
from tests.support.server.conversations import PATH, begin, call, items, respond, running, said


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
