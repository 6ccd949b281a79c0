"""What a lease reports to its backend, and how it ends."""

from __future__ import annotations

import pytest
import trio

from llcuda_net.errors import UpstreamStalled
from llcuda_net.upstream.interface import CompletionEvent, Requirement, Timings
from llcuda_net.upstream.slots.lease import Lease, held
from llcuda_net.upstream.slots.table import Use
from tests.support.upstream.scripted_upstream import gone, known


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
    for _ in range(10):
        await together((0, 1), 0.002)
        await together((0, 4), 0.012)
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
