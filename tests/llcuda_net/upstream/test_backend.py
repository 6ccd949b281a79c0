"""A backend as state, with no I/O."""

from __future__ import annotations

import pytest

from llcuda_net.config.upstreams import EMBEDDINGS
from llcuda_net.errors import request_error
from llcuda_net.upstream.circuit_breaker import THRESHOLD
from llcuda_net.upstream.health_check import HealthCheck
from llcuda_net.upstream.interface import DOWN, Requirement
from llcuda_net.upstream.pool import Pool
from llcuda_net.upstream.slots.lease import Lease
from tests.support.upstream.scripted_upstream import Talker, backend, broken, known


async def test_it_returns_what_concerns_the_pool() -> None:
    one = await known()
    assert not one.learn(await one.upstream.ask())
    assert not one.record_success()
    assert [one.record_failure(broken()) for _ in range(THRESHOLD)][-2:] == [False, True]
    assert (one.state, one.up, one.failures) == ("down", False, THRESHOLD)
    assert one.record_success()
    assert (one.state, one.up) == ("up", True)


@pytest.mark.parametrize("code", sorted(DOWN))
async def test_what_its_process_held_is_gone_with_it(code: str) -> None:
    one = await known()
    for slot in one.table:
        slot.chain = (1, 2)
    assert one.record_failure(request_error(code, "lost"))
    assert one.upstream.properties is None
    assert [slot.chain for slot in one.table] == [(), ()]
    assert (one.attention.is_set(), one.reason) == (True, "lost")


async def test_what_it_meets() -> None:
    one = await known()
    one.model_key = "m"
    assert one.meets(Requirement("m"))
    assert one.meets(Requirement(""))
    assert not one.meets(Requirement("n"))
    assert not one.meets(Requirement("m", avoid=frozenset("a")))
    assert not one.meets(Requirement("m", only="b"))
    one.lacks_completions()
    assert not one.meets(Requirement("m"))
    assert one.meets(Requirement("m", EMBEDDINGS))


async def test_their_states_are_shown_on_one_line() -> None:
    one = backend(Talker(slots=2))
    pool = Pool([one])
    assert repr(one) == (
        "<Backend a: up, model unknown [model-1], <Slots: 1 free (number unknown)>>"
    )
    await pool.prepare()
    one.watched = True
    lease = Lease(one, next(iter(one.table)), Requirement(""), holder="ann")
    assert repr(lease) == "<Lease slot 0 of a: held by ann>"
    one.breaker.trip("it broke")
    assert repr(one) == (
        "<Backend a: down (it broke), model fake [model-1], <Slots: 1 free, 1 busy>>"
    )
    assert repr(pool) == "<Pool: a down; 1 of 2 slots busy>"
    assert repr(one.breaker) == "<CircuitBreaker OPEN (it broke), 0 failures in a row>"
    assert repr(HealthCheck(one)) == "<HealthCheck of a: down, /health not answered yet>"
