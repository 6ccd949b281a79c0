"""When tokens wait for others, on a clock that is only a number."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest

from llcuda_net.upstream.llama.gathering import (
    MANY,
    MOST,
    MOST_REST,
    PACE,
    TRIAL,
    TRIED,
    Cadence,
    Gathering,
    Member,
)

US, MS = 1e-6, 1e-3


@dataclass
class Poll:
    """What the poller does, at the times of a script of arrivals; reading costs nothing here.

    Attributes:
        batches: of each, when it was handled and how many tokens it had.
        delays: of each token, from its arrival until it was handled.
        waited: seconds that were waited for within steps, all together.
    """

    arrivals: list[tuple[float, Member]]
    streams: int
    gathering: Gathering = field(default_factory=Gathering)
    batches: list[tuple[float, int]] = field(default_factory=list)
    delays: list[float] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    _next: int = 0

    def run(self) -> Poll:
        now = pause = 0.0
        self.arrivals.sort(key=lambda one: one[0])
        while self._next < len(self.arrivals):
            if pause:
                now += max(pause, MS)  # as trio's timers round
            else:
                now = max(now, self.arrivals[self._next][0])
            first = self._next
            began = now
            self.gathering.took(self._read(now), now)
            while wait := self.gathering.wait(now):
                now += wait
                came = self._read(now)
                self.gathering.took(came, now)
                self.gathering.waited(len(came))
            self.waits.append(now - began)
            if self._next > first:
                self.batches.append((now, self._next - first))
            self.delays += [now - at for at, _ in self.arrivals[first : self._next]]
            pause = self.gathering.pace(self.streams, now)
        return self

    def _read(self, now: float) -> list[Member]:
        found = []
        while self._next < len(self.arrivals) and self.arrivals[self._next][0] <= now:
            found.append(self.arrivals[self._next][1])
            self._next += 1
        return found


def members(count: int) -> list[Member]:
    cadence = Cadence()
    return [Member(cadence) for _ in range(count)]


def steps(
    of: list[Member], count: int, period: float, gap: float, start: float = 0.0
) -> list[tuple[float, Member]]:
    """Decode steps of one upstream: each stream's token a gap after the one before."""
    return [
        (start + step * period + place * gap, member)
        for step in range(count)
        for place, member in enumerate(of)
    ]


def test_a_lone_stream_never_waits() -> None:
    poll = Poll(steps(members(1), 300, 3 * MS, 0.0), 1).run()
    assert max(poll.waits) == 0
    assert len(poll.batches) == 300
    assert max(poll.delays) == 0


def test_nor_does_one_that_is_quick() -> None:
    poll = Poll(steps(members(1), 3000, 0.1 * MS, 0.0), 1).run()
    assert max(poll.delays) == 0


def test_the_streams_of_a_step_are_one_batch() -> None:
    poll = Poll(steps(members(8), 200, 3 * MS, 15 * US), 8).run()
    late = [count for at, count in poll.batches if at > 60 * MS]
    assert len(late) <= 1.05 * 180
    assert late.count(8) >= 0.95 * len(late)
    assert max(poll.waits) <= MOST + 1 * US


def test_waits_that_save_no_turn_are_not_made() -> None:
    """While the first tokens are read and parsed, the others come: each step is one turn."""
    of = members(8)
    gathering = Gathering()
    waits = 0
    for step in range(1000):
        now = step * 3 * MS
        gathering.took(of[:1], now)
        gathering.took(of[1:6], now + 20 * US)
        waits += bool(gathering.wait(now + 80 * US))
        if gathering.wait(now + 80 * US):
            gathering.took(of[6:], now + 120 * US)
            gathering.waited(2)
            gathering.pace(8, now + 120 * US)
        else:
            gathering.pace(8, now + 200 * US)
            gathering.took(of[6:], now + 200 * US)  # at once after the batch: no more turns
            gathering.pace(8, now + 220 * US)
    assert waits <= (1000 / TRIAL + 2) * (TRIED + 1)


def test_waits_that_save_turns_are_made() -> None:
    poll = Poll(steps(members(8), 1000, 3 * MS, 30 * US), 8).run()
    late = [count for at, count in poll.batches if at > 300 * MS]
    assert len(late) <= 2.1 * 900  # a wait may be too short for the last one


def test_what_comes_slowly_is_not_waited_for() -> None:
    poll = Poll(steps(members(4), 100, 20 * MS, 2 * MS), 4).run()
    assert max(poll.waits) == 0


def test_a_stream_that_ended_is_not_expected() -> None:
    of = members(8)
    gathering = Gathering()
    for step in range(50):
        for place, member in enumerate(of):
            gathering.took([member], step * 3 * MS + place * 10 * US)
        gathering.pace(8, step * 3 * MS)
    cadence = of[0].cadence
    assert (cadence.came, cadence.expected) == (8, 8)
    cadence.leave(of.pop())
    cadence.leave(of.pop())
    gathering.took(of[:1], 1.0)  # the next step
    assert (cadence.came, cadence.expected) == (1, 6)
    gathering.took(of[1:5], 1.0)
    assert gathering.more()
    cadence.leave(of[5])  # the last one, which had not delivered
    assert not gathering.more()
    assert gathering.wait(1.0) == 0


def test_waits_in_vain_become_rare() -> None:
    of = members(8)
    arrivals = steps(of, 20, 3 * MS, 10 * US)
    # From then on every second step has one stream less.
    for step in range(20, 1020):
        arrivals += [(step * 3 * MS + n * 10 * US, one) for n, one in enumerate(of[: 8 - step % 2])]
    poll = Poll(arrivals, 8).run()
    late = poll.waits[-900:]
    assert sum(wait > 100 * US for wait in late) <= 5 + 900 / MOST_REST * 4


def test_spread_tokens_are_looked_at_once_per_pace() -> None:
    chance = random.Random(1)
    of = members(64)
    phases = [chance.random() * 20 * MS for _ in of]
    arrivals = [
        (s * 20 * MS + at, one) for s in range(100) for at, one in zip(phases, of, strict=True)
    ]
    poll = Poll(arrivals, 64).run()
    late = [count for at, count in poll.batches if at > 200 * MS]
    assert sum(late) / len(late) > 3  # 3.2 tokens come per millisecond
    assert max(poll.delays) <= MS + MOST + 1 * US
    assert sum(poll.waits) < 0.05 * 2.0  # what blocks is rare


def test_few_spread_streams_are_not_paced() -> None:
    chance = random.Random(1)
    of = members(MANY - 1)
    arrivals = [(chance.random() * 2.0, one) for one in of for _ in range(3000)]
    gathering = Gathering()
    poll = Poll(arrivals, MANY - 1, gathering).run()
    assert max(poll.delays) <= MOST + 1 * US


def test_the_pace_ends_with_the_flow() -> None:
    of = members(64)
    busy = [(n * 0.3 * MS, of[n % 64]) for n in range(2000)]
    calm = [(0.7 + n * 2 * MS, of[n % 64]) for n in range(500)]
    poll = Poll(busy + calm, 64).run()
    assert max(poll.delays[:2000]) > PACE / 2
    assert max(poll.delays[-400:]) <= MOST + 1 * US


def test_upstreams_of_different_rhythm_are_each_one_batch_a_step() -> None:
    quick, slow = members(8), members(16)
    arrivals = steps(quick, 1000, 3 * MS, 10 * US)
    arrivals += steps(slow, 130, 22.7 * MS, 10 * US, start=1.1 * MS)
    poll = Poll(arrivals, 24).run()
    late = [count for at, count in poll.batches if at > 0.6]  # what they do is known by then
    assert len(late) <= 1.05 * (2.4 / (3 * MS) + 2.4 / (22.7 * MS))
    assert max(poll.delays[-8000:]) <= MOST + 1 * US


def test_bursts_are_taken_as_they_come() -> None:
    of = members(8)
    arrivals = []
    for burst in range(50):  # each stream ten tokens at once, then silence
        arrivals += steps(of, 10, 20 * US, 1 * US, start=burst * 50 * MS)
    poll = Poll(arrivals, 8).run()
    assert max(poll.delays) <= MS + MOST + 1 * US
    assert sum(count for _, count in poll.batches) == len(arrivals)


@pytest.mark.parametrize("seed", range(20))
def test_no_wait_is_longer_than_it_may_be(seed: int) -> None:
    chance = random.Random(seed)
    groups = [members(chance.randint(1, 12)) for _ in range(chance.randint(1, 5))]
    arrivals = []
    for of in groups:
        at = 0.0
        for _ in range(200):
            at += chance.expovariate(1 / (chance.choice([0.05, 1, 5]) * MS))
            arrivals += [
                (at + chance.random() * 0.4 * MS, one) for one in of if chance.random() < 0.9
            ]
    poll = Poll(arrivals, sum(map(len, groups))).run()
    assert max(poll.waits) <= MOST + 1 * US
    assert max(poll.delays) <= MS + MOST + 1 * US
    assert len(poll.delays) == len(arrivals)
