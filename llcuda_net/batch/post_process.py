"""Work on finished answers by llcuda_kernels, timed apart from the answers themselves."""

from __future__ import annotations

import os
import time

import numpy as np
import trio

from llcuda_kernels import gpu, post, spin
from llcuda_kernels.runtime.backend import Backend
from llcuda_net.batch.record import Record
from llcuda_net.batch.targets.interface import Answer, PostProcess

#: Numbers that the kernels work on by default.
SIZE = 65_536


def prepare(spinning: int | None, rounds: int, posting: bool) -> tuple[PostProcess, str]:
    """The work on each answer, and a description of it: which kernels, and where they run.

    Both kernels have run once before this returns, so that compiling them is not measured.

    Args:
        spinning: numbers for `spin`, the latency load; None: not that.
        rounds: of either.
        posting: run `post`, the throughput load, as of work done on results.
    """
    seeds = np.arange(1, (spinning or SIZE) + 1, dtype=np.uint32)
    values = np.linspace(0.0, 1.0, spinning or SIZE, dtype=np.float32)
    device = gpu()
    # said outright: of so few numbers in the host's memory "auto" leaves all to the CPU
    backend: Backend = "cuda" if device.usable else "cpu"

    def work(rounds: int = rounds) -> float:
        start = time.perf_counter()
        if spinning is not None:
            spin(seeds, rounds, backend=backend)
        if posting:
            post(values, rounds, backend=backend)
        return time.perf_counter() - start

    work(1)
    limiter = trio.CapacityLimiter(1)  # one at a time: it has one device, or all the cores

    async def after(record: Record, answer: Answer) -> float:
        return await trio.to_thread.run_sync(work, limiter=limiter)

    names = [name for name, wanted in (("spin", spinning is not None), ("post", posting)) if wanted]
    where = f"on {device.name}" if device.usable else "on the CPU"
    return after, f"{' and '.join(names)}, {len(seeds):,} numbers, {rounds:,} rounds, {where}"


def choose_gpu(local_rank: int) -> None:
    """Give this process one GPU of the host, by its rank there; before any of it is used.

    A choice made by CUDA_VISIBLE_DEVICES is shared out, not overruled.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        devices = [part for part in visible.split(",") if part]
    else:
        devices = [str(number) for number in range(_count())]
    if devices:
        os.environ["CUDA_VISIBLE_DEVICES"] = devices[local_rank % len(devices)]


def _count() -> int:
    """The host's GPUs, by the driver's files: asking CUDA itself would settle which are visible."""
    try:
        return len(os.listdir("/proc/driver/nvidia/gpus"))  # noqa: PTH208
    except OSError:
        return 0
