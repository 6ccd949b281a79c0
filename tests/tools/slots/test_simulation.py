"""The choice of slots, simulated: against the rule before it, a bound, and the best there is."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable

import pytest
import trio

from tools.slots.policies import Chosen, Rule, SimulatedClock
from tools.slots.simulation import (
    MACHINES,
    Closed,
    Given,
    Job,
    Machine,
    Outcome,
    Policy,
    Script,
    Source,
    Talks,
    optimum,
    simulate,
)

#: Steps of 10 ms, and 20 more for the worst split; 1 ms a token that is read; nothing varies.
PLAIN = Machine("plain", 10.0, 0.0, (0.0, 10.0, 20.0), 1.0, noise=0.0)


def chosen(machine: Machine, slots: int, source: Source, answers: int, seed: int = 0) -> Outcome:
    clock = SimulatedClock()

    async def run() -> Outcome:
        return simulate(machine, slots, source, Chosen(slots, clock), answers, seed)

    return trio.run(run, clock=clock)


def test_a_step_takes_as_long_as_its_runs() -> None:
    jobs = [(0.0, Job((), (), 5)), (0.0, Job((), (), 5))]
    read = 2 * 16 * PLAIN.read
    together = simulate(PLAIN, 4, Given(jobs), Script(4, [0, 1]), 2)
    assert together.milliseconds == read + 5 * 10.0
    assert (together.tokens, together.stream_ms) == (10, 2 * together.milliseconds)
    apart = simulate(PLAIN, 4, Given(jobs), Script(4, [0, 2]), 2)
    assert apart.milliseconds == read + 5 * 20.0


def test_what_a_slot_holds_is_not_read_again() -> None:
    first, then = Job((1, 2), (1, 2, 3), 1), Job((1, 2, 3, 4), (), 1)
    for slot, tokens in ((0, 64 + 16), (1, 4 * 64 + 16)):
        jobs = [(0.0, first), (1000.0, then)]
        out = simulate(PLAIN, 2, Given(jobs), Script(2, [0, slot]), 2)
        assert out.milliseconds == 1000.0 + tokens * PLAIN.read + 10.0


def test_the_optimum_is_the_best_of_all_choices() -> None:
    """Far apart, slot 0 is worth reading less; while another one runs at 2, it is not."""
    held = tuple(range(4))
    jobs = [(0.0, Job((), held, 1)), (500.0, Job((), (), 40)), (510.0, Job(held, (), 40))]
    best = optimum(PLAIN, 3, jobs)
    every = [
        simulate(PLAIN, 3, Given(jobs), Script(3, [a, b, c]), 3).stream_ms
        for a in range(3)
        for b in range(3)
        for c in range(3)
        if b != c
    ]
    assert best.stream_ms == min(every)


@pytest.mark.parametrize("streams", [4, 8, 16])
def test_distinct_prompts_are_kept_together(streams: int) -> None:
    """By a factor more tokens/s than the slot that was idle longest gives, on a GPU."""
    machine = MACHINES["h200"]
    ways: dict[str, Callable[[Source], Outcome]] = {
        "chosen": lambda source: chosen(machine, 32, source, 200),
        "old": lambda source: simulate(machine, 32, source, Rule("old", 32), 200),
        "lowest": lambda source: simulate(machine, 32, source, Rule("lowest", 32), 200),
    }
    speed = {name: way(Closed(streams, False, 64, seed=1)).speed for name, way in ways.items()}
    assert speed["chosen"] > 2.5 * speed["old"]
    assert speed["chosen"] > 0.95 * speed["lowest"]


@pytest.mark.parametrize("talks", [False, True])
@pytest.mark.parametrize("streams", [4, 16])
def test_of_a_unified_cache_nothing_is_lost_by_it(streams: int, talks: bool) -> None:
    """Though that it is unified has to be learnt."""
    machine = MACHINES["unified"]
    new = chosen(machine, 32, Closed(streams, talks, 32, seed=1), 300)
    old = simulate(machine, 32, Closed(streams, talks, 32, seed=1), Rule("old", 32), 300)
    assert new.speed > 0.98 * old.speed


@pytest.mark.parametrize("name", ["cpu", "unified"])
def test_conversations_are_kept_where_reading_them_again_costs_more(name: str) -> None:
    """Not on the slot of another one that begins alike, which is then lost."""
    machine = MACHINES[name]
    new = chosen(machine, 32, Closed(8, True, 64, seed=1), 200)
    old = simulate(machine, 32, Closed(8, True, 64, seed=1), Rule("old", 32), 200)
    assert new.speed > 1.1 * old.speed
    assert new.found / new.asked > old.found / old.asked


@pytest.mark.parametrize("name", ["h200", "cpu", "unified"])
def test_it_is_near_the_best_that_could_be_done(name: str) -> None:
    machine, shares = MACHINES[name], dict[str, list[float]](chosen=[], old=[])
    for seed in range(6):
        jobs = few(machine, seed)
        best = optimum(machine, 5, jobs, seed)
        out = chosen(machine, 5, Given(jobs), len(jobs), seed)
        rule: Policy = Rule("old", 5)
        old = simulate(machine, 5, Given(jobs), rule, len(jobs), seed)
        assert min(out.stream_ms, old.stream_ms) >= best.stream_ms - 1e-6
        shares["chosen"].append(best.stream_ms / out.stream_ms)
        shares["old"].append(best.stream_ms / old.stream_ms)
    assert statistics.fmean(shares["chosen"]) >= 0.95 * statistics.fmean(shares["old"])


def few(machine: Machine, seed: int) -> list[tuple[float, Job]]:
    """Six requests of three conversations, some at the same time."""
    chance = random.Random(seed)
    talks, at, jobs = Talks(chance, 3, system=2, turn=1), 0.0, list[tuple[float, Job]]()
    for _ in range(6):
        at += chance.expovariate(1 / (10 * machine.whole))
        jobs.append((at, talks.job(chance.randrange(3), chance.randint(4, 20))))
    return jobs
