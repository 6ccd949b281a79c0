"""What a generation was asked and answered, wherever it is kept."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from llcuda_net.config.users import ANONYMOUS
from llcuda_net.errors import InvalidRequest, LeaseLost, Overloaded, UnknownGeneration
from llcuda_net.storage.chat_history import history
from llcuda_net.storage.records import Level, Result
from llcuda_protocol import Accepted, Done, Generate
from tests.support.server.durable_server import keeping
from tests.support.server.memory_server import (
    CREDIT,
    FakeUpstream,
    MemoryListener,
    Peer,
    paused,
    ready,
)

_MESSAGES = [{"role": "user", "content": "to be"}]
#: What the fake upstream says to them.
_ANSWER = {"role": "assistant", "content": "user: to be"}


async def _begun(listener: MemoryListener, level: Level) -> tuple[Peer, str]:
    peer = await ready(listener)
    await peer.send(Generate(1, CREDIT, messages=_MESSAGES, level=level))
    accepted = await peer.next()
    assert isinstance(accepted, Accepted)
    return peer, accepted.id


@pytest.mark.parametrize("level", [Level.DISK, Level.MEMORY])
async def test_a_conversation_is_found_in_the_store_and_in_memory(
    tmp_path: Path, level: Level
) -> None:
    async with keeping(tmp_path, FakeUpstream()) as (_, listener):
        peer, id_ = await _begun(listener, level)
        await peer.until(Done)
        found = await listener.server.finder.result(id_, ANONYMOUS.name)
        assert (found.id, found.state, found.reason) == (id_, "done", "stop")
        assert found.model["name"] == "fake"
        assert history(found) == [*_MESSAGES, _ANSWER]
        assert await listener.server.finder.result(id_, None) == found
        for wrong in ("none", id_):
            with pytest.raises(UnknownGeneration):
                await listener.server.finder.result(wrong, "somebody else")


@pytest.mark.parametrize("level", [Level.DISK, Level.MEMORY])
async def test_what_runs_has_no_result_yet(tmp_path: Path, level: Level) -> None:
    upstream = paused()
    async with keeping(tmp_path, upstream) as (_, listener):
        peer, id_ = await _begun(listener, level)
        with pytest.raises(InvalidRequest, match=f"{id_} still runs"):
            await listener.server.finder.result(id_, ANONYMOUS.name)
        upstream.release(9)
        await peer.until(Done)
        assert (await listener.server.finder.result(id_, None)).text == "user: to be"


async def test_what_was_dropped_from_memory_says_so(tmp_path: Path) -> None:
    async with keeping(tmp_path, FakeUpstream()) as (_, listener):
        peer, id_ = await _begun(listener, Level.MEMORY)
        await peer.until(Done)
        shelf = listener.server.memory._shelf
        shelf._bound = 0
        shelf.trim()
        with pytest.raises(Overloaded, match="memory only, and dropped"):
            await listener.server.finder.result(id_, ANONYMOUS.name)


async def test_results_are_read_one_after_the_other(tmp_path: Path) -> None:
    """Each may be large, and a request that asks for one is small."""
    async with keeping(tmp_path, FakeUpstream()) as (_, listener):
        peer, id_ = await _begun(listener, Level.DISK)
        await peer.until(Done)
        finder, reading, most = listener.server.finder, 0, 0
        result = finder._persistence.result

        async def counted(id_: str, owner: str | None) -> Result | None:
            nonlocal reading, most
            reading += 1
            most = max(most, reading)
            try:
                return await result(id_, owner)
            finally:
                reading -= 1

        finder._persistence.result = counted  # type: ignore[method-assign]
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(finder.result, id_, None)
        assert most == 1


class Asleep:
    """A cluster in which this server has slept for longer than its lease, and has just woken up."""

    def check_shown(self) -> None:
        raise LeaseLost("it has slept", retry=True)


async def test_what_runs_here_is_shown_only_while_nobody_else_may_have_it(tmp_path: Path) -> None:
    async with keeping(tmp_path, paused()) as (_, listener):
        _, id_ = await _begun(listener, Level.DISK)
        finder = listener.server.finder
        found = await finder.find(id_, None)
        assert found.id == id_
        registry = listener.server.registry
        registry._by_key["", "key"] = found
        finder._elsewhere = Asleep()  # type: ignore[assignment]
        for _ in range(2):
            with pytest.raises(LeaseLost):
                await finder.find(id_, None)
            with pytest.raises(LeaseLost):
                await finder.find_by_key("key", "")
            # What waits for the store to take its result is not over, either.
            found.entry = None
