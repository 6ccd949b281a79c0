"""The warm-up is as long as a server of known times needs it."""

from __future__ import annotations

import math
import statistics

import pytest
import trio
from trio.testing import MockClock

from llcuda_net.batch.targets.interface import Target
from llcuda_net.bench.runs import warmup
from llcuda_net.bench.runs.warmup import LEAST, Settled, alone, near_capacity, settle
from llcuda_net.bench.workload import schedules
from llcuda_net.bench.workload.load import Plan
from llcuda_net.bench.workload.prompts import Prompts
from llcuda_net.errors import ConnectError
from tests.support.bench_targets import Fake, Known, constant, either, exponential

PROMPTS = Prompts(["a"], "one")


def opened(rate: float, seconds: float, seed: int = 1) -> Plan:
    return Plan(schedules.poisson(rate, seconds, seed), PROMPTS)


def closed(workers: int, seconds: float) -> Plan:
    return Plan(schedules.closed(workers, seconds), PROMPTS)


async def settled(server: Fake, rate: float, *, most: float = warmup.MOST) -> Settled:
    targets: dict[str, Target] = {"gateway": server}
    single = await alone(closed(1, 1.0), targets)
    return await settle(lambda seconds: opened(rate, seconds), targets, single, most=most)


async def test_answers_are_asked_for_one_by_one(autojump_clock: MockClock) -> None:
    quick, slow = Fake(), Known(constant(40.0), None)
    assert await alone(closed(9, 1.0), {"gateway": quick}) == pytest.approx([0.014] * 20)
    assert quick.most == 1
    began = trio.current_time()
    assert await alone(closed(9, 1.0), {"gateway": slow}) == pytest.approx([40.0] * 3)
    assert trio.current_time() - began == pytest.approx(120, abs=1)
    broken = Fake()
    broken.fails = lambda number: ConnectError("nobody there")
    assert await alone(closed(1, 1.0), {"gateway": broken}) == []


async def test_it_lasts_for_one_answer_at_least(autojump_clock: MockClock) -> None:
    assert await settled(Fake(), 5) == Settled(LEAST)
    found = await settled(Known(constant(3.0), None), 4)
    assert found.settled
    assert 3.0 < found.warmup < 4.0
    found = await settled(Known(either(0.4, 6.05), None), 8)
    assert found.settled
    assert 6.05 < found.warmup < 8.0
    found = await settled(Known(constant(50.0), None), 0.01)  # of which none comes in the pilot
    assert found.settled
    assert found.warmup == pytest.approx(55.0)


async def test_it_is_longer_near_saturation(autojump_clock: MockClock) -> None:
    """M/M/1 of 10 answers/s: 8 r w² is 0.4 s at half its capacity, 10 s at 0.8, 58 s at 0.9."""
    found = []
    for rate in (5, 8, 9):
        server = [Known(exponential(0.1), 1, seed) for seed in range(5)]
        some = [await settled(each, rate, most=60) for each in server]
        found.append(statistics.median(each.warmup for each in some))
    half, more, near = found
    assert half < 2.0 < more < near


async def test_it_is_as_long_as_a_known_capacity_asks(autojump_clock: MockClock) -> None:
    assert near_capacity(8, 10) == pytest.approx(8.97, abs=0.01)
    assert near_capacity(10, 10) == near_capacity(11, 10) == math.inf
    for floor, expected in ((5.0, 5.0), (50.0, 30.0), (math.inf, LEAST)):
        found = await settle(
            lambda seconds: opened(5, seconds), {"gateway": Fake()}, [0.014] * 20, floor=floor
        )
        assert found == Settled(expected, floor < 30)


async def test_what_is_saturated_never_settles(autojump_clock: MockClock) -> None:
    server = Known(exponential(0.1), 1)
    found = await settled(server, 15)
    assert not found.settled
    assert found.warmup < 2.0  # a longer one would only make its backlog longer
    found = await settled(Known(exponential(0.1), 1, 2), 10)
    assert (found.warmup, found.settled) == (warmup.MOST, False)
    assert server.active == 0


async def test_a_closed_loop_waits_for_two_answers_of_each(autojump_clock: MockClock) -> None:
    server = Known(constant(1.0), 2)
    found = await settle(lambda seconds: closed(8, seconds), {"gateway": server}, [1.0, 1.0])
    assert found.settled
    assert 4.0 < found.warmup < 5.0  # 8 workers share 2 slots


async def test_a_server_that_refuses_all_ends_it(autojump_clock: MockClock) -> None:
    server = Fake()
    server.fails = lambda number: ConnectError("nobody there")
    assert (await settled(server, 20)).warmup == LEAST
