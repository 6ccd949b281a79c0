"""One point of a scaling curve of searches: ranks that each hold a part of the vectors.

Searches are collective, so all ranks must make the same number of them: rank 0 says how many the
next block has. The first of each block brings the ranks together, and is not counted.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import trio

from llcuda_net.batch import post_process
from llcuda_net.batch.mpi import Communicator
from llcuda_net.bench.histogram import Histogram
from llcuda_net.bench.report import document
from llcuda_net.bench.runs.once import Say, silent
from llcuda_net.bench.runs.ranks import all_metrics, costs
from llcuda_net.bench.statistics.estimates import student
from llcuda_net.bench.statistics.summary import BATCHES
from llcuda_net.errors import ConfigError
from llcuda_net.util.numbers import three_digits

if TYPE_CHECKING:
    import numpy as np

    from llcuda_kernels import ShardedStore

#: By mode, the rate that is to grow: where each rank brings vectors, searches stay as many.
RATE = {"strong": "searches_per_s", "weak": "vectors_per_s"}
#: Rows that are made at random; all others are these, rolled.
_BLOCK = 1 << 16


@dataclass(frozen=True, slots=True)
class Search:
    """What one point of a curve searches.

    Attributes:
        rows: vectors of each rank (weak), or of all together (strong).
        dim: of each.
        queries: of one search.
        k: how many are found for each query.
        gather: how ranks tell each other what they found: "mpi" or "nccl".
        mode: "weak" or "strong".
        seconds, warmup: of measuring, and before it.
        seed: of the vectors.
    """

    rows: int = 10_000_000
    dim: int = 768
    queries: int = 1
    k: int = 10
    gather: str = "mpi"
    mode: str = "weak"
    seconds: float = 5.0
    warmup: float = 1.0
    seed: int = 1

    def share(self, rank: int, ranks: int) -> int:
        """The vectors of one rank.

        Raises:
            ConfigError: there are fewer than ranks.
        """
        if self.mode == "weak":
            return self.rows
        share, more = divmod(self.rows, ranks)
        if share == 0:
            raise ConfigError(f"{self.rows} rows cannot be shared out over {ranks} ranks")
        return share + (rank < more)


async def point(
    communicator: Communicator, search: Search, say: Say = silent
) -> dict[str, Any] | None:
    """Search with all ranks for once.

    Returns:
        on rank 0 the figures, for JSON; None on the others.

    Raises:
        ConfigError: a rank cannot hold its part, or not search it so; on all ranks.
    """
    rows = search.share(communicator.rank, communicator.size)
    post_process.choose_gpu(communicator.local_rank)
    await _agreed(communicator, lambda: _able(search))
    mpi = await costs(communicator)
    store = _store(communicator, search)
    say(f"rank 0: {rows:,} vectors are made")
    await _agreed(communicator, lambda: _fill(store, search, rows))
    queries = _queries(search, communicator.size)
    cpu, wall = time.process_time(), time.monotonic()
    blocks = await _search(communicator, search, lambda: store.search(queries, search.k), say)
    cpu_share = (time.process_time() - cpu) / (time.monotonic() - wall)
    best = float(store.search(queries, search.k)[0][0, 0])
    wrong = [] if best > 0.999 else [f"a search for one of the vectors found {best:.3f} at best"]
    everyone = await communicator.gather(
        {
            "rank": communicator.rank,
            "host": communicator.host,
            "device": _device(),
            "cores": document.cores(),
            "rows": rows,
            "cpu_share": cpu_share,
            "problems": wrong,
        }
    )
    if everyone is None:
        return None
    return {**together(everyone, blocks), "mpi": mpi, "library": communicator.library}


async def _agreed(communicator: Communicator, do: Callable[[], None]) -> None:
    """Do it on all ranks. Raises ConfigError on all of them if one cannot: none waits for it."""
    error = ""
    try:
        do()
    except ConfigError as problem:
        error = str(problem)
    errors = await communicator.broadcast(await communicator.gather(error))
    if any(errors):
        raise ConfigError(
            "; ".join(f"rank {rank}: {text}" for rank, text in enumerate(errors) if text)
        )


def _able(search: Search) -> None:
    """Raises ConfigError where this rank cannot gather by NCCL."""
    if search.gather != "nccl":
        return
    from llcuda_kernels import gpu

    if not gpu().usable:
        raise ConfigError(f"--gather nccl needs a GPU for each rank: {gpu().reason}")
    try:
        from cupy.cuda import nccl
    except ImportError as error:
        raise ConfigError(f"--gather nccl needs cupy with NCCL: {error}") from None
    if not nccl.available:
        raise ConfigError("--gather nccl: this CuPy was built without NCCL")


def _store(communicator: Communicator, search: Search) -> ShardedStore:
    from llcuda_kernels import MpiGather, NcclGather, ShardedStore

    if communicator.size == 1:
        return ShardedStore(search.dim)
    gather = NcclGather if search.gather == "nccl" else MpiGather
    return ShardedStore(search.dim, gather(communicator.native))


def _block(search: Search, rank: int) -> np.ndarray[Any, Any]:
    """The first codes of a rank, which all others of it are made of."""
    import numpy as np

    rng = np.random.default_rng((search.seed, rank))
    return rng.integers(-127, 128, (min(_BLOCK, search.rows), search.dim), np.int8)


def _fill(store: ShardedStore, search: Search, rows: int) -> None:
    """Give a rank its vectors. Raises ConfigError where they do not fit."""
    import numpy as np

    block = _block(search, store.rank)
    scales = np.full(len(block), 1 / 127, np.float32)
    try:
        for turn, first in enumerate(range(0, rows, len(block))):
            count = min(len(block), rows - first)
            codes = np.ascontiguousarray(np.roll(block, turn, axis=1)[:count])
            store.append_codes(codes, scales[:count])
    except (MemoryError, RuntimeError) as error:  # the driver's errors are RuntimeErrors
        raise ConfigError(f"no room for {rows:,} vectors of {search.dim}: {error}") from None


def _queries(search: Search, ranks: int) -> np.ndarray[Any, Any]:
    """The queries; the first one is a vector that the last rank has."""
    import numpy as np

    rng = np.random.default_rng((search.seed, ranks, 1))
    queries = rng.integers(-127, 128, (search.queries, search.dim), np.int8)
    queries[0] = _block(search, ranks - 1)[0]
    return queries


def _device() -> str:
    from llcuda_kernels import gpu

    return gpu().name if gpu().usable else ""


async def _search(
    communicator: Communicator, search: Search, once: Callable[[], Any], say: Say
) -> list[list[float]]:
    """Search in blocks until the time is over; the seconds of each search of each, on rank 0."""
    length = search.seconds / BATCHES
    begin = time.perf_counter()
    once()  # compiles the kernels where they are not kept
    warm = await _blocks(communicator, once, search.warmup, max(length, 0.05), 1)
    each = statistics.median(warm[-1]) if warm else 1.0
    if communicator.rank == 0:
        took = f"warm after {time.perf_counter() - begin:.1f} s"
        say(f"rank 0: {took}, {three_digits(each * 1e3)} ms a search")
    return await _blocks(communicator, once, search.seconds, length, max(1, round(length / each)))


async def _blocks(
    communicator: Communicator, once: Callable[[], Any], seconds: float, length: float, count: int
) -> list[list[float]]:
    """Blocks until they took so long together, the first with `count` searches.

    The others are as long as `length` allows. At least three are made, for an interval.
    """
    found: list[list[float]] = []
    took = 0.0
    while True:
        over = communicator.rank == 0 and len(found) >= 3 and took >= seconds
        asked: int = await communicator.broadcast(0 if over else count)
        if asked == 0:
            return found
        once()
        times = []
        for _ in range(asked):
            began = time.perf_counter()
            once()
            times.append(time.perf_counter() - began)
        found.append(times)
        took += sum(times)
        count = max(1, round(length * asked / sum(times)))
        await trio.lowlevel.checkpoint()


def together(everyone: list[dict[str, Any]], blocks: list[list[float]]) -> dict[str, Any]:
    """What all ranks reached, from rank 0's times and each one's figures."""
    rates = [len(times) / sum(times) for times in blocks]
    vectors = sum(one["rows"] for one in everyone)
    searches, compared = student(rates), student([rate * vectors for rate in rates])
    assert searches is not None
    assert compared is not None
    histogram = Histogram(each for times in blocks for each in times).encode()
    cautions = []
    for host in sorted({one["host"] for one in everyone}):
        there = [one for one in everyone if one["host"] == host]
        if not there[0]["device"] and len(there) > there[0]["cores"]:
            cautions.append(
                f"{len(there)} ranks share {there[0]['cores']} cores on one host, which compute"
                " their searches"
            )
    return {
        "ranks": len(everyone),
        "hosts": len({one["host"] for one in everyone}),
        "vectors": vectors,
        "searches_per_s": searches.as_dict(),
        "vectors_per_s": compared.as_dict(),
        "metrics": all_metrics([{"search": {"histogram": histogram}}]),
        "each": everyone,
        "problems": [
            f"{len(everyone)} ranks, rank {one['rank']}: {text}"
            for one in everyone
            for text in one["problems"]
        ],
        "cautions": cautions,
    }
