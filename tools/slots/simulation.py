"""A llama-server of which steps and prompts take what was measured: which slots, decides how long.

All active slots make one token a step. A step takes as long as its batches, of which there are as
many as runs of consecutive numbers among the active slots; what is read of new prompts comes on
top, and all streams wait for it. Who chooses is told what a server sees, and nothing else.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from llcuda_net.upstream.prompts.prefix_cache import TOKENS_A_BLOCK, Chain, shared
from llcuda_net.upstream.slots.choice import runs_of, spread

#: Tokens of a prompt that are read in any case, behind its whole blocks.
_REST = 16


@dataclass(frozen=True)
class Machine:
    """How long things take, in milliseconds.

    Attributes:
        whole: a step of one slot; each: of each further one.
        split: the worst split, or a step's additional time by the number of runs, from one on.
        read: a token of a prompt.
        noise: standard deviation of a step's logarithm.
    """

    name: str
    whole: float
    each: float
    split: float | tuple[float, ...]
    read: float
    noise: float = 0.05

    def step_ms(self, active: int, runs: int) -> float:
        """A step of so many slots in so many runs."""
        if isinstance(self.split, tuple):
            more = self.split[min(runs, len(self.split)) - 1]
        else:
            more = self.split * spread(runs)
        return self.whole + self.each * (active - 1) + more


#: As measured with SmolLM2-135M, for two runs and more between what was measured; and one that
#: reads all its weights for each batch. "unified": with --kv-unified.
MACHINES = {
    one.name: one
    for one in (
        Machine("h200", 2.8, 0.015, (0.0, 10.0, 10.0, 13.0, 15.0, 17.0), 0.02),
        Machine("weights", 8.0, 0.05, (0.0, 8.0, 16.0, 24.0, 32.0, 40.0, 48.0, 56.0), 0.1),
        Machine("cpu", 15.0, 2.0, 14.0, 5.0),
        Machine("unified", 15.0, 2.0, 0.0, 5.0),
    )
}


class Job(NamedTuple):
    """One request.

    Attributes:
        prompt: its whole blocks.
        held: those that its slot holds when it has been answered.
        answer: tokens.
        stream: of those that ask again.
    """

    prompt: Chain
    held: Chain
    answer: int
    stream: int = 0


class Source(Protocol):
    """Where requests come from."""

    def first(self) -> list[tuple[float, Job]]:
        """With the milliseconds at which they come, whatever is answered."""

    def then(self, job: Job, now: float) -> tuple[float, Job] | None:
        """What comes because one was answered."""


class Policy(Protocol):
    """Chooses slots."""

    def choose(self, job: Job, now: float) -> int:
        """A free slot for a request that begins now."""

    def made(self, slot: int, now: float) -> None:
        """A slot has made a token."""

    def ended(self, slot: int, job: Job, read: tuple[int, float], now: float) -> None:
        """A request has ended; of its prompt so many tokens were read in so many milliseconds."""


@dataclass
class Outcome:
    """What a simulation gave.

    Attributes:
        tokens: of all answers.
        stream_ms: for which streams were at work, added up.
        found: tokens of prompts that slots held; asked: tokens of prompts.
        milliseconds: from the first to the last.
    """

    tokens: int = 0
    stream_ms: float = 0.0
    found: float = 0.0
    asked: float = 0.0
    milliseconds: float = 0.0

    @property
    def speed(self) -> float:
        """Tokens a second of a stream that is at work."""
        return self.tokens / self.stream_ms * 1e3 if self.stream_ms else 0.0


@dataclass
class _Running:
    job: Job
    left: int
    read: tuple[int, float]


def simulate(
    machine: Machine,
    slots: int,
    source: Source,
    policy: Policy | None,
    answers: int,
    seed: int = 0,
) -> Outcome:
    """Serve so many requests; those that find no free slot wait in their order.

    Args:
        policy: None: the bound, that no choice can beat: one run, and all that was ever held.
    """
    chance, out, now = random.Random(seed), Outcome(), 0.0
    coming = [(at, number, job) for number, (at, job) in enumerate(source.first())]
    heapq.heapify(coming)
    number, begun = len(coming), 0
    held: dict[int, Chain] = {}
    ever: set[int] = set()
    running: dict[int, _Running] = {}
    while running or (coming and begun < answers):
        reading = 0.0
        while coming and coming[0][0] <= now and len(running) < slots and begun < answers:
            job = heapq.heappop(coming)[2]
            begun += 1
            if policy is None:
                slot = next(one for one in range(slots) if one not in running)
                blocks = next((n for n, one in enumerate(job.prompt) if one not in ever), None)
                blocks = len(job.prompt) if blocks is None else blocks
            else:
                slot = policy.choose(job, now / 1e3)
                blocks = shared(held.get(slot, ()), job.prompt)
            assert slot not in running
            tokens = round((len(job.prompt) - blocks) * TOKENS_A_BLOCK) + _REST
            out.found += blocks * TOKENS_A_BLOCK
            out.asked += len(job.prompt) * TOKENS_A_BLOCK + _REST
            reading += tokens * machine.read
            running[slot] = _Running(job, job.answer, (tokens, tokens * machine.read))
        if not running:
            now = max(now, coming[0][0])
            continue
        runs = 1 if policy is None else runs_of(sorted(running))
        step = machine.step_ms(len(running), runs) * chance.lognormvariate(0.0, machine.noise)
        now += reading + step
        out.stream_ms += (reading + step) * len(running)
        out.tokens += len(running)
        for slot, one in list(running.items()):
            if policy is not None:
                policy.made(slot, now / 1e3)
            one.left -= 1
            if one.left:
                continue
            del running[slot]
            held[slot] = one.job.held
            ever.update(one.job.held)
            if policy is not None:
                policy.ended(slot, one.job, one.read, now / 1e3)
            following = source.then(one.job, now)
            if following is not None:
                number += 1
                heapq.heappush(coming, (following[0], number, following[1]))
    out.milliseconds = now
    return out


# -- where requests come from ----------------------------------------------------------------------


class Talks:
    """Conversations that begin alike, or prompts that nothing connects.

    Args:
        count: conversations; 0: none, each prompt is of its own.
        system: blocks that all begin with.
        turn: blocks of a question.
        turns: before a conversation begins anew.
    """

    def __init__(
        self, chance: random.Random, count: int, system: int = 16, turn: int = 2, turns: int = 8
    ) -> None:
        self._chance = chance
        self._count, self._turn, self._turns = count, turn, turns
        self._system = tuple(self._blocks(system))
        self._said: dict[int, Chain] = {}

    def _blocks(self, count: int) -> Iterator[int]:
        return (self._chance.getrandbits(60) for _ in range(count))

    def job(self, stream: int, answer: int) -> Job:
        """The next request; `stream` is the conversation's number, where there are any."""
        before = self._said.get(stream, self._system) if self._count else ()
        if len(before) > len(self._system) + self._turns * (self._turn + 1):
            before = self._system
        prompt = (*before, *self._blocks(self._turn))
        held = (*prompt, *self._blocks(round(answer / TOKENS_A_BLOCK)))
        if self._count:
            self._said[stream] = held
        return Job(prompt, held, answer, stream)


class Closed:
    """So many streams that ask again as soon as they are answered, each with two conversations."""

    def __init__(
        self, streams: int, talks: bool, mean: int, seed: int, gap_ms: float = 3.0
    ) -> None:
        self._chance = random.Random(seed)
        self._talks = Talks(self._chance, 2 * streams if talks else 0)
        self._streams, self._mean, self._gap = streams, mean, gap_ms

    def _job(self, stream: int) -> Job:
        return self._talks.job(stream, _length(self._chance, self._mean))

    def first(self) -> list[tuple[float, Job]]:
        """See Source."""
        return [(self._gap * n, self._job(n)) for n in range(self._streams)]

    def then(self, job: Job, now: float) -> tuple[float, Job]:
        """See Source."""
        return now + self._gap, self._job((job.stream + self._streams) % (2 * self._streams))


class Poisson:
    """Requests that come by themselves, so many at work at once in the mean.

    There are more conversations than slots, and each goes on after a while.
    """

    def __init__(
        self, machine: Machine, streams: int, talks: bool, mean: int, seed: int, answers: int
    ) -> None:
        chance, people = random.Random(seed), streams + 32
        makes = Talks(chance, people if talks else 0)
        interval = machine.step_ms(streams, 1) * mean / streams
        at, self._jobs = 0.0, list[tuple[float, Job]]()
        for _ in range(answers):
            at += chance.expovariate(1 / interval)
            stream = chance.randrange(people)
            self._jobs.append((at, makes.job(stream, _length(chance, mean))))

    def first(self) -> list[tuple[float, Job]]:
        """See Source."""
        return self._jobs

    def then(self, job: Job, now: float) -> None:
        """See Source."""


class Given:
    """Requests that are given, with when they come."""

    def __init__(self, jobs: Sequence[tuple[float, Job]]) -> None:
        self._jobs = list(jobs)

    def first(self) -> list[tuple[float, Job]]:
        """See Source."""
        return self._jobs

    def then(self, job: Job, now: float) -> None:
        """See Source."""


def _length(chance: random.Random, mean: int) -> int:
    return max(1, round(mean * chance.uniform(0.5, 1.5)))


# -- the best that could be done -----------------------------------------------------------------


class Script:
    """Chooses what it was told; where that ends, the lowest free slot, and notes what was free."""

    def __init__(self, slots: int, choices: Sequence[int]) -> None:
        self._choices = iter(choices)
        self._free = set(range(slots))
        self.free: list[list[int]] = []

    def choose(self, job: Job, now: float) -> int:
        """See Policy."""
        self.free.append(sorted(self._free))
        slot = next(self._choices, min(self._free))
        self._free.remove(slot)
        return slot

    def made(self, slot: int, now: float) -> None:
        """See Policy."""

    def ended(self, slot: int, job: Job, read: tuple[int, float], now: float) -> None:
        """See Policy."""
        self._free.add(slot)


def optimum(
    machine: Machine, slots: int, jobs: Sequence[tuple[float, Job]], seed: int = 0
) -> Outcome:
    """The best of all choices, by trying each, with all that will come known: for few requests."""
    best: Outcome | None = None
    choices: list[int] = []
    run: Callable[[Script], Outcome] = lambda script: simulate(  # noqa: E731
        machine, slots, Given(jobs), script, len(jobs), seed
    )
    while True:
        script = Script(slots, choices)
        found = run(script)
        if best is None or found.stream_ms < best.stream_ms:
            best = found
        taken = [*choices, *(free[0] for free in script.free[len(choices) :])]
        # The next sequence: of the last choice that could have been a higher one, the next higher.
        while taken and not (higher := [s for s in script.free[len(taken) - 1] if s > taken[-1]]):
            taken.pop()
        if not taken:
            return best
        choices = [*taken[:-1], higher[0]]
