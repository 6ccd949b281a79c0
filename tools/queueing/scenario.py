"""Fifty users of all weights who always have work waiting, on upstreams that come and go."""

from __future__ import annotations

import functools
import random
from typing import Any

from llcuda_net.config.users import Priority, User
from tools.queueing.simulation import Fifo, Shares, Simulation, Upstream, shares

#: By how much of their share somebody may be off, beyond one largest request.
OFF = 0.05
#: Seconds after which the queue has filled.
FILLED = 300.0


def length(chance: random.Random, mean: float) -> int:
    """Of an answer: most are short, some very long."""
    return min(1024, max(1, int(chance.lognormvariate(0.0, 1.0) * mean)))


def flood(
    simulation: Simulation, user: User, mean: float, waiting: int, **slot_request: Any
) -> None:
    """Somebody who has so many requests there all along."""
    chance = random.Random(f"{user.name} {slot_request}")

    def one() -> None:
        prompt = chance.randrange(10, 200)
        size = length(chance, mean)
        simulation.submit(user, size, one, prompt_tokens=prompt, **slot_request)

    for _ in range(waiting):
        one()


def come_and_go(simulation: Simulation, chance: random.Random) -> None:
    """Upstreams go away and come back, with more slots or fewer."""

    def flap(upstream: Upstream) -> None:
        if upstream.up:
            simulation.fail(upstream)
            simulation.after(chance.uniform(5, 100), lambda: flap(upstream))
        else:
            upstream.slots = max(1, upstream.slots + chance.choice((-1, 0, 1)))
            simulation.back(upstream)
            simulation.after(chance.uniform(50, 800), lambda: flap(upstream))

    for upstream in simulation.upstreams:
        simulation.after(chance.uniform(0, 800), functools.partial(flap, upstream))


def fifty_users(queue: type[Fifo] | None, seed: int, until: float) -> tuple[Simulation, list[User]]:
    """Two models on four upstreams that come and go; users of all weights, some with limits.

    Those returned have work waiting for the model "a" all along.
    """
    chance = random.Random(seed)
    simulation = Simulation(
        [Upstream("a", 4), Upstream("a", 6, 40.0), Upstream("b", 3, 80.0), Upstream("b", 2, 30.0)],
        queue,
    )
    for upstream in simulation.upstreams:
        upstream.up = False  # until all are there: the first would have had all slots
    users = [User(f"u{i}", weight=(1.0, 2.0, 4.0)[i % 3]) for i in range(50)]
    for i, user in enumerate(users):
        mean = chance.choice((60, 200, 600))
        flood(simulation, user, mean, chance.choice((12, 20, 60)), model="a")
        if i % 2:
            flood(simulation, user, mean, 12, model="b")
    if queue is None:
        for i in range(3):
            flood(simulation, User(f"capped{i}", max_running=1), 200, 5, model="a")
    for upstream in simulation.upstreams:
        simulation.back(upstream)
    come_and_go(simulation, chance)
    simulation.run(until)
    return simulation, users


def measured(
    queue: type[Fifo] | None, seed: int, seconds: float = 2700.0
) -> tuple[Simulation, Shares]:
    """What each of the fifty got of the model "a" in so many seconds, after the queue had filled.

    Args:
        queue: tried in place of the scheduler.
    """
    simulation, users = fifty_users(queue, seed, FILLED)
    before = simulation.so_far()
    simulation.run(FILLED + seconds)
    return simulation, shares(before, simulation.so_far(), users, "a", Priority.NORMAL)
