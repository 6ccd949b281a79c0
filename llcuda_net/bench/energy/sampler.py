"""Reads the meters beside a measurement, and tells the joules of any window of it."""

from __future__ import annotations

import time
from array import array
from bisect import bisect_left
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import trio

from llcuda_net.batch.targets.opening import in_nursery
from llcuda_net.bench.energy import nvml, rapl
from llcuda_net.bench.energy.meters import Meter, MeterError, Missing

#: Seconds between two readings: a window's ends lie between two of them, and are interpolated.
PERIOD = 0.2
#: Seconds of looking at what is taken before anything is asked.
IDLE = 2.0


class Sampler:
    """Joules of each device over time.

    Args:
        missing: what tells nothing.

    Attributes:
        meters, missing: as given.
        idle_watts: by device, once `idle` has been called.
    """

    def __init__(self, meters: Sequence[Meter] = (), missing: Sequence[Missing] = ()) -> None:
        self.meters = list(meters)
        self.missing = list(missing)
        self.idle_watts: dict[str, float | None] = {}
        self._moments = {meter.name: array("d") for meter in meters}
        self._joules = {meter.name: array("d") for meter in meters}
        self._one = trio.Lock()

    def __repr__(self) -> str:
        return f"<Sampler of {len(self.meters)} devices>"

    async def run(self) -> None:
        """Read for ever."""
        while self.meters:
            await self.read()
            await trio.sleep(PERIOD)
        await trio.sleep_forever()

    async def read(self) -> None:
        """Read every meter once; one that fails is not read again, and is among the missing."""
        async with self._one:
            for meter in list(self.meters):
                # A driver may take milliseconds, by which requests would be sent too late.
                try:
                    if meter.blocks:
                        ahead = trio.current_time() - time.perf_counter()
                        middle, joules = await trio.to_thread.run_sync(_reading, meter)
                        moment = ahead + middle
                    else:
                        await trio.lowlevel.checkpoint()
                        moment = trio.current_time()
                        joules = meter.joules(moment)
                except MeterError as error:
                    self.meters.remove(meter)
                    kind = "gpu" if meter.kind == "gpu" else "cpu"
                    self.missing.append(Missing(kind, str(error)))
                    continue
                self._moments[meter.name].append(moment)
                self._joules[meter.name].append(joules)

    async def idle(self, seconds: float = IDLE) -> None:
        """What is taken while nothing is asked: `idle_watts`. Nothing else is to go on."""
        if not self.meters:
            return
        await self.read()
        begin = trio.current_time()
        await trio.sleep(seconds)
        end = trio.current_time()
        await self.read()
        self.idle_watts = {
            name: None if joules is None else joules / (end - begin)
            for name, joules in self.joules(begin, end).items()
        }

    def joules(self, begin: float, end: float) -> dict[str, float | None]:
        """What each device took from one moment of trio's clock to another.

        Returns:
            joules by the device's name; None where it was not read before and after.
        """
        found: dict[str, float | None] = {}
        for name in self._moments:
            first, last = self._at(name, begin), self._at(name, end)
            found[name] = None if first is None or last is None else last - first
        return found

    def _at(self, name: str, moment: float) -> float | None:
        """The joules at a moment: on the line between the readings before and after."""
        moments, joules = self._moments[name], self._joules[name]
        after = bisect_left(moments, moment)
        if after == len(moments):
            return None
        if moments[after] == moment:
            return joules[after]
        if after == 0:
            return None
        before = after - 1
        share = (moment - moments[before]) / (moments[after] - moments[before])
        return joules[before] + share * (joules[after] - joules[before])


def _reading(meter: Meter) -> tuple[float, float]:
    """When and what, in a thread: the middle of the time that it took, of the clock of `time`."""
    begin = time.perf_counter()
    joules = meter.joules(begin)
    return (begin + time.perf_counter()) / 2, joules


@asynccontextmanager
async def reading(sampler: Sampler) -> AsyncIterator[None]:
    """Read its meters until the block ends, and once more then: a window may end with it."""
    async with in_nursery() as nursery:
        nursery.start_soon(sampler.run)
        yield
        await sampler.read()
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def sampling(*, local: bool, wanted: bool = True) -> AsyncIterator[Sampler]:
    """A sampler of all that this machine tells, which reads until the block ends.

    Args:
        local: what is measured is on this machine; else nothing is read.
        wanted: else nothing is read, and nothing said to be missing.
    """
    if not wanted or not local:
        missing = [Missing("all", "the server is on another machine")] if wanted else []
        yield Sampler((), missing)
        return
    with nvml.meters() as (gpus, no_gpus):
        processors, no_processors = rapl.meters()
        sampler = Sampler([*gpus, *processors], [*no_gpus, *no_processors])
        async with reading(sampler):
            yield sampler
