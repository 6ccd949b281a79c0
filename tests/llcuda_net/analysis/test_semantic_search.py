"""A search by meaning over the protocol: hits in frames, one's own only, and its cancellation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

from llcuda_net.analysis import analyzer
from llcuda_net.config.token_file import Users
from llcuda_net.config.users import User
from llcuda_protocol import (
    Attach,
    Cancel,
    Done,
    Error,
    ErrorCode,
    Hits,
    Limits,
    Search,
)
from tests.support.analysis.analysts import Embedding, analysing, caught_up, put
from tests.support.server.memory_server import (
    ready,
)
from tests.support.storage.records import START


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(analyzer, "SETTLE", 0.0)
    monkeypatch.setattr(analyzer, "RETRY", 0.0)


async def test_a_search_over_the_protocol(tmp_path: Path) -> None:
    put(tmp_path, "one slot", "two streams", "a slot and a stream")
    async with analysing(tmp_path, Embedding()) as (analyst, listener):
        await caught_up(analyst)
        peer = await ready(listener)
        await peer.send(Search(1, "slot", 2))
        hits = await peer.next()
        assert isinstance(hits, Hits)
        assert [hit["text"] for hit in hits.hits] == ["one slot", "a slot and a stream"]
        first = hits.hits[0]
        assert (first["id"], first["state"], first["model"]) == ("result-000001", "done", "demo")
        assert (first["preview"], first["created"]) == ("tell me", START / 1e9 + 1)
        assert -1 <= hits.hits[1]["score"] < first["score"] <= 1
        done = await peer.next()
        assert isinstance(done, Done)
        assert (done.reason, done.usage) == ("complete", {"searched": 3, "backlog": 0})
        assert done.timings["total"] > 0
        await peer.send(Attach(2, first["id"], 1000))
        pieces, _ = await peer.until(Done, 2)
        assert pieces == ["one slot"]


async def test_a_search_finds_ones_own_and_an_admins_all(tmp_path: Path) -> None:
    put(tmp_path, "one slot", "a slot", owner="ann")
    put(tmp_path, "two slots", first=10, owner="bob")
    put(tmp_path, "a stream and a slot", first=20)
    users = Users.parse("A name=ann\nB name=bob\nC name=cid\nR role=admin name=root\nN\n")
    wanted = {
        "A": ["one slot", "a slot"],
        "B": ["two slots"],
        "C": [],
        "N": ["a stream and a slot"],
        "R": ["two slots", "one slot", "a slot", "a stream and a slot"],
    }
    for restarted in (False, True):  # as they are analysed, and as they are read from the store
        async with analysing(tmp_path, Embedding(), users) as (analyst, listener):
            if not restarted:
                put(tmp_path, "one more", first=30, owner="bob")
            await caught_up(analyst)
            for token, texts in wanted.items():
                peer = await ready(listener, token)
                await peer.send(Search(1, "slot", 4))
                found: list[dict[str, Any]] = []
                while isinstance(event := await peer.next(), Hits):
                    found += event.hits
                own = [hit["text"] for hit in found if hit["text"] != "one more"]
                assert sorted(own) == sorted(texts)
                owners = {hit.get("owner") for hit in found}
                assert owners == ({"ann", "bob", ""} if token == "R" else {None} & owners)
                assert isinstance(event, Done)
                searched = {"B": 2, "R": 5}.get(token, len(texts))
                assert event.usage == {"searched": searched, "backlog": 0}


async def test_a_backlog_is_told_of_ones_own(tmp_path: Path) -> None:
    put(tmp_path, "one", "two", owner="ann")
    put(tmp_path, "three", first=10, owner="bob")
    upstream = Embedding()
    upstream.hold = trio.Event()
    async with analysing(tmp_path, upstream) as (analyst, _):
        with trio.fail_after(300):
            await upstream.waiting.wait()
        told = [(await analyst.report(owner))["backlog"] for owner in ("ann", "bob", "cid", None)]
        assert told == [2, 1, 0, 3]
        upstream.hold.set()
        await caught_up(analyst)
        assert (await analyst.report("ann"))["indexed"] == 2
        assert (await analyst.search("x", 9, User("bob"))).searched == 1


async def test_many_hits_come_in_frames_that_the_client_takes(tmp_path: Path) -> None:
    put(tmp_path, *("\N{EARTH GLOBE EUROPE-AFRICA}" * 190 + f" slot {n}" for n in range(60)))
    async with analysing(tmp_path, Embedding()) as (analyst, listener):
        await caught_up(analyst)
        peer = listener.connect(Limits(max_frame=16_384))
        await peer.greet()
        await peer.send(Search(1, "slot", 1000))
        found: list[str] = []
        frames = 0
        while isinstance(event := await peer.next(), Hits):
            assert event.first == len(found)
            found += [hit["id"] for hit in event.hits]
            frames += 1
        assert isinstance(event, Done)
        assert len(set(found)) == len(found) == 60
        assert 3 <= frames <= 8


async def test_a_search_before_there_is_anything_finds_nothing(tmp_path: Path) -> None:
    async with analysing(tmp_path, Embedding()) as (_, listener):
        peer = await ready(listener)
        await peer.send(Search(1, "slot"))
        _, done = await peer.until(Done)
        assert done.usage == {"searched": 0, "backlog": 0}
        await peer.send(Search(2, "  \n "))
        _, error = await peer.until(Error, 2)
        assert error.code == ErrorCode.INVALID_REQUEST


async def test_a_cancelled_search_lets_go_of_its_slot(tmp_path: Path) -> None:
    upstream = Embedding(slots=1)
    async with analysing(tmp_path, upstream) as (_, listener):
        peer = await ready(listener)
        upstream.hold = trio.Event()
        await peer.send(Search(1, "slot"))
        with trio.fail_after(300):
            await upstream.waiting.wait()
            assert listener.server.scheduler.running == 1
            await peer.send(Cancel(1))
            _, done = await peer.until(Done)
        assert done.reason == "cancelled"
        assert listener.server.scheduler.running == 0
