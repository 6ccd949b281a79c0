"""Generations of other servers, as this one knows them."""

from __future__ import annotations

import pytest

from llcuda_net.config.users import Priority
from llcuda_net.generation.generation import Generation
from llcuda_net.generation.state import State
from llcuda_net.server.cluster.peers.followed import Followed
from llcuda_net.server.tcp.peers.facts import Run
from llcuda_protocol import Tokens
from tests.support.storage.records import result


class Nobody:
    """Feeds nothing."""

    def wake(self, generation: Followed) -> None:
        pass

    def flush(self) -> None:
        pass


async def test_one_that_is_over_when_it_is_looked_for_is_what_is_stored() -> None:
    stored = result(1, owner="ann", key="a key", request_hash=b"h" * 32)
    stored.request["priority"] = "high"
    found = Followed(Nobody(), stored.id, "ann", 7)
    found.finish_as(stored)
    assert found.link.ready.is_set()
    assert (found.owner, found.key, found.request_hash) == ("ann", "a key", b"h" * 32)
    assert (found.priority, found.state) == (Priority.HIGH, State(stored.state))
    assert found.pieces == stored.log.pieces


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
    followed.run(Run("running"))
    assert (followed.epoch, followed.failovers) == (0, [])
    followed.run(Run("running", splices=[(3, 2)]))
    assert followed.epoch == 2
    assert [(one.position, one.epoch) for one in followed.failovers] == [(3, 2)]


async def test_what_comes_must_follow_what_is_there() -> None:
    followed = Followed(Nobody(), "01", "ann")
    followed.take(Tokens(1, 0, ["a"], [1]))
    for first in (0, 2):
        with pytest.raises(ValueError, match="and there are 1"):
            followed.take(Tokens(1, first, ["b"], [2]))
