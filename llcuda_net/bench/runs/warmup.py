"""How long a load must run before it is measured, found by asking.

A server that was idle answers the first requests as no later ones: nothing is in its queue, and
nobody's answer has ended yet. Two times must pass.

- *One answer.* Until the slowest of the first requests has ended, fewer end than come, whatever the
  server carries.
- *The queue's own.* Near saturation a queue takes long to grow to its length. By J. Abate and W.
  Whitt, "Transient behavior of regulated Brownian motion, I" (1987), its mean has come to 99 % of
  its level after 4 s²/d², where s² is the variance of the flow per second and d the spare capacity
  per second. With Poisson arrivals and as variable a service s² is twice the rate r, and a mean
  wait of w has d = 1/w: so after 8 r w² seconds.

Both are read off a pilot run of the same load, which goes on until it has lasted as long as that.
One that is saturated never has: its wait grows with the run.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import trio

from llcuda_net.batch.record import Outcome, Record
from llcuda_net.batch.targets.interface import Target
from llcuda_net.bench.runs.once import Say, silent
from llcuda_net.bench.statistics.censored import observations, quantile
from llcuda_net.bench.workload.load import Plan, Run
from llcuda_net.bench.workload.schedules import closed
from llcuda_net.errors import ConfigError

#: Least seconds of a warm-up: connections are opened, caches filled.
LEAST = 1.0
#: Most seconds for a queue to settle; an answer that takes longer is waited for all the same.
MOST = 30.0
#: How much longer than the slowest answer that was seen, since slower ones will come.
MARGIN = 1.1
#: Of the answers without other load: the least, the most, and the seconds after which it is enough.
_ALONE = (3, 20, 2.0)
#: Share of a pilot's requests that are left when it ends, from which on it is plainly saturated.
_PLAIN = 0.15
#: Seconds from look to look at a pilot.
_TICK = 0.1
#: Seconds for a server to free what was cancelled.
PAUSE = 0.2


@dataclass(frozen=True, slots=True)
class Settled:
    """What a pilot found.

    Attributes:
        warmup: seconds to wait before the load is measured.
        settled: False: the queue still grew after the longest pilot. Either the load is more than
            is carried, or so near to it that its latencies grow with the time for which they are
            measured.
        answer: seconds that one answer takes at most, or nearly.
    """

    warmup: float
    settled: bool = True
    answer: float = LEAST


async def alone(plan: Plan, targets: dict[str, Target], *, say: Say = silent) -> list[float]:
    """Seconds of a few answers, one after the other, while nothing else is asked.

    Args:
        plan: what to ask; its schedule is not used.

    Returns:
        at least three; fewer where a request gets no answer.
    """
    least, most, seconds = _ALONE
    found: list[float] = []
    while len(found) < least:
        say(f"warm-up: how long does an answer take? {len(found)} answers")
        one = replace(
            plan,
            schedule=closed(1, seconds),
            warmup=0.0,
            requests=most - len(found),
            drain=None,
            cooldown=0.0,
        )
        records = await Run(one, targets).run()
        found += [record.latency for record in records if record.done]
        if not all(record.done for record in records):
            break
    return found


async def settle(
    plan: Callable[[float], Plan],
    targets: dict[str, Target],
    single: Sequence[float],
    *,
    most: float = MOST,
    floor: float = 0.0,
    say: Say = silent,
    label: str = "",
) -> Settled:
    """Run a load until it has settled; how long that takes.

    Args:
        plan: of the load, for a schedule of so many seconds.
        single: what `alone` gave; a closed loop does without.
        most: seconds for the queue; a closed loop has none, and is waited for.
        floor: seconds that are known to be needed, by `near_capacity` say; `most` at the most.
            inf: the load is known to be more than is carried.
    """
    one_answer = max(LEAST, MARGIN * max(single, default=0.0))
    if math.isinf(floor):  # it never settles, and its backlog is longer the longer it is let run
        return Settled(one_answer, False, one_answer)
    limit = max(most, 2 * one_answer)
    try:
        pilot = plan(limit)
    except ConfigError:  # so few requests that none comes in that time: they do not meet
        return Settled(one_answer, answer=one_answer)
    if pilot.schedule.closed:  # it ends with its second answers, or their timeouts
        pilot = plan(max(limit, 3 * pilot.timeout))
    run = Run(replace(pilot, warmup=0.0, requests=None, drain=0.0, cooldown=0.0), targets)
    found = Settled(limit, False, one_answer)
    async with trio.open_nursery() as nursery:

        async def watch() -> None:
            nonlocal found
            queue = min(floor, most)
            while True:
                say(f"{label} warm-up, {max(0.0, run.now()):.0f} s")
                await trio.sleep(_TICK)
                at = run.now()
                if pilot.schedule.closed:
                    over = sum(not math.isnan(record.ended) for record in run.records)
                    enough = over >= 2 * pilot.schedule.concurrency
                else:
                    enough = at >= most / 3
                    if enough:
                        queue = max(queue, relaxation(run.records, single, at))
                answer = max(one_answer, MARGIN * slowest(run.records, at))
                if enough and at >= max(answer, queue):
                    found = Settled(max(answer, queue), answer=answer)
                    nursery.cancel_scope.cancel()

        nursery.start_soon(watch)
        await run.run()
        nursery.cancel_scope.cancel()
    await trio.sleep(PAUSE)
    cut = sum(record.outcome is Outcome.CUT for record in run.records)
    if not found.settled and cut > _PLAIN * len(run.records):
        return replace(found, warmup=one_answer)
    return found


def rehearsed(
    records: Sequence[Record],
    single: Sequence[float],
    seconds: float,
    *,
    most: float = MOST,
) -> Settled:
    """The same of a run of an open schedule, or a closed loop, that is over.

    Args:
        records: all of its requests.
        single: what `alone` gave.
        seconds: how long its schedule was.
    """
    # As it was at the schedule's end, when some were under way.
    then = [r if r.ended <= seconds else replace(r, ended=math.nan) for r in records]
    queue = relaxation(then, single, seconds)
    answer = max(LEAST, MARGIN * max(single, default=0.0), MARGIN * slowest(records, seconds))
    return Settled(max(answer, min(queue, most)), settled=queue <= most, answer=answer)


def slowest(records: Sequence[Record], now: float) -> float:
    """p99 of the seconds of an answer, or the longest of fewer than 100; nothing of no answer.

    Args:
        now: what is under way has taken until then at least.
    """
    over = [record for record in records if not math.isnan(record.ended)]
    under_way = [now - record.intended for record in records if math.isnan(record.ended)]
    times = [*observations(over, "latency"), *((age, True) for age in under_way)]
    p99 = quantile(times, 0.99) if len(times) >= 100 else None
    return max((time for time, _ in times), default=0.0) if p99 is None else p99


def relaxation(records: Sequence[Record], single: Sequence[float], now: float) -> float:
    """Seconds in which the queue grows to nearly its length: 8 r w², see above.

    The wait w is by how much more time requests spend there than those without other load, by what
    is there in the later half (J. Little, "A Proof for the Queuing Formula L = λW", 1961): that
    counts those without an answer, too. Its uncertainty is taken off: service times that vary
    are no queue.
    """
    begin, rate = now / 2, len(records) / now
    ends = [now if math.isnan(record.ended) else record.ended for record in records]
    pairs = list(zip(records, ends, strict=True))
    there = sum(max(0.0, end - max(begin, record.intended)) for record, end in pairs)
    times = [end - record.intended for record, end in pairs if end >= begin]
    if len(times) < 2 or len(single) < 2:
        return 0.0
    error = _error(times) + 2 * _error(single)
    wait = there / (now - begin) / rate - statistics.fmean(single) - error
    return 8 * rate * max(0.0, wait) ** 2


def near_capacity(rate: float, capacity: float) -> float:
    """Seconds in which a queue forgets how it began, by what is offered of what is carried.

    The relaxation time of M/M/1, 1/(√capacity - √rate)² (P. Morse, "Stochastic Properties of
    Waiting Lines", 1955); inf where it never does.

    Args:
        rate, capacity: requests/s.
    """
    spare = math.sqrt(capacity) - math.sqrt(rate)
    return 1 / spare**2 if spare > 0 else math.inf


def _error(values: Sequence[float]) -> float:
    """The standard error of their mean, as if they were independent."""
    return statistics.stdev(values) / math.sqrt(len(values))
