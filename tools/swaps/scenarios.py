"""Who asks which model, and when: the situations in which the policy is measured."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from llcuda_net.models.need import Budget, Need
from llcuda_net.models.serving.policy import RULES, Rules
from tools.swaps.oracle import clairvoyant, least_loads
from tools.swaps.world import Model, Request, World

GIB = 1 << 30
#: Seconds in which a process starts, and bytes of a model that are read per second after that.
_START, _RATE = 1.0, 2 * GIB
#: Seconds that a request generates: lognormal, at most.
_MEDIAN, _SIGMA, LONGEST = 5.0, 0.8, 60.0


@dataclass(frozen=True, slots=True)
class Figures:
    """What came of a scenario.

    Attributes:
        requests: that were served.
        p50, p99, longest: seconds that they waited for a slot.
        worst_claim: seconds for which the first request of a model waited until it was loaded.
        bound: what that may be at most.
        swaps_per_hour: loads.
        least_per_hour: the fewest loads in which what came could be served in its order.
        clairvoyant_per_hour: those of somebody who knows the future.
        served_per_hour: the fewest loads for the order in which it was served in fact.
        requests_per_load: how many requests were served for each load.
        late: requests that waited longer than as many rounds as there were others before them.
    """

    scenario: str
    seed: int
    requests: int
    p50: float
    p99: float
    longest: float
    worst_claim: float
    bound: float
    swaps_per_hour: float
    least_per_hour: float
    clairvoyant_per_hour: float
    served_per_hour: float
    requests_per_load: float
    late: int

    def document(self) -> dict[str, object]:
        """As JSON has it."""
        return asdict(self)


class Lab:
    """A world and those who use it.

    Args:
        sizes: of the models, in GiB.
        budget: for all of them, in GiB.
    """

    def __init__(
        self,
        name: str,
        seed: int,
        sizes: Sequence[float],
        budget: float,
        rules: Rules,
        slots: int = 4,
    ) -> None:
        self.name, self.seed = name, seed
        self.random = random.Random(f"{name} {seed}")
        self.names = [f"m{index:02}" for index in range(len(sizes))]
        self.sizes = {name: int(size * GIB) for name, size in zip(self.names, sizes, strict=True)}
        self.budget = int(budget * GIB)
        self.rules = rules
        models = [
            Model(name, Need(GIB // 2, size), takes=_START + size / _RATE, slots=slots)
            for name, size in self.sizes.items()
        ]
        self.world = World(models, Budget(gpu=self.budget), rules=rules)

    def seconds(self, median: float = _MEDIAN) -> float:
        """How long a request generates."""
        return min(LONGEST, self.random.lognormvariate(0, _SIGMA) * median)

    def user(
        self,
        choose: Callable[[], str],
        think: float,
        *,
        begins: float | None = None,
        seconds: Callable[[], float] | None = None,
    ) -> None:
        """Somebody who asks, reads, and asks again; for ever."""
        world = self.world

        def ask(_: Request | None = None) -> None:
            world.submit(choose(), (seconds or self.seconds)(), pause)

        def pause(_: Request) -> None:
            world.at(world.now + (self.random.expovariate(1 / think) if think else 0.0), ask)

        at = self.random.uniform(0, think) if begins is None else begins
        world.at(at, ask)

    def bound(self, waited_for: int) -> float:
        """Seconds for which somebody may wait until a model is loaded."""
        longest_load = max(one.takes for one in self.world.models.values())
        quantum = max(self.rules.least_quantum, self.rules.quantum_loads * 2 * longest_load)
        step = quantum + LONGEST + self.world.unload_takes + longest_load
        return self.rules.overdue + (waited_for + 1) * step

    def late(self, request: Request) -> bool:
        """Whether a request waited for longer than it may: so many start after each load."""
        rounds = math.ceil((request.ahead + 1) / self.world.models[request.model].slots)
        return request.wait > rounds * self.bound(len(self.world.models))

    def figures(self, hours: float) -> Figures:
        """Let it run, and count."""
        world = self.world
        world.run(hours * 3600)
        waits = sorted(one.wait for one in world.done) or [0.0]
        # Those who wait still have waited as well.
        claims = [*world.claims]
        claims += [world.now - m.waiting[0].submitted for m in world.models.values() if m.waiting]
        least = least_loads(world.arrivals, self.sizes, self.budget)
        return Figures(
            scenario=self.name,
            seed=self.seed,
            requests=len(world.done),
            p50=round(waits[len(waits) // 2], 2),
            p99=round(waits[len(waits) * 99 // 100], 2),
            longest=round(waits[-1], 2),
            worst_claim=round(max(claims, default=0.0), 2),
            bound=round(self.bound(len(world.models)), 2),
            swaps_per_hour=round(len(world.loads) / hours, 1),
            least_per_hour=round(least / hours, 1),
            clairvoyant_per_hour=round(
                clairvoyant(world.arrivals, self.sizes, self.budget) / hours, 1
            ),
            served_per_hour=round(clairvoyant(world.starts, self.sizes, self.budget) / hours, 1),
            requests_per_load=round(len(world.done) / max(1, len(world.loads)), 1),
            late=sum(self.late(one) for one in world.done),
        )


def _zipf(count: int, exponent: float = 1.0) -> list[float]:
    return [1 / (rank + 1) ** exponent for rank in range(count)]


def sizes_of(seed: int, count: int) -> list[float]:
    """Models of 1.5 to 20 GiB, in no order."""
    sizes = [round(1.5 * (20 / 1.5) ** (index / (count - 1)), 1) for index in range(count)]
    random.Random(seed).shuffle(sizes)
    return sizes


def zipf(
    seed: int, hours: float, rules: Rules = RULES, *, think: float = 60.0, stick: float = 0.7
) -> Figures:
    """Fifty users, twenty models, room for about four; few models are popular.

    Args:
        stick: how likely somebody asks the same model again.
    """
    sizes = sizes_of(seed, 20)
    lab = Lab("zipf", seed, sizes, 4 * sum(sizes) / len(sizes), rules)
    weights = _zipf(20)
    for _ in range(50):
        mine = lab.random.choices(lab.names, weights)

        def choose(mine: list[str] = mine) -> str:
            if lab.random.random() >= stick:
                mine[:] = lab.random.choices(lab.names, weights)
            return mine[0]

        lab.user(choose, think)
    return lab.figures(hours)


def alternate(seed: int, hours: float, rules: Rules = RULES, *, think: float = 1.0) -> Figures:
    """Two programs, two models, room for one; each asks again at once."""
    lab = Lab("alternate", seed, [8, 8], 10, rules)
    for name in lab.names:
        lab.user(lambda name=name: name, think)  # type: ignore[misc]
    return lab.figures(hours)


def alternate_readers(seed: int, hours: float, rules: Rules = RULES) -> Figures:
    """The same with people, who read for 20 s."""
    lab = Lab("alternate, reading", seed, [8, 8], 10, rules)
    for name in lab.names:
        lab.user(lambda name=name: name, 20.0)  # type: ignore[misc]
    return lab.figures(hours)


def burst(seed: int, hours: float, rules: Rules = RULES) -> Figures:
    """Every ten minutes 60 requests for ten models at once, in mixed order; room for four."""
    lab = Lab("burst", seed, [5] * 10, 20, rules)
    world = lab.world

    def arrive() -> None:
        names = lab.names * 6
        lab.random.shuffle(names)
        for name in names:
            world.submit(name, lab.seconds())
        world.at(world.now + 600, arrive)

    world.at(0.0, arrive)
    return lab.figures(hours)


def scan(seed: int, hours: float, rules: Rules = RULES) -> Figures:
    """One hot model with ten users, and somebody who tries all others in turn; room for two."""
    lab = Lab("hot and scan", seed, [8] * 12, 17, rules)
    for _ in range(10):
        lab.user(lambda: lab.names[0], 20.0)
    others = itertools.cycle(lab.names[1:])
    lab.user(lambda: next(others), 5.0)
    return lab.figures(hours)


def big(seed: int, hours: float, rules: Rules = RULES) -> Figures:
    """Two small models in use all along, and a big one that needs the place of both."""
    lab = Lab("big", seed, [8, 8, 16], 17, rules)
    for name in lab.names[:2] * 3:
        lab.user(lambda name=name: name, 0.5)  # type: ignore[misc]
    lab.user(lambda: lab.names[2], 30.0)
    return lab.figures(hours)


def flood(seed: int, hours: float, rules: Rules = RULES) -> Figures:
    """Eight models with endless queues, room for two, and generations of up to a minute."""
    lab = Lab("flood", seed, [4, 8, 4, 8, 4, 8, 4, 12], 16, rules, slots=2)
    for name in lab.names * 5:
        lab.user(lambda name=name: name, 0.0, seconds=lambda: lab.seconds(15.0))  # type: ignore[misc]
    return lab.figures(hours)


def convoy(seed: int, hours: float, rules: Rules = RULES) -> Figures:
    """Each request is for the model that has left last: the worst that can be asked of a cache."""
    lab = Lab("convoy", seed, [5] * 5, 20, rules)
    world = lab.world

    def choose() -> str:
        gone = [m for m in world.models.values() if m.presence.value == "unloaded"]
        return max(gone, key=lambda m: m.since).name if gone else lab.random.choice(lab.names)

    for _ in range(4):
        lab.user(choose, 1.0)
    return lab.figures(hours)


def outranked(seed: int, hours: float, rules: Rules = RULES) -> Figures:
    """Six models with endless queues, room for one; the fair queue always puts one of them last."""
    lab = Lab("outranked", seed, [8] * 6, 10, rules, slots=2)
    lab.world.rank = lambda one: 1.0 if one.name == "m00" else 0.0
    for name in lab.names * 3:
        lab.user(lambda name=name: name, 0.0)  # type: ignore[misc]
    return lab.figures(hours)


SCENARIOS: dict[str, Callable[..., Figures]] = {
    "zipf": zipf,
    "alternate": alternate,
    "alternate-readers": alternate_readers,
    "burst": burst,
    "scan": scan,
    "big": big,
    "flood": flood,
    "convoy": convoy,
    "outranked": outranked,
}
