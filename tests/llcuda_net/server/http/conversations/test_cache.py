"""What was shown last is not made again, within a bound; what was deleted is forgotten."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest

from llcuda_net.server.generations.finder import Finder
from llcuda_net.server.http.conversations.cache import Key, NodeCache
from tests.support.server.conversations import PATH, RESPONSES, begin, call, items, respond, running


def key(generation: str, *hidden: str) -> Key:
    return Key(generation, "conv_1", hidden, False)


def test_what_was_used_longest_ago_goes_first() -> None:
    cache = NodeCache(40)
    for name in "abcd":
        cache.keep(key(name), b"12345" * 2 if name == "a" else b"12345")
    assert cache.get(key("a")) is None  # it would take too much of the room
    assert cache.size == 15
    for name in "efghi":
        assert cache.get(key("b")) == b"12345"
        cache.keep(key(name), b"12345")
    assert cache.size == 40
    cache.keep(key("j"), b"12345")
    assert cache.get(key("b")) == b"12345"
    assert cache.get(key("c")) is None
    cache.keep(key("b"), b"123")
    assert cache.size == 38
    cache.keep(key("b", "x"), b"1")
    cache.forget("b")
    assert (cache.get(key("b")), cache.get(key("b", "x"))) == (None, None)
    assert cache.size == 35


async def test_what_is_over_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    real = Finder.results

    async def noted(finder: Finder, ids: Collection[str], *more: Any) -> Any:
        read.extend(ids)
        return await real(finder, ids, *more)

    monkeypatch.setattr(Finder, "results", noted)
    async with running(tmp_path) as listener:
        id_ = await begin(listener)
        path = f"{PATH}/{id_}/responses?order=asc"
        first = await respond(listener, id_, "a")
        for _ in range(2):
            (one,) = (await call(listener, "GET", path))["data"]
        assert len(read) == 1
        # Its place is not kept with it.
        beside = await respond(listener, id_, "b", instead_of=first["id"])
        (one, two) = (await call(listener, "GET", path))["data"]
        assert one["versions"] == two["versions"] == [first["id"], beside["id"]]
        assert len(read) == 2
        (asked, _) = await items(listener, id_)
        await call(listener, "DELETE", f"{PATH}/{id_}/items/{asked['id']}")
        assert (await call(listener, "GET", path))["data"][1]["input"] == []
        assert len(read) == 3
        assert listener.server.shown.size > 0
        for one in (first, beside):
            await call(listener, "DELETE", f"{RESPONSES}/{one['id']}")
        assert listener.server.shown.size == 0
        assert (await call(listener, "GET", path))["data"] == []
