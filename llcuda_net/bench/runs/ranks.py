"""One point of a scaling curve: what one rank does, and what rank 0 makes of all of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import trio

from llcuda_net.batch import post_process
from llcuda_net.batch.mpi import Communicator
from llcuda_net.batch.record import GAP, SERVER, outcomes, values
from llcuda_net.batch.targets.interface import Target
from llcuda_net.batch.targets.openai import OpenAITarget
from llcuda_net.batch.targets.tokenizer import learn
from llcuda_net.bench.energy.account import Wanted
from llcuda_net.bench.histogram import Histogram
from llcuda_net.bench.report import document
from llcuda_net.bench.runs import warmup
from llcuda_net.bench.runs.once import Once, Say, once, self_test, silent
from llcuda_net.bench.runs.settings import Access, Settings
from llcuda_net.bench.statistics.estimates import student
from llcuda_net.bench.statistics.objective import added, counts
from llcuda_net.bench.statistics.summary import BATCHES, phases, rates
from llcuda_net.bench.workload import schedules
from llcuda_net.bench.workload.fitting import fit
from llcuda_net.bench.workload.load import Plan
from llcuda_net.bench.workload.validity import Bounds
from llcuda_net.config.upstreams import without_credentials
from llcuda_net.errors import ConfigError, ConnectError, LlcudaError

#: Messages by which the clocks are aligned and the messages' own cost is measured.
_ROUNDS = 50
#: Seconds from the agreement on a start to the start.
_LEAD = 0.3
#: Seconds of looking at what is taken before anything is asked: of every point.
_IDLE = 1.0
_METRICS = ("ttft", "tpot", "latency", GAP)


@dataclass(frozen=True, slots=True)
class Load:
    """What one point of a curve asks.

    Attributes:
        inflight: requests at once: of each rank (weak), or of all together (strong).
        mode: "weak" or "strong".
        seconds: of measuring.
        warmup: seconds before it; None: as long as an answer takes, by a pilot of all ranks.
        slo: the objective: bounds in seconds by metric.
    """

    inflight: int = 8
    mode: str = "weak"
    seconds: float = 5.0
    warmup: float | None = None
    slo: dict[str, float] | None = None

    def share(self, rank: int, ranks: int) -> int:
        """The requests that one rank keeps going.

        Raises:
            ConfigError: there are fewer than ranks.
        """
        if self.mode == "weak":
            return self.inflight
        share, more = divmod(self.inflight, ranks)
        if share == 0:
            raise ConfigError(
                f"{self.inflight} requests at once cannot be shared out over {ranks} ranks"
            )
        return share + (rank < more)


async def point(
    communicator: Communicator, settings: Settings, load: Load, say: Say = silent
) -> dict[str, Any] | None:
    """Load with all ranks for once.

    Args:
        settings: `server` may be a list, A,B,…: its servers are shared out over the ranks.

    Returns:
        on rank 0 the figures, for JSON; None on the others.

    Raises:
        ConfigError: the load cannot be shared out; on all ranks.
        ConnectError: a rank could not connect; on all ranks, after all have tried.
    """
    inflight = load.share(communicator.rank, communicator.size)
    servers = settings.server.split(",")
    server = servers[communicator.rank % len(servers)]
    request = settings.request
    about: dict[str, Any] = {}
    path = SERVER
    async with AsyncExitStack() as stack:
        target, error = await stack.enter_async_context(_open_or_say(server, settings.access))
        if target is not None:
            try:
                said = await target.about()
                about, path = said.as_dict(), said.path
            except LlcudaError as problem:
                error = str(problem)
        failures = await communicator.gather(error)
        failures = await communicator.broadcast(failures)
        if any(failures):
            named = [f"rank {rank}: {text}" for rank, text in enumerate(failures) if text]
            raise ConnectError("; ".join(named))
        assert target is not None
        mpi = await costs(communicator)
        offset, uncertain = await clock_offset(communicator)
        work = await fit(
            replace(request.what, seed=request.seed + communicator.rank).work(),
            [target],
            about["context"],
            chat=isinstance(target, OpenAITarget),
        )
        plan = Plan(
            schedule=schedules.closed(inflight, warmup.LEAST + load.seconds),
            prompts=work.work,
            params=request.params,
            timeout=request.timeout,
            warmup=warmup.LEAST,
            seed=request.seed + communicator.rank,
        )
        if settings.kernels.work is not None or settings.kernels.post:
            post_process.choose_gpu(communicator.local_rank)
        after, post = settings.kernels.prepare()
        # Rank 0 reads the meters, first of what is idle; the others wait for it.
        asked = settings.energy if communicator.rank == 0 else Wanted()
        account = await stack.enter_async_context(asked.account(servers))
        await account.idle(_IDLE)
        ceiling = None
        if settings.self_test:  # of all ranks at the same time, as they will ask
            await communicator.barrier()
            ceiling = await self_test(plan, {path: target}, say, paced=False)
            await communicator.barrier()
        before = load.warmup
        if before is None:
            before = await _settle(communicator, plan, {path: target}, say)
        plan = replace(
            plan,
            schedule=schedules.closed(inflight, before + load.seconds),
            warmup=before,
            cooldown=before,
        )
        start = await communicator.broadcast(
            time.monotonic() + _LEAD if communicator.rank == 0 else None
        )
        begins = trio.current_time() + (start + offset - time.monotonic())
        found = await once(
            plan, {path: target}, after=after, say=say, label="rank 0:", start=begins
        )
        # All ranks have ended by then: those that have not would be disturbed.
        await communicator.barrier()
        if communicator.rank == 0:
            await learn(target, about, settings.tokenizer)
        about["notes"] = request.shorter(found.measured) + about.get("notes", [])
    own = {
        "rank": communicator.rank,
        "host": communicator.host,
        "server": without_credentials(server),
        "about": about,
        "cores": document.cores(),
        "inflight": inflight,
        "warmup": found.warmup,
        **_figures(found, load),
        "problems": found.problems(Bounds(lag=settings.max_lag), ceiling),
        "self_test": None if ceiling is None else ceiling.as_dict(),
        "clock_us": uncertain * 1e6,
        "post": post,
        "slo": load.slo and counts(found.records, load.slo),
        "energy": account.point(found),
    }
    histograms = {
        name: Histogram(v for group in values(found.measured, name) for v in group).encode()
        for name in _METRICS
    }
    merged = await communicator.reduce(histograms, merge)
    everyone = await communicator.gather(own)
    if everyone is None:
        return None
    return {**together(everyone, merged), "mpi": mpi, "library": communicator.library}


async def _settle(
    communicator: Communicator, plan: Plan, targets: dict[str, Target], say: Say
) -> float:
    """The warm-up that all ranks need: each runs its own load as a pilot, all at the same time."""
    await communicator.barrier()
    own = await warmup.settle(
        lambda seconds: replace(
            plan, schedule=schedules.closed(plan.schedule.concurrency, seconds)
        ),
        targets,
        (),
        say=say,
        label="rank 0:",
    )
    each = await communicator.gather(own.warmup)
    longest: float = await communicator.broadcast(max(each) if each else None)
    return longest


def _figures(found: Once, load: Load) -> dict[str, Any]:
    """What one rank reached, for JSON."""
    length = load.seconds / BATCHES
    batches = [
        rates(found.records, begin, begin + length, batches=1, closed=True)["tokens_per_s"]["value"]
        for begin in (found.begin + i * length for i in range(BATCHES))
    ]
    return {
        "seconds": found.end - found.begin,
        **found.rates(),
        "batches": batches,
        "outcomes": outcomes(found.measured),
        "phases": phases([found.measured]),
        "cpu_share": found.cpu_share,
    }


@asynccontextmanager
async def _open_or_say(server: str, access: Access) -> AsyncIterator[tuple[Target | None, str]]:
    """The target, or the line that says why there is none: all ranks must have it."""
    async with AsyncExitStack() as stack:
        target, error = None, ""
        try:
            target = await stack.enter_async_context(access.open(server))
        except LlcudaError as problem:
            error = str(problem)
        yield target, error


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


def all_metrics(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The latencies of several runs together."""
    found = {}
    for name in runs[0]:
        whole = Histogram()
        for run in runs:
            whole.merge(Histogram.decode(run[name]["histogram"]))
        found[name] = {
            "count": len(whole),
            **whole.percentiles_ms(),
            "histogram": whole.encode(),
        }
    return found


def together(everyone: list[dict[str, Any]], merged: dict[str, str]) -> dict[str, Any]:
    """What all ranks reached, from each one's figures."""
    batches = [sum(parts) for parts in zip(*(one["batches"] for one in everyone), strict=True)]
    total = student(batches)
    assert total is not None
    each = [one["tokens_per_s"]["value"] for one in everyone]
    mean = statistics.fmean(each)
    metrics = all_metrics([{name: {"histogram": text} for name, text in merged.items()}])
    hosts = {one["host"] for one in everyone}
    slots = {one["server"]: one["about"]["slots"] for one in everyone}
    known = None if None in slots.values() else sum(slots.values())
    inflight = sum(one["inflight"] for one in everyone)
    cautions = list(
        dict.fromkeys(note for one in everyone for note in one["about"].get("notes", []))
    )
    kept = [one.pop("slo", None) for one in everyone]
    energy, *_ = (one.pop("energy", None) for one in everyone)
    if energy is not None:
        # The machine took it for all ranks; and it is not told where there are more machines.
        for name in ("tokens", "requests"):
            rate = sum(one[f"{name}_per_s"]["value"] for one in everyone)
            energy["window"][name] = rate * energy["window"]["seconds"]
        if len(hosts) > 1:
            energy["devices"], energy["window"]["joules"] = [], {}
            energy["missing"] = [{"kind": "all", "why": "the ranks are on several machines"}]
    for host in sorted(hosts):
        there = [one for one in everyone if one["host"] == host]
        if len(there) > there[0]["cores"]:
            cautions.append(
                f"{len(there)} ranks share {there[0]['cores']} cores on one host: the client's"
                " side does not scale beyond that"
            )
    counts = [one["outcomes"] for one in everyone]
    asked = sum(sum(each.values()) for each in counts)
    lost = asked - sum(each["done"] for each in counts)
    if lost:
        cautions.append(
            f"{lost} of {asked} requests got no answer: the percentiles are of the others"
        )
    if known is not None and inflight > known:
        cautions.append(
            f"{inflight} requests at once, and the upstream has {known}"
            f" slot{'' if known == 1 else 's'}: these are the limit, not the ranks"
        )
    return {
        "ranks": len(everyone),
        "hosts": len(hosts),
        "servers": len(slots),
        "slots": known,
        "inflight": inflight,
        "tokens_per_s": total.as_dict(),
        "slo": kept[0] and added(kept),
        "energy": energy,
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
