"""An upstream that says nonsense of its slots: none is lost by it, and none is made up."""

from __future__ import annotations

import pytest
import trio

from llcuda_net.config.upstreams import UpstreamSpec
from llcuda_net.upstream.backend import Backend
from llcuda_net.upstream.health_check import HealthCheck
from llcuda_net.upstream.interface import Requirement
from llcuda_net.upstream.slots.lease import Lease
from tests.support.server.memory_server import FakeUpstream


class Odd(FakeUpstream):
    """Tells of fewer slots than it has."""

    told: tuple[bool, ...] = ()

    async def slots(self) -> list[bool] | None:
        await trio.lowlevel.checkpoint()
        return list(self.told)


@pytest.mark.parametrize("told", [(), (False,)])
async def test_a_slot_of_which_nothing_is_told_is_free_again(
    told: tuple[bool, ...], autojump_clock: object
) -> None:
    upstream = Odd(slots=2)
    upstream.told = told
    backend = Backend(UpstreamSpec("fake://", "a"), upstream)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(HealthCheck(backend).run)
        await trio.sleep(0.1)
        leases = []
        for slot in backend.table:
            lease = Lease(backend, slot, Requirement(""))
            lease.sent()
            leases.append(lease)
        for lease in leases:
            lease.release()
        assert backend.releasing == 2
        await trio.sleep(10)
        assert (backend.free, backend.releasing) == (2, 0)
        nursery.cancel_scope.cancel()
