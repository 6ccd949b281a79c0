"""Generations of other servers, as this one knows them."""

from __future__ import annotations

from llcuda_net.config.users import Priority
from llcuda_net.generation.state import State
from llcuda_net.server.cluster.peers.followed import Followed
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
