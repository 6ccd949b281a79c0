"""Logs of what is over: a bounded number of bytes, and the rest comes back from the store."""

from __future__ import annotations

import gc

import pytest
import trio

from llcuda_net.errors import RequestError, StorageUnavailable, UpstreamError
from llcuda_net.generation.generation import Generation
from llcuda_net.generation.memory.shelf import Shelf
from llcuda_net.generation.state import State
from llcuda_net.storage.records import Result, Switch, TokenLog, packed

LOG = TokenLog(["x" * 1000, "y"], [1, 2], [packed([[1, b"x", None, []]]), packed([])])
RESULT = Result(
    id="one", state="done", created=0, finished=0, log=LOG, switches=[Switch(0, "reasoning")]
)


class Reader:
    """Notes what it is told of."""

    def __init__(self, generation: Generation) -> None:
        self.seen: list[tuple[int | None, RequestError | None]] = []
        self.generation = generation
        generation.join(self)

    def pump(self) -> None:
        self.seen.append((self.generation.shelved, self.generation.lost))


def over(prompt: str = "a prompt") -> Generation:
    generation = Generation(prompt, None, {}, 60.0)
    generation.adopt(RESULT)
    generation.end(State.DONE, None)
    return generation


async def _nothing(generation: Generation) -> Result | None:
    return None


async def test_those_used_longest_ago_are_dropped_and_all_else_of_them_stays() -> None:
    size = over().size
    shelf = Shelf(2 * size, _nothing)
    logs = [over() for _ in range(3)]
    for one in logs:
        shelf.keep(one, stored=True)
    assert [one.shelved for one in logs] == [2, None, None]
    assert shelf.size == 2 * size
    assert (logs[0].pieces, logs[0].count, logs[0].visible) == ([], 2, 2)
    assert logs[0].prompt is None
    assert logs[0].same_since(0) == 2
    del logs[1:], one
    gc.collect()
    assert shelf.size == 0  # it holds none itself


async def test_what_would_be_lost_goes_last() -> None:
    size = over().size
    shelf = Shelf(2 * size, _nothing)
    unstored, *stored = [over() for _ in range(3)]
    shelf.keep(unstored, stored=False)
    for one in stored:
        shelf.keep(one, stored=True)
    assert [one.shelved for one in (unstored, *stored)] == [None, 2, None]
    shelf.clear()
    assert [one.shelved for one in (unstored, *stored)] == [None, 2, 2]


async def test_a_log_comes_back_for_a_reader_that_can_take_more(autojump_clock: object) -> None:
    asked: list[Generation] = []

    async def read(generation: Generation) -> Result | None:
        asked.append(generation)
        await trio.sleep(1)
        return RESULT

    shelf = Shelf(0, read)
    one = over()
    reader = Reader(one)
    shelf.keep(one, stored=True)
    done: list[None] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(shelf.run, lambda: done.append(None))
        for _ in range(3):
            shelf.recall(one)  # each stream of it does
        await trio.sleep(10)
        nursery.cancel_scope.cancel()
    assert (asked, done) == ([one], [None])
    assert reader.seen == [(None, None)]
    # Its reader has had its turn; there is no room for it to stay.
    assert (one.shelved, shelf.size) == (2, 0)


@pytest.mark.parametrize("failure", [StorageUnavailable("broken"), None])
async def test_one_that_cannot_be_had_again_is_told(
    failure: RequestError | None, autojump_clock: object
) -> None:
    async def read(generation: Generation) -> Result | None:
        await trio.lowlevel.checkpoint()
        if failure is not None:
            raise failure
        return None

    shelf = Shelf(0, read)
    one = over()
    reader = Reader(one)
    shelf.keep(one, stored=True)
    shelf.recall(one)
    with trio.move_on_after(10):
        await shelf.run(lambda: None)
    ((shelved, lost),) = reader.seen
    assert shelved == 2
    assert lost is not None
    assert (lost is failure) is (failure is not None)


async def test_what_is_not_stored_is_lost_and_its_readers_are_told() -> None:
    shelf = Shelf(0, _nothing)
    one = over()
    reader = Reader(one)
    shelf.keep(one, stored=False)
    ((_, lost),) = reader.seen
    assert lost is not None
    assert lost.code == "overloaded"
    assert "kept in memory only" in lost.message


async def test_one_that_failed_is_freed_at_once() -> None:
    """Its error's traceback had it, and it the error: until the garbage collector came by."""

    def fail(generation: Generation) -> None:
        try:
            raise UpstreamError("broken")
        except UpstreamError as error:
            generation.end(State.FAILED, error)

    shelf = Shelf(1 << 20, _nothing)
    one = over()
    one.ended, one.state = False, State.RUNNING
    gc.disable()
    try:
        fail(one)
        shelf.keep(one, stored=True)
        assert shelf.size > 0
        del one
        assert shelf.size == 0
    finally:
        gc.enable()


async def test_its_channels_go_and_come_back_with_it() -> None:
    one = over()
    size = one.size
    assert one.channel_at(1).kind == "reasoning"
    one.shelve()
    assert one.switches == []
    one.unshelve(RESULT)
    assert one.channel_at(1).kind == "reasoning"
    assert one.size < size  # what it was asked does not come back
