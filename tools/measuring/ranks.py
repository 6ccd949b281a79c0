"""One point of a scaling curve: what one rank does, and what rank 0 makes of all of them."""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import trio

from llcuda_net.batch import post_process
from llcuda_net.batch.mpi import Communicator
from llcuda_net.batch.record import GAP, outcomes, values
from llcuda_net.batch.targets import open_target
from llcuda_net.bench import document, prompts, schedules
from llcuda_net.bench.histogram import Histogram
from llcuda_net.bench.load import Plan
from llcuda_net.bench.statistics import student
from llcuda_net.bench.summary import BATCHES, phases, rates
from llcuda_net.bench.validity import Bounds
from llcuda_net.errors import ConnectError, LlcudaError
from tools.measuring import curve, options
from tools.measuring.once import once

#: Messages by which the clocks are aligned and the messages' own cost is measured.
_ROUNDS = 50
#: Seconds from the agreement on a start to the start.
_LEAD = 0.3
_METRICS = ("ttft", "tpot", "latency", GAP)


async def point(
    communicator: Communicator, args: argparse.Namespace, inflight: int
) -> dict[str, Any] | None:
    """Load with all ranks for once.

    Args:
        args: the tool's own.
        inflight: requests that this rank keeps going.

    Returns:
        on rank 0 the figures, for JSON; None on the others.

    Raises:
        ConnectError: a rank could not connect; on all ranks, after all have tried.
    """
    servers = args.server.split(",")
    access = options.access_of(args)
    about: dict[str, Any] = {}
    async with open_stack(servers[communicator.rank % len(servers)], access) as (target, error):
        if target is not None:
            try:
                said = await target.about()
                about = {"model": said.model, "slots": said.slots, "version": said.version}
            except LlcudaError as problem:
                error = str(problem)
        failures = await communicator.gather(error)
        failures = await communicator.broadcast(failures)
        if any(failures):
            told = [f"rank {rank}: {text}" for rank, text in enumerate(failures) if text]
            raise ConnectError("; ".join(told))
        assert target is not None
        mpi = await costs(communicator)
        offset, uncertain = await clock_offset(communicator)
        length = args.warmup + args.seconds
        plan = Plan(
            schedule=schedules.closed(inflight, length),
            prompts=prompts.parse(args.prompts, seed=args.seed + communicator.rank),
            params=options.params_of(args),
            timeout=args.timeout,
            warmup=args.warmup,
            cut=True,
            seed=args.seed + communicator.rank,
        )
        after, post = None, ""
        if args.cuda_work is not None or args.cuda_post:
            post_process.choose_gpu(communicator.local_rank)
            after, post = post_process.prepare(args.cuda_work, args.cuda_iters, args.cuda_post)
        start = await communicator.broadcast(
            time.monotonic() + _LEAD if communicator.rank == 0 else None
        )
        begins = trio.current_time() + (start + offset - time.monotonic())
        found = await once(plan, {"gateway": target}, after=after, label="rank 0:", start=begins)
    own = {
        "rank": communicator.rank,
        "host": communicator.host,
        "server": servers[communicator.rank % len(servers)],
        "about": about,
        "cores": document.cores(),
        "inflight": inflight,
        **rates(found.records, found.begin, found.end),
        "batches": [
            rates(found.records, begin, begin + args.seconds / BATCHES, batches=1)["tokens_per_s"][
                "value"
            ]
            for begin in (args.warmup + i * args.seconds / BATCHES for i in range(BATCHES))
        ],
        "outcomes": outcomes(found.measured),
        "phases": phases([record for record in found.measured if record.done]),
        "cpu_share": found.cpu_share,
        "problems": found.problems(Bounds(lag=args.max_lag), None),
        "clock_us": uncertain * 1e6,
        "post": post,
    }
    histograms = {
        name: Histogram(v for group in values(found.measured, name) for v in group)
        for name in _METRICS
    }
    merged = await communicator.reduce(
        {name: histogram.encode() for name, histogram in histograms.items()}, merge
    )
    everyone = await communicator.gather(own)
    if everyone is None:
        return None
    return {**together(everyone, merged), "mpi": mpi, "library": communicator.library}


def open_stack(server: str, access: dict[str, Any]) -> Any:
    """The target, or the line that says why there is none: all ranks must hear of it."""
    return _OpenOrSay(server, access)


class _OpenOrSay:
    def __init__(self, server: str, access: dict[str, Any]) -> None:
        self._open = open_target(server, **access)
        self._opened = False

    async def __aenter__(self) -> tuple[Any, str]:
        try:
            target = await self._open.__aenter__()
        except LlcudaError as error:
            return None, str(error)
        self._opened = True
        return target, ""

    async def __aexit__(self, *exception: Any) -> None:
        if self._opened:
            await self._open.__aexit__(*exception)


def merge(a: dict[str, str], b: dict[str, str]) -> dict[str, str]:
    """Two ranks' histograms, added up."""
    return {name: Histogram.decode(a[name]).merge(Histogram.decode(b[name])).encode() for name in a}


async def clock_offset(communicator: Communicator) -> tuple[float, float]:
    """What to add to rank 0's monotonic time to get this rank's, and how uncertain that is.

    By the round trip that took least of many (F. Cristian, "Probabilistic Clock Synchronization",
    1989). On one host the clock is the same, and this measures only its own uncertainty; there the
    offset is taken to be 0.
    """
    best, offset = float("inf"), 0.0
    hosts = await communicator.broadcast(await communicator.gather(communicator.host))
    for rank in range(1, communicator.size):
        if communicator.rank == rank:
            for _ in range(_ROUNDS):
                sent = time.monotonic()
                communicator.send(0, "clock", None)
                _, theirs = await _soon(communicator, "clock")
                came = time.monotonic()
                if came - sent < best:
                    best, offset = came - sent, (sent + came) / 2 - theirs
        elif communicator.rank == 0:
            for _ in range(_ROUNDS):
                source, _ = await _soon(communicator, "clock")
                communicator.send(source, "clock", time.monotonic())
        await communicator.barrier()
    if communicator.rank == 0 or hosts[communicator.rank] == hosts[0]:
        return 0.0, 0.0 if communicator.rank == 0 else best / 2
    return offset, best / 2


async def _soon(communicator: Communicator, channel: str) -> tuple[int, Any]:
    """A message that comes at once: looked for without sleeping, since this is not under load."""
    while True:
        communicator.look()
        if (found := communicator.take(channel)) is not None:
            return found
        await trio.lowlevel.checkpoint()


async def costs(communicator: Communicator) -> dict[str, float]:
    """Median microseconds of MPI itself: a round trip of two ranks, and an allreduce of all."""
    found: dict[str, float] = {}
    if communicator.size == 1:
        return found
    for size in (8, 65_536):
        took = await communicator.ping_pong(size, _ROUNDS * 4)
        if took:
            found[f"round trip of {size} bytes"] = statistics.median(took) * 1e6
    took = await communicator.all_reduce(_ROUNDS * 4)
    found["allreduce of 8 bytes"] = statistics.median(took) * 1e6
    return found


def together(everyone: list[dict[str, Any]], merged: dict[str, str]) -> dict[str, Any]:
    """What all ranks reached, from each one's figures."""
    batches = [sum(parts) for parts in zip(*(one["batches"] for one in everyone), strict=True)]
    total = student(batches)
    assert total is not None
    each = [one["tokens_per_s"]["value"] for one in everyone]
    mean = statistics.fmean(each)
    metrics = curve.merged([{name: {"histogram": text} for name, text in merged.items()}])
    hosts = {one["host"] for one in everyone}
    slots = {one["server"]: one["about"]["slots"] for one in everyone}
    inflight = sum(one["inflight"] for one in everyone)
    cautions = []
    for host in sorted(hosts):
        there = [one for one in everyone if one["host"] == host]
        if len(there) > there[0]["cores"]:
            cautions.append(
                f"{len(there)} ranks share {there[0]['cores']} cores on one host: the client's"
                " side does not scale beyond that"
            )
    if inflight > sum(slots.values()):
        cautions.append(
            f"{inflight} requests at once, and the upstream has {sum(slots.values())} slots: the"
            " slots are the limit, not the ranks"
        )
    return {
        "ranks": len(everyone),
        "hosts": len(hosts),
        "servers": len(slots),
        "slots": sum(slots.values()),
        "inflight": inflight,
        "tokens_per_s": total.as_dict(),
        "requests_per_s": {"value": sum(one["requests_per_s"]["value"] for one in everyone)},
        "imbalance": max(each) / mean - 1 if mean else 0.0,
        "metrics": metrics,
        "each": everyone,
        "problems": [
            f"{len(everyone)} ranks, rank {one['rank']}: {text}"
            for one in everyone
            for text in one["problems"]
        ],
        "cautions": cautions,
    }
