"""What is stored answers again: by its key, by its id, or, where that is wanted, as a cache."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

from llcuda_net.errors import StorageError, UpstreamUnavailable
from llcuda_net.generation.generation import Generation
from llcuda_net.generation.state import State
from llcuda_net.storage.records import Level, Result
from llcuda_net.upstream.interface import Properties
from llcuda_protocol import Accepted, Attach, Cancel, Done, Durable, Error, ErrorCode, Tokens
from tests.support.server.durable_server import keeping, stored
from tests.support.server.memory_server import CREDIT, FakeUpstream, ask, paused, ready


@pytest.mark.parametrize("restarted", [False, True])
async def test_a_key_replays_what_is_done(tmp_path: Path, restarted: bool) -> None:
    upstream = FakeUpstream()
    async with keeping(tmp_path, upstream) as (_, listener):
        peer = await ready(listener)
        await peer.send(ask("a b c", key="k", tokens=True))
        first = await peer.next()
        assert isinstance(first, Accepted)
        _, done = await peer.until(Done)
        if not restarted:
            await peer.send(ask("a b c", 2, key="k"))
            again = await peer.next()
            assert isinstance(again, Accepted)
            assert (again.id, again.cached) == (first.id, False)
            pieces, redone = await peer.until(Done, 2)
            assert pieces == ["a", " b", " c"]
            assert (redone.usage, redone.reason, redone.id) == (done.usage, "stop", first.id)
    other = FakeUpstream()
    async with keeping(tmp_path, other) as (_, listener):
        peer = await ready(listener)
        await peer.send(ask("a b c", key="k", tokens=True))
        again = await peer.next()
        assert isinstance(again, Accepted)
        assert again.id == first.id
        tokens = await peer.next()
        assert isinstance(tokens, Tokens)
        assert tokens.ids == [0, 1, 2]
        await peer.until(Done)
        await peer.send(ask("a b", 2, key="k"))
        _, error = await peer.until(Error, 2)
        assert error.code == ErrorCode.KEY_CONFLICT
    assert (len(upstream.calls), len(other.calls)) == (1, 0)
    assert len(stored(tmp_path)) == 1


async def test_a_fresh_key_is_not_looked_for_in_the_store(tmp_path: Path) -> None:
    upstream = FakeUpstream()
    async with keeping(tmp_path, upstream) as (storage, listener):
        peer = await ready(listener)
        asked = []
        find_by_key = storage.find_by_key

        async def seen(key: str, owner: str) -> Result | None:
            asked.append(key)
            return await find_by_key(key, owner)

        storage.find_by_key = seen
        await peer.send(ask("a b", key="random", fresh=True))
        await peer.until(Done)
        assert not asked
        await peer.send(ask("a b", 2, key="random"))
        assert (await peer.until(Done, 2))[0] == ["a", " b"]
        assert asked == ["random"]
    assert len(upstream.calls) == 1


@pytest.mark.parametrize("state", ["failed", "cancelled"])
async def test_a_key_of_what_did_not_end_well_begins_anew(tmp_path: Path, state: str) -> None:
    upstream = paused()
    async with keeping(tmp_path, upstream) as (_, listener):
        peer = await ready(listener)
        await peer.send(ask("a b", key="k", timeout=0.2 if state == "failed" else None))
        begun = await peer.next()
        assert isinstance(begun, Accepted)
        if state == "cancelled":
            await peer.send(Cancel(1))
        await peer.until(Error if state == "failed" else Done)
        upstream.release(2)
        await peer.send(ask("a b", 2, key="k"))
        pieces, done = await peer.until(Done, 2)
        assert pieces == ["a", " b"]
        assert done.id != begun.id
    assert [result.state for result in stored(tmp_path)] == [state, "done"]


async def test_a_stored_result_can_be_read_by_its_id(tmp_path: Path) -> None:
    async with keeping(tmp_path, FakeUpstream()) as (_, listener):
        peer = await ready(listener)
        await peer.send(ask("a b c d"))
        begun = await peer.next()
        assert isinstance(begun, Accepted)
        await peer.until(Done)
    async with keeping(tmp_path, FakeUpstream()) as (_, listener):
        peer = await ready(listener)
        await peer.send(Attach(1, begun.id, CREDIT, first=2, tokens=True))
        attached = await peer.next()
        assert isinstance(attached, Accepted)
        assert (attached.id, attached.level) == (begun.id, "disk")
        tokens = await peer.next()
        assert isinstance(tokens, Tokens)
        assert (tokens.first, tokens.pieces, tokens.ids) == (2, [" c", " d"], [2, 3])
        _, done = await peer.until(Done)
        assert (done.reason, done.usage["completion_tokens"]) == ("stop", 4)
        await peer.send(Attach(2, "no such id", CREDIT))
        _, error = await peer.until(Error, 2)
        assert error.code == ErrorCode.UNKNOWN_GENERATION


@pytest.mark.parametrize(
    ("params", "cached"),
    [({"temperature": 0}, True), ({"seed": 7}, True), ({}, False), ({"seed": -1}, False)],
)
async def test_the_cache_answers_an_exact_repeat(
    tmp_path: Path, params: dict[str, int], cached: bool
) -> None:
    upstream = FakeUpstream()
    async with keeping(tmp_path, upstream) as (_, listener):
        peer = await ready(listener)
        ids = []
        for number, cache in enumerate([False, True, True], 1):
            await peer.send(ask("a b c", number, params=params, cache=cache))
            begun = await peer.next()
            assert isinstance(begun, Accepted)
            assert begun.cached == (cached and number > 1)
            ids.append(begun.id)
            pieces, done = await peer.until(Done, number)
            assert pieces == ["a", " b", " c"]
            assert (done.id, done.usage["prompt_tokens"]) == (begun.id, 7)
        assert len(upstream.calls) == (1 if cached else 3)
        await peer.send(ask("a b", 4, params=params, cache=True))  # another prompt
        await peer.until(Done, 4)
        await peer.send(ask("a b c", 5, params=params))  # nobody asked for the cache
        await peer.until(Done, 5)
        assert len(upstream.calls) == (3 if cached else 5)
        assert len(set(ids)) == 3
    results = {result.id: result for result in stored(tmp_path)}
    assert len(results) == 5
    if cached:
        assert [results[id_].cached_from for id_ in ids] == [None, ids[0], ids[0]]
        assert results[ids[2]].text == "a b c"


async def test_a_request_may_ask_that_nothing_is_kept(tmp_path: Path) -> None:
    async with keeping(tmp_path, FakeUpstream()) as (_, listener):
        peer = await ready(listener)
        await peer.send(ask("a secret", level="memory"))
        begun = await peer.next()
        assert isinstance(begun, Accepted)
        assert begun.level == "memory"
        await peer.until(Done)
        await peer.send(Attach(2, begun.id, CREDIT))  # but for a moment, in memory
        assert (await peer.until(Done, 2))[0] == ["a", " secret"]
        await peer.send(ask("a word", 3, level="strict"))
        assert (await peer.until(Done, 3))[0] == ["a", " word"]
    (result,) = stored(tmp_path)
    assert (result.text, result.level) == ("a word", Level.STRICT)
    journal = b"".join(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())  # noqa: ASYNC240
    assert b"secret" not in journal


async def test_the_watermark_follows(tmp_path: Path) -> None:
    upstream = paused()
    async with keeping(tmp_path, upstream) as (_, listener):
        peer = await ready(listener)
        await peer.send(ask("a b c d", durable=True))
        assert isinstance(await peer.next(), Accepted)
        for count in (1, 2, 3):
            upstream.release(1)
            seen: list[type] = []
            while Durable not in seen:
                event = await peer.next()
                seen.append(type(event))
                if isinstance(event, Durable):
                    assert event.count == count
            assert Tokens in seen
        upstream.release(1)
        await peer.until(Done)


async def test_detaching_from_what_is_refused_tells_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object) -> None:
        raise StorageError("no room on the disk", StorageError.FULL)

    async with keeping(tmp_path, FakeUpstream()) as (storage, listener):
        monkeypatch.setattr(storage, "start", refuse)
        peer = await ready(listener)
        await peer.send(ask("a b"), Cancel(1, detach=True))
        event = await peer.next()
        assert isinstance(event, Error), event  # not `accepted`
        assert event.code == ErrorCode.STORAGE


async def test_detaching_tells_the_id_that_the_key_has(tmp_path: Path) -> None:
    async with keeping(tmp_path, FakeUpstream()) as (_, listener):
        peer = await ready(listener)
        await peer.send(ask("a b", key="k"))
        first = await peer.next()
        assert isinstance(first, Accepted)
        await peer.until(Done)
        await peer.send(ask("a b", 2, key="k"), Cancel(2, detach=True))
        _, again = await peer.until(Accepted, 2)
        assert again.id == first.id


async def test_a_store_that_takes_nothing_stops_new_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upstream = FakeUpstream()
    async with keeping(tmp_path, upstream) as (storage, listener):

        async def refuse(_: object) -> None:
            raise StorageError("locked by another", StorageError.BUSY)

        with monkeypatch.context() as patch:
            patch.setattr(storage._writer, "commit", refuse)
            peer = await ready(listener)
            first: Any = None
            for number in range(1, 20):
                await peer.send(ask("a b", number))
                _, error = await peer.until(Error, number)
                assert error.code == ErrorCode.STORAGE
                first = error if number == 1 else first
            assert len(upstream.calls) == 1  # the others were refused before they began
            assert len(storage.unstored) == 1
        (waiting,) = storage.unstored
        await peer.send(Attach(20, waiting.id, CREDIT))  # meanwhile it can be read
        pieces, same = await peer.until(Error, 20)
        assert (pieces, same.message) == (["a", " b"], first.message)  # what was told stands


async def test_another_model_behind_the_same_address_is_noticed(tmp_path: Path) -> None:
    upstream = FakeUpstream()
    async with keeping(tmp_path, upstream) as (_, listener):
        peer = await ready(listener)
        await peer.send(ask("a b", params={"seed": 1}))
        await peer.until(Done)
        upstream.model = "another"
        await peer.send(ask("a c", 2, params={"seed": 1}))
        await peer.until(Done, 2)
        assert upstream.forgotten == 1
        await peer.send(ask("a b", 3, params={"seed": 1}, cache=True))
        await peer.until(Done, 3)
        assert upstream.forgotten == 2  # a cache asks anew what it is that it answers for
    first, second, _ = stored(tmp_path)
    assert (first.model["name"], first.cacheable) == ("fake", True)
    assert (second.model["name"], second.cacheable) == ("another", False)


async def test_an_upstream_that_cannot_be_asked_for_its_model_does_not_fail_a_cached_request(
    tmp_path: Path,
) -> None:
    """It is done as without a cache, and so may wait for the upstream to come back."""
    upstream = FakeUpstream()
    failures = [UpstreamUnavailable("lost", retry=True)]
    ask_it = upstream.ask

    async def unlucky() -> Properties:
        if failures:
            raise failures.pop()
        return await ask_it()

    async with keeping(tmp_path, upstream) as (_, listener):
        peer = await ready(listener)
        upstream.ask = unlucky  # type: ignore[method-assign]
        await peer.send(ask("a b", cache=True, params={"temperature": 0}))
        text = ""
        while not isinstance(event := await peer.next(), Done):
            assert not isinstance(event, Error), event
            text += "".join(event.pieces) if isinstance(event, Tokens) else ""
        assert (text, failures) == ("a b", [])


async def test_readers_are_told_of_one_that_is_another_servers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database says so when its result is stored; this server may go on as it is."""
    async with keeping(tmp_path, FakeUpstream()) as (storage, listener):

        async def refuse(_: object) -> None:
            raise StorageError("another server has it", StorageError.FENCED)

        monkeypatch.setattr(storage._writer, "commit", refuse)
        peer = await ready(listener)
        await peer.send(ask("a b"))
        with trio.fail_after(300.0):
            _, error = await peer.until(Error)
        assert (error.code, error.retry) == (ErrorCode.LEASE_LOST, True)
        (left,) = listener.server.hosting.left_aside()
        assert left.entry.count == 2  # it is open in the journal


@pytest.mark.parametrize("error", [UpstreamUnavailable("another server has it"), KeyError("a bug")])
async def test_one_that_is_set_aside_has_not_failed(tmp_path: Path, error: Exception) -> None:
    """Its upstream is taken from this server at the moment at which it is to stop."""
    generation = Generation("a b", None, {}, 9.0)

    async def loses() -> State:
        generation.suspend()
        raise error

    async with keeping(tmp_path, FakeUpstream()) as (_, listener):
        found = await listener.server._runner._outcome(generation, loses)
    assert found == (None, None)
