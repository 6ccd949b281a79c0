"""What must hold on any number of ranks: run by mpirun, or alone; exits 0 where all of it holds."""

from __future__ import annotations

import random
import resource
import sys

import trio

from llcuda_net.batch.mpi import World, open_world
from llcuda_net.bench.histogram import Histogram
from tools.measuring import ranks


def samples(rank: int) -> list[float]:
    rng = random.Random(rank)
    return [rng.expovariate(20) for _ in range(1500 + 100 * rank)]


async def everything(world: World) -> None:
    await collectives(world)
    await merged_is_pooled(world)
    await order_is_kept(world)
    await long_messages_pass(world)
    await clocks(world)
    await waiting_costs_nothing(world)


async def collectives(world: World) -> None:
    gathered = await world.gather(world.rank**2)
    if world.rank == 0:
        assert gathered == [rank**2 for rank in range(world.size)]
    else:
        assert gathered is None
    assert await world.broadcast("x" if world.rank == 0 else None) == "x"
    total = await world.reduce([world.rank], lambda a, b: a + b)
    assert total == (list(range(world.size)) if world.rank == 0 else None)


async def merged_is_pooled(world: World) -> None:
    own = {"ttft": Histogram(samples(world.rank)).encode()}
    merged = await world.reduce(own, ranks.merge)
    if world.rank == 0:
        pooled = Histogram(v for rank in range(world.size) for v in samples(rank))
        found = Histogram.decode(merged["ttft"])
        assert found.steps() == pooled.steps()
        for share in (0.5, 0.9, 0.99):
            assert found.quantile(share) == pooled.quantile(share) is not None


async def order_is_kept(world: World) -> None:
    """Short and long messages in turn, of which the long ones take a while."""
    if world.rank:
        for number in range(20):
            world.send(0, "order", (world.rank, number, b"x" * (300_000 if number % 3 else 1)))
        await world.flush()
    else:
        seen = dict.fromkeys(range(1, world.size), 0)
        for _ in range(20 * (world.size - 1)):
            source, (rank, number, _) = await world.receive("order")
            assert source == rank
            assert seen[rank] == number
            seen[rank] += 1
    await world.barrier()


async def long_messages_pass(world: World) -> None:
    found = await world.gather(bytes([world.rank]) * 3_000_000)
    if found is not None:
        assert [part[0] for part in found] == list(range(world.size))
        assert {len(part) for part in found} == {3_000_000}


async def clocks(world: World) -> None:
    offset, uncertain = await ranks.clock_offset(world)
    assert offset == 0  # of one host
    assert 0 <= uncertain < 1
    costs = await ranks.costs(world)
    assert (len(costs) == 0) is (world.size == 1)
    assert all(0 < value < 1e6 for value in costs.values())


async def waiting_costs_nothing(world: World) -> None:
    """A rank that waits a second for another takes no core, as one that waits inside MPI would."""

    def used() -> float:
        own = resource.getrusage(resource.RUSAGE_SELF)
        return own.ru_utime + own.ru_stime

    before = used()
    if world.rank == 0:
        await trio.sleep(1.0)
    await world.barrier()
    assert used() - before < 0.5


def main() -> int:
    with open_world() as world:
        assert world.size == int(sys.argv[1])
        trio.run(everything, world)
        if sys.argv[2:] == ["fail"] and world.rank == world.size - 1:
            raise RuntimeError("on purpose")
        if sys.argv[2:] == ["fail"]:
            trio.run(world.receive, "never")
    print("held")
    return 0


if __name__ == "__main__":
    sys.exit(main())
