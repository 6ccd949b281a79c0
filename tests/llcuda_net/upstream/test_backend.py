"""A backend as state, with no I/O, and the leases of its slots."""

from __future__ import annotations

import pytest
import trio

from llcuda_net.config.upstreams import EMBEDDINGS
from llcuda_net.errors import UpstreamStalled, request_error
from llcuda_net.upstream.backend import Backend, Lease, held
from llcuda_net.upstream.circuit_breaker import THRESHOLD
from llcuda_net.upstream.health_check import HealthCheck
from llcuda_net.upstream.interface import DOWN, Requirement
from llcuda_net.upstream.pool import Pool
from llcuda_net.upstream.slots import Use
from tests.support.upstream.scripted_upstream import Talker, backend, broken, gone


async def known(slots: int = 2) -> Backend:
    """A backend whose properties are known, and that may be down."""
    found = backend(Talker(slots=slots))
    found.watched = True
    assert found.learn(await found.upstream.ask())
    return found


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


async def test_a_lease_reports_what_concerns_the_pool() -> None:
    one, news = await known(slots=1), list[str]()

    def lease(requirement: Requirement | None = None) -> Lease:
        (slot,) = one.table
        found = Lease(one, slot, requirement or Requirement(""), on_change=lambda: news.append("x"))
        assert held(found) is found
        return found

    reading = lease(Requirement("", long=True))
    reading.first_token()
    reading.first_token()
    assert (len(news), reading.reading) == (1, False)
    reading.done("", None)
    reading.release()
    assert len(news) == 1
    failing = lease()
    failing.failed(gone())
    assert len(news) == 2
    failing.done("", None)
    assert (len(news), one.state) == (3, "up")
    one.draining = True
    failing.release()
    failing.release()  # idempotent
    assert (len(news), one.leases) == (4, set())


async def test_what_was_broken_off_is_released_later_where_it_is_watched() -> None:
    one = await known(slots=2)
    for watched, use in ((True, Use.RELEASING), (False, Use.FREE)):
        one.watched = watched
        lease = Lease(one, next(s for s in one.table if s.use is Use.FREE), Requirement(""))
        lease.sent()
        lease.release()
        assert (lease.slot.use, one.attention.is_set()) == (use, True)


async def test_a_cut_is_an_error_for_whoever_uses_it_and_a_cancellation_is_none() -> None:
    one = await known()
    lease = Lease(one, next(iter(one.table)), Requirement(""))
    lease.cut("has said nothing for 5 s")
    message = "the upstream has said nothing for 5 s"
    with pytest.raises(UpstreamStalled, match=message), lease.use():
        await trio.sleep_forever()
    other = Lease(one, next(iter(one.table)), Requirement(""))
    with trio.move_on_after(0) as scope, other.use():
        await trio.sleep_forever()
    assert scope.cancelled_caught


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
