"""Generations of other servers, as this one knows them."""

from __future__ import annotations

import pytest
import trio

from llcuda_net.config.users import Priority
from llcuda_net.generation.generation import Generation
from llcuda_net.generation.persistence import read_again
from llcuda_net.generation.state import State
from llcuda_net.server.cluster.peers.followed import Followed
from llcuda_net.server.tcp.peers.facts import Begun, Run
from llcuda_net.storage.records import TokenLog, packed
from llcuda_protocol import TokenLogprob, Tokens
from tests.support.storage.records import result


class Nobody:
    """Feeds nothing."""

    def wake(self, generation: Followed) -> None:
        pass

    def flush(self) -> None:
        pass


async def test_one_that_is_over_when_it_is_looked_for_is_what_is_stored() -> None:
    stored = result(1, owner="ann", key="a key", request_hash=b"h" * 32)
    stored.request |= {"priority": "high", "timeout": 9.0, "seed": 5}
    found = Followed(Nobody(), stored.id, "ann", 7)
    found.finish_as(stored)
    assert found.link.ready.is_set()
    assert (found.owner, found.key, found.request_hash) == ("ann", "a key", b"h" * 32)
    assert (found.priority, found.state) == (Priority.HIGH, State(stored.state))
    assert (found.params, found.timeout, found.seed) == (stored.request["params"], 9.0, 5)
    assert found.pieces == stored.log.pieces


async def test_one_that_the_other_server_has_read_from_the_store_keeps_its_probabilities() -> None:
    """It ran there when it was looked for, and was over when it was asked for."""
    log = TokenLog(["a"], [1], [packed([(1, b"a", -0.5, [])])])
    asked = {"prompt": "p", "params": {"n_probs": 1, "n_predict": 4}, "timeout": 9.0, "seed": 5}
    begun = Begun.of(read_again(result(1, owner="ann", log=log, request=asked)), asked=True)
    found = Followed(Nobody(), "01", "ann", 7)
    found.begin(begun)
    found.take(Tokens(1, 0, ["a"], [1], [[TokenLogprob(1, b"a", -0.5)]]))
    assert found.logprobs == log.logprobs
    assert (found.params, found.timeout, found.seed) == (asked["params"], 9.0, 5)


async def test_what_is_stored_without_probabilities_has_none() -> None:
    found = Followed(Nobody(), "01", "ann", 7)
    found.begin(Begun.of(Generation("p", None, {"n_probs": 1}, 9.0, owner="ann"), asked=True))
    found.finish_as(result(1, id="01", owner="ann"))
    assert (found.logprobs, found.visible) == (None, len(found.pieces))


class Recorder:
    """A reader that notes what it could send at each turn."""

    def __init__(self, generation: Generation) -> None:
        self.seen: list[int] = []
        self._generation = generation
        generation.join(self)

    def pump(self) -> None:
        self.seen.append(self._generation.visible)


async def test_one_that_has_moved_is_still_that_which_its_readers_have() -> None:
    generation = Generation("x", None, {}, 60.0, owner="ann", on_disconnect=7.0)
    generation.accept()
    generation.dispatched()
    generation.pieces += ["a", "b"]
    generation.ids += [1, 2]
    generation.counts += [1, 1]
    generation.show(2)
    reader = Recorder(generation)
    generation.suspend()
    generation.conceal()  # nobody is shown anything while it belongs to nobody
    followed = Followed.moved(Nobody(), generation)
    assert followed is generation
    assert generation.readers == [reader]
    assert (reader.seen, followed.suspended, followed.ended) == ([2], False, False)
    assert (followed.link.name, followed.on_disconnect) == ("ann", 7.0)
    assert followed.link.ready.is_set()
    followed.take(Tokens(1, 2, ["c"], [3]))
    assert (followed.pieces, reader.seen) == (["a", "b", "c"], [2, 3])
    # It was handed over whole: no new epoch, and no splice, until a server dies.
    followed.run(Run(State.RUNNING))
    assert (followed.epoch, followed.failovers) == (0, [])
    followed.run(Run(State.RUNNING, splices=[(3, 2)]))
    assert followed.epoch == 2
    assert [(one.position, one.epoch) for one in followed.failovers] == [(3, 2)]


async def test_what_comes_must_follow_what_is_there() -> None:
    followed = Followed(Nobody(), "01", "ann")
    followed.take(Tokens(1, 0, ["a"], [1]))
    for first in (0, 2):
        with pytest.raises(ValueError, match="and there are 1"):
            followed.take(Tokens(1, first, ["b"], [2]))


async def test_who_has_more_than_has_come_waits_for_it(autojump_clock: trio.abc.Clock) -> None:
    async def reach(count: int, epoch: int) -> float:
        """Until so much is here that it can be said what a reader has that has read so much."""
        before = trio.current_time()
        await followed.reach(lambda: followed.has(count, epoch))
        return trio.current_time() - before

    async def feed() -> None:
        for at in range(4):
            await trio.sleep(5)
            followed.take(Tokens(1, at, ["a"], [1]))
        await trio.sleep(5)
        followed.run(Run(State.RUNNING, splices=[(4, 2)]))
        followed.take(Tokens(1, 4, ["a"], [1]))

    times: dict[tuple[int, int], float] = {}

    async def note(count: int, epoch: int) -> None:
        times[count, epoch] = await reach(count, epoch)

    followed = Followed(Nobody(), "01", "ann")
    followed.accept()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(feed)
        asked = [(0, 0), (3, 0), (4, 0), (5, 0), (5, 2), (9, 0)]
        for one in asked:
            nursery.start_soon(note, *one)
    # One that was ahead of what is left of its run knows that by then, one of no run never does.
    assert times == dict(zip(asked, [0, 15, 20, 25, 25, 25], strict=True))
    assert await reach(6, 2) == 20
    followed.end(State.DONE, None)
    assert await reach(6, 2) == 0
