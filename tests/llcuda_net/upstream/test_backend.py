"""A backend as state, with no I/O, and the leases of its slots."""

from __future__ import annotations

import pytest
import structlog
import trio

from llcuda_net.config.upstreams import EMBEDDINGS
from llcuda_net.errors import UpstreamStalled, request_error
from llcuda_net.upstream.backend import Backend, Lease, held
from llcuda_net.upstream.circuit_breaker import THRESHOLD
from llcuda_net.upstream.health_check import HealthCheck
from llcuda_net.upstream.interface import DOWN, CompletionEvent, Requirement, Timings
from llcuda_net.upstream.pool import Pool
from llcuda_net.upstream.slots.table import Use
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


class Made:
    """What a lease works at, with tokens at a fixed pace."""

    def __init__(self, step: float, earlier: int = 0) -> None:
        self.step, self.earlier = step, earlier
        self.first_token: float | None = None
        self.begun = 0.0
        self.times = self

    def begin(self) -> None:
        self.begun = self.first_token = trio.current_time()

    @property
    def made(self) -> int:
        if self.first_token is None:
            return self.earlier
        return self.earlier + 1 + round((self.progress - self.begun) / self.step)

    @property
    def progress(self) -> float:
        return 0.0 if self.first_token is None else trio.current_time()


async def test_how_fast_it_decodes_is_learnt_from_its_leases(autojump_clock: object) -> None:
    """As of a real one: 2 ms a step of neighbours, 12 where there are two runs."""
    one = await known(slots=8)
    slots = list(one.table)

    async def together(numbers: tuple[int, int], step: float, earlier: int = 0) -> None:
        leases = [Lease(one, slots[number], Requirement("")) for number in numbers]
        for lease in leases:
            work = Made(step, earlier)
            with lease.use(work):
                lease.sent()
                await trio.sleep(0.1)  # it reads, and nothing of that is a step
                work.begin()
        await trio.sleep(20 * step)
        for lease in leases:
            lease.done("", None)
            lease.release()

    assert one.best(Requirement("")) == (slots[0], 0)
    with structlog.testing.capture_logs() as lines:
        for _ in range(10):
            await together((0, 1), 0.002)
            await together((0, 4), 0.012)
    told = [line for line in lines if line["event"] == "slots_learnt"]
    assert [(line["upstream"], line["kv_cache"]) for line in told] == [("a", "separate")]
    learnt = one.speeds.steps.split_ms
    assert 15 < learnt <= 20
    await together((0, 4), 0.001, earlier=7)  # when the first of these came is not known
    assert one.speeds.steps.split_ms == learnt
    one.process_lost()
    assert one.speeds.steps.split_ms < 15


async def test_what_it_reports_of_an_answer_is_learnt() -> None:
    one = await known(slots=2)
    lease = Lease(one, next(iter(one.table)), Requirement(""))
    timings = Timings(prompt_n=100, prompt_ms=50.0)
    lease.done("", CompletionEvent(stop=True, tokens_predicted=28, timings=timings))
    outlook = one.speeds.outlook(None, 1.0)
    assert outlook.read_ms == 0.5
    assert outlook.steps == pytest.approx(118)


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
