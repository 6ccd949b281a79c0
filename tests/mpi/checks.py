"""What must hold on any number of ranks: run by mpirun, or alone; exits 0 where all of it holds."""

from __future__ import annotations

import random
import resource
import sys

import numpy as np
import trio

from llcuda_kernels import ShardedStore, VectorStore
from llcuda_net.batch.mpi import Communicator, open_communicator
from llcuda_net.bench.histogram import Histogram
from llcuda_net.bench.runs import ranks, searches
from llcuda_net.bench.runs.searches import Search


def samples(rank: int) -> list[float]:
    rng = random.Random(rank)
    return [rng.expovariate(20) for _ in range(1500 + 100 * rank)]


async def everything(communicator: Communicator) -> None:
    await collectives(communicator)
    await merged_is_pooled(communicator)
    await order_is_kept(communicator)
    await long_messages_pass(communicator)
    vectors_shared_out_are_one_store(communicator)
    await searches_are_as_many_everywhere(communicator)
    await clocks(communicator)
    await waiting_costs_nothing(communicator)


async def collectives(communicator: Communicator) -> None:
    gathered = await communicator.gather(communicator.rank**2)
    if communicator.rank == 0:
        assert gathered == [rank**2 for rank in range(communicator.size)]
    else:
        assert gathered is None
    assert await communicator.broadcast("x" if communicator.rank == 0 else None) == "x"
    total = await communicator.reduce([communicator.rank], lambda a, b: a + b)
    assert total == (list(range(communicator.size)) if communicator.rank == 0 else None)


async def merged_is_pooled(communicator: Communicator) -> None:
    own = {"ttft": Histogram(samples(communicator.rank)).encode()}
    merged = await communicator.reduce(own, ranks.merge)
    if communicator.rank == 0:
        pooled = Histogram(v for rank in range(communicator.size) for v in samples(rank))
        found = Histogram.decode(merged["ttft"])
        assert found.steps() == pooled.steps()
        for share in (0.5, 0.9, 0.99):
            assert found.quantile(share) == pooled.quantile(share) is not None


async def order_is_kept(communicator: Communicator) -> None:
    """Short and long messages in turn, of which the long ones take a while."""
    if communicator.rank:
        for number in range(20):
            communicator.send(
                0, "order", (communicator.rank, number, b"x" * (300_000 if number % 3 else 1))
            )
        await communicator.flush()
    else:
        seen = dict.fromkeys(range(1, communicator.size), 0)
        for _ in range(20 * (communicator.size - 1)):
            source, (rank, number, _) = await communicator.receive("order")
            assert source == rank
            assert seen[rank] == number
            seen[rank] += 1
    await communicator.barrier()


async def long_messages_pass(communicator: Communicator) -> None:
    found = await communicator.gather(bytes([communicator.rank]) * 3_000_000)
    if found is not None:
        assert [part[0] for part in found] == list(range(communicator.size))
        assert {len(part) for part in found} == {3_000_000}


def vectors_shared_out_are_one_store(communicator: Communicator) -> None:
    rng = np.random.default_rng(1)
    vectors = rng.standard_normal((90, 32)).astype(np.float32)
    vectors[17] = vectors[3]
    queries = vectors[[3, 50]] + np.float32(0.01)
    store = ShardedStore(32, communicator.native, backend="cpu")
    assert (store.rank, store.size) == (communicator.rank, communicator.size)
    own = np.arange(communicator.rank, 90, communicator.size)
    assert store.append(vectors[own]).tolist() == own.tolist()
    whole = VectorStore(32, backend="cpu")
    whole.append(vectors)
    for k in (1, 7, 200):
        scores, rows = store.search(queries, k)
        want = whole.search(queries, k)
        np.testing.assert_array_equal(scores, want[0])
        np.testing.assert_array_equal(rows, want[1])


async def searches_are_as_many_everywhere(communicator: Communicator) -> None:
    """A rank that made one more would wait for ever."""
    search = Search(rows=50, dim=8, queries=2, k=3, mode="strong", seconds=0.02, warmup=0.01)
    found = await searches.point(communicator, search)
    assert (found is None) is (communicator.rank > 0)
    if found is not None:
        assert (found["ranks"], found["vectors"]) == (communicator.size, 50)
        assert found["problems"] == []
        assert found["metrics"]["search"]["count"] >= 3


async def clocks(communicator: Communicator) -> None:
    offset, uncertain = await ranks.clock_offset(communicator)
    assert offset == 0  # of one host
    assert 0 <= uncertain < 1
    costs = await ranks.costs(communicator)
    assert (len(costs) == 0) is (communicator.size == 1)
    assert all(0 < value < 1e6 for value in costs.values())


async def waiting_costs_nothing(communicator: Communicator) -> None:
    """A rank that waits a second for another takes no core, as one that waits inside MPI would."""

    def used() -> float:
        own = resource.getrusage(resource.RUSAGE_SELF)
        return own.ru_utime + own.ru_stime

    before = used()
    if communicator.rank == 0:
        await trio.sleep(1.0)
    await communicator.barrier()
    assert used() - before < 0.5


def main() -> int:
    with open_communicator() as communicator:
        assert communicator.size == int(sys.argv[1])
        if sys.argv[2:] != ["fail"]:
            trio.run(everything, communicator)
        elif communicator.rank == communicator.size - 1:
            raise RuntimeError("on purpose")
        else:
            trio.run(communicator.receive, "never")
    print("held")
    return 0


if __name__ == "__main__":
    sys.exit(main())
