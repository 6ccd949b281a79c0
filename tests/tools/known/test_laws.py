"""The formulas of the known servers, against simulations under virtual time."""

from __future__ import annotations

import heapq
import math
import random

import pytest

from tools.synthetic.known.laws import atoms, exponential
from tools.synthetic.known.queueing import all_busy, erlang_c, response
from tools.synthetic.known.service import Service
from tools.synthetic.known.stalls import Stalls
from tools.synthetic.known.truth import truth

NO_SERVICE = ["", "none:1", "fixed", "fixed:x", "fixed:0", "fixed:inf", "fixed:1:2", "bimodal:1"]
NO_SERVICE += ["bimodal:1:2:1", "stall:5:10:5", "gaps:1:2", "gaps:1:2:1", "exponential:-1"]


def simulated(
    rate: float, mean: float, slots: int, requests: int, part: float = 1.0
) -> list[float]:
    """Response times of a queue of Poisson arrivals, first come, first served."""
    rng = random.Random(7)
    free, now, out = [0.0] * slots, 0.0, []
    for _ in range(requests):
        now += rng.expovariate(rate)
        begin = max(now, heapq.heappop(free))
        work = rng.expovariate(1 / mean)
        heapq.heappush(free, begin + work)
        out.append(begin + part * work - now)
    return sorted(out)


@pytest.mark.parametrize(
    ("rate", "slots", "part"),
    [(5, 1, 1.0), (8, 1, 1.0), (8, 1, 0.0625), (24, 3, 1.0), (20, 4, 0.5)],
)
def test_the_response_time_of_mmc(rate: float, slots: int, part: float) -> None:
    found = simulated(rate, 0.1, slots, 200_000, part)
    law = response(rate, 0.1, slots, part)
    assert sum(found) / len(found) == pytest.approx(law.mean, rel=0.04)
    for share in (0.5, 0.9, 0.99):
        at = found[math.ceil(share * len(found)) - 1]
        assert at == pytest.approx(law.quantile(share), rel=0.06)


def test_mm1_is_exponential() -> None:
    law = response(8, 0.1, 1)
    assert law.mean == pytest.approx(0.5)
    for share in (0.5, 0.9, 0.99):
        assert law.quantile(share) == pytest.approx(-0.5 * math.log(1 - share))


def test_mmc_where_both_rates_are_equal() -> None:
    # a = 1 / 0.1 = 10 and b = 2 / 0.1 - 10 = 10: the formula's own limit.
    at, near = response(10, 0.1, 2), response(10 + 1e-5, 0.1, 2)
    assert at.quantile(0.99) == pytest.approx(near.quantile(0.99), rel=1e-5)


def test_erlang_c() -> None:
    assert erlang_c(1, 0.8) == pytest.approx(0.8)  # M/M/1: the load
    assert erlang_c(2, 1.0) == pytest.approx(1 / 3)
    with pytest.raises(ValueError, match="without end"):
        erlang_c(2, 2.0)


def test_poissons_tail() -> None:
    assert all_busy(1, 0.5) == pytest.approx(1 - math.exp(-0.5))
    assert all_busy(2, 0.5) == pytest.approx(1 - 1.5 * math.exp(-0.5))
    assert all_busy(256, 12) < 1e-100
    assert all_busy(256, 0) == 0


def test_quantiles_of_atoms_are_the_atoms() -> None:
    law = atoms({0.4: 0.5, 6.05: 0.5})
    assert law.mean == pytest.approx(3.225)
    assert law.quantile(0.5) == pytest.approx(0.4)
    assert law.quantile(0.500001) == pytest.approx(6.05)
    assert law.quantile(0.0001) == pytest.approx(0.4)
    assert law.scaled(1 / 3).quantile(0.9) == pytest.approx(6.05 / 3)
    assert law.scaled(0).quantile(0.9) == 0
    assert exponential(2).quantile(0.5) == pytest.approx(2 * math.log(2))


def test_a_clock_that_stands_still() -> None:
    clock = Stalls(2, 10)  # runs for 8 s, stands for 2 s
    assert clock.done(1, 3) == 4
    assert clock.done(7, 1) == 8
    assert clock.done(7, 3) == 12
    assert clock.done(9, 3) == 13
    assert clock.done(9, 8) == 18
    assert clock.done(9, 8.5) == 20.5
    assert clock.done(9, 0) == 9


def test_the_law_of_stalls() -> None:
    clock, work, count = Stalls(2, 10), 0.5, 20_000
    found = sorted(
        clock.done(begin, work) - begin for begin in (10 * n / count for n in range(count))
    )
    law = clock.law(work)
    assert sum(found) / count == pytest.approx(law.mean, rel=1e-3)
    for share in (0.5, 0.7, 0.9, 0.94, 0.99):
        assert found[math.ceil(share * count) - 1] == pytest.approx(law.quantile(share), rel=1e-2)


@pytest.mark.parametrize(
    "text",
    ["fixed:3", "bimodal:0.4:6.05", "exponential:0.1", "stall:1:10:0.2", "gaps:0.02:0.3:0.05"],
)
@pytest.mark.parametrize("first", [None, 0.4])
def test_what_is_drawn_follows_the_law(text: str, first: float | None) -> None:
    if text.startswith("gaps") and first is not None:
        return
    service, rng, tokens, count = Service.parse(text, first), random.Random(3), 8, 20_000
    drawn = [service.draw(rng, tokens) for _ in range(count)]
    assert all(len(answer) == tokens and answer == sorted(answer) for answer in drawn)
    sides = [
        (service.law(tokens), sorted(answer[-1] for answer in drawn)),
        (service.first_law(tokens), sorted(answer[0] for answer in drawn)),
    ]
    if (gaps := service.gap_law(tokens)) is not None:
        sides.append((gaps, sorted(a[n] - a[n - 1] for a in drawn for n in range(1, tokens))))
    for law, found in sides:
        assert sum(found) / len(found) == pytest.approx(law.mean, rel=0.05)
        for share in (0.25, 0.75, 0.9):
            at = found[math.ceil(share * len(found)) - 1]
            assert at == pytest.approx(law.quantile(share), rel=0.05)


def test_one_seed_gives_one_sequence() -> None:
    service = Service.parse("exponential:0.1")
    one, two, other = (random.Random(seed) for seed in (1, 1, 2))
    drawn = [[service.draw(rng, 4) for _ in range(5)] for rng in (one, two, other)]
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize("text", NO_SERVICE)
def test_what_is_no_service(text: str) -> None:
    with pytest.raises(ValueError):
        Service.parse(text)


def test_the_truth_of_answers_that_never_wait() -> None:
    found = truth(Service.parse("fixed:3"), 256, 4, 16)
    assert found["capacity"] == pytest.approx(256 / 3)
    assert found["response"] == pytest.approx({"mean": 3, "p50": 3, "p90": 3, "p99": 3})
    assert found["first"]["p99"] == pytest.approx(3 / 16)
    assert found["gap"]["p50"] == pytest.approx(3 / 16)
    assert found["load"] == pytest.approx(12 / 256)


def test_no_truth_without_a_formula() -> None:
    fixed = Service.parse("fixed:3")
    assert truth(fixed, 256, None, 16)["why"] == "no rate was given"
    assert "overloaded" in truth(fixed, 256, 90, 16)["why"]
    waits = truth(fixed, 4, 1, 16)
    assert "no formula" in waits["why"]
    assert waits["response"] is None
    assert truth(Service.parse("exponential:3"), 4, 1, 16)["response"] is not None


def test_the_truth_of_stalls_and_of_gaps() -> None:
    stall = truth(Service.parse("stall:1:10:0.2"), 256, 8, 16)
    assert stall["response"]["p50"] == pytest.approx(0.2)
    assert stall["response"]["p90"] == pytest.approx(0.2 + 0.2, rel=1e-6)  # of the uniform part
    assert stall["response"]["p99"] == pytest.approx(1.2)
    assert stall["gap"] is None
    gaps = truth(Service.parse("gaps:0.02:0.3:0.05"), 256, 2, 16)
    assert gaps["gap"] == pytest.approx({"mean": 0.034, "p50": 0.02, "p90": 0.02, "p99": 0.3})
    assert gaps["response"]["mean"] == pytest.approx(16 * 0.034)
