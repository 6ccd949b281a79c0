#!/usr/bin/env python3
"""How many servers one PostgreSQL carries: a simulation of its cores, its log and its locks."""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
from collections import deque
from collections.abc import Generator, Sequence
from dataclasses import asdict, dataclass
from heapq import heappop, heappush
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "protocol")]  # runs from anywhere, without being installed

from llcuda_net.cli.common import Parser
from llcuda_net.cli.tables import table
from llcuda_net.util.terminal import echo
from tools.campaign import command

EXAMPLE = """\
example:
  python tools/cluster_limits.py
  python tools/cluster_limits.py --streams 256 --rate 100 --tokens 200 --cores 32 --sync-ms 0.1

A server commits a batch of tokens every 4 ms, and its results in transactions of up to 256, one at
a time. A commit needs a core for a while, then the log's next sync, which all that wait for it
share; one that stores results holds the row `store` from its last statement to its end.

"batch" and "result" are milliseconds from the beginning of a transaction to its commit, 99 of 100.
A database is full where results come faster than they are stored, or nine tenths of its cores or
of the row's time are used.

exit codes: 0, 2 usage
"""
#: Seconds from one batch of a server to the next: cluster/committer.py's EVERY.
_EVERY = 0.004
#: Results of one transaction, at most: storage/results/writer.py.
_AT_ONCE = 256
#: Seconds that do not count.
_BEGINNING = 1.0
#: Part of cores, or of the row's time, from which on a database is full.
_FULL = 0.9


@dataclass(frozen=True)
class Costs:
    """What a database does for it. Times in seconds.

    Attributes:
        cores: of its machine.
        sync: of its log, to the disk or to a standby.
        trip: of the network, there and back.
        batch: of a core, for a batch of tokens.
        result: of a core, for a result, with its words for the search.
        row: of those, how long it holds the row `store`, for each result.
        lease: of a core, for a renewal, one per server and second.
    """

    cores: int = 16
    sync: float = 0.0005
    trip: float = 0.0002
    batch: float = 0.00013
    result: float = 0.001
    row: float = 0.00015
    lease: float = 0.0002


@dataclass(frozen=True)
class Load:
    """What each server has to do.

    Attributes:
        streams: answers that are generated at once.
        rate: tokens per second of each.
        tokens: of an answer.
    """

    streams: int = 64
    rate: float = 50.0
    tokens: int = 500

    @property
    def results(self) -> float:
        """Answers that end, per second."""
        return self.streams * self.rate / self.tokens


@dataclass(frozen=True)
class Found:
    """What a number of servers has met. Times in milliseconds, shares of one."""

    servers: int
    streams: int
    tokens_per_s: float
    results_per_s: float
    batch_ms: float
    result_ms: float
    cores: float
    row: float
    full: bool


_WRONG = "counts must be above 0, times not below, and --row-ms at most --result-ms"
#: A task: it yields until when it sleeps; None: until somebody wakes it.
Task = Generator[float | None, None, None]


class Database:
    """Its cores and its log, each with a queue in the order of arrival; times must not go back."""

    def __init__(self, costs: Costs) -> None:
        self._costs = costs
        self._free = [0.0] * costs.cores  # when each core is free
        self._sync = 0.0  # when the sync that runs, or ran last, ends
        self._another = False  # whether somebody waits for the one behind it
        self.busy = 0.0

    def compute(self, now: float, seconds: float) -> float:
        """When that much work is done that comes now."""
        end = max(now, heappop(self._free)) + seconds
        heappush(self._free, end)
        self.busy += seconds
        return end

    def commit(self, now: float) -> float:
        """When what asks now is on the disk: with the sync that begins next."""
        if self._another and now >= self._sync:
            self._sync += self._costs.sync
            self._another = False
        if now >= self._sync:
            self._sync = now + self._costs.sync
            return self._sync
        self._another = True
        return self._sync + self._costs.sync


class Simulation:
    """So many servers for so many seconds, after one for the beginning."""

    def __init__(self, costs: Costs, load: Load, servers: int, seconds: float, seed: int) -> None:
        self._costs, self._load, self._servers = costs, load, servers
        self._seconds = seconds
        self._random = random.Random(seed)
        self._database = Database(costs)
        self._now = 0.0
        self._tasks: list[tuple[float, int, Task]] = []
        self._started = 0
        self._unstored = [0] * servers
        self._storing: list[Task] = []
        self._row_wanted: deque[Task] = deque()
        self._row_taken = False
        self._held = 0.0  # seconds for which the row was
        self._batches: list[float] = []
        self._results: list[float] = []
        self._stored = 0

    def run(self) -> Found:
        """What it comes to."""
        for server in range(self._servers):
            storing = self._store(server)
            self._storing.append(storing)
            for task in (self._tokens(), self._answers(server), storing, self._renew()):
                self._plan(self._random.random() * _EVERY, task)
        self._go(_BEGINNING)
        busy, held, stored = self._database.busy, self._held, self._stored
        unstored = sum(self._unstored)
        self._batches.clear()
        self._results.clear()
        self._go(_BEGINNING + self._seconds)
        cores = (self._database.busy - busy) / self._seconds / self._costs.cores
        row = (self._held - held) / self._seconds
        # It grows by a tenth of what comes: they are not stored as fast.
        behind = sum(self._unstored) - unstored > 0.1 * self._expected
        streams = self._servers * self._load.streams
        return Found(
            self._servers,
            streams,
            streams * self._load.rate,
            (self._stored - stored) / self._seconds,
            1000 * _quantile(self._batches),
            1000 * _quantile(self._results),
            min(cores, 1.0),
            min(row, 1.0),
            behind or max(cores, row) >= _FULL,
        )

    @property
    def _expected(self) -> float:
        return self._servers * self._load.results * self._seconds

    def _go(self, until: float) -> None:
        while self._tasks[0][0] < until:
            self._now, _, task = heappop(self._tasks)
            when = next(task)
            if when is not None:
                self._plan(when, task)

    def _plan(self, when: float, task: Task) -> None:
        self._started += 1
        heappush(self._tasks, (when, self._started, task))

    def _tokens(self) -> Task:
        """A server's batches."""
        while True:
            begun = self._now
            yield begun + self._costs.trip / 2
            yield self._database.compute(self._now, self._costs.batch)
            yield self._database.commit(self._now)
            yield self._now + self._costs.trip / 2
            self._batches.append(self._now - begun)
            yield max(self._now, begun + _EVERY)

    def _answers(self, server: int) -> Task:
        """Its answers come to their ends."""
        while True:
            yield self._now + self._random.expovariate(self._load.results)
            self._unstored[server] += 1

    def _store(self, server: int) -> Task:
        """Its results are stored."""
        costs, database = self._costs, self._database
        while True:
            while not self._unstored[server]:
                yield self._now + 0.001
            count = min(_AT_ONCE, self._unstored[server])
            self._unstored[server] -= count
            begun = self._now
            yield begun + costs.trip / 2
            yield database.compute(self._now, count * (costs.result - costs.row))
            if self._row_taken:
                self._row_wanted.append(self._storing[server])
                yield None
            self._row_taken, since = True, self._now
            yield database.compute(self._now, count * costs.row)
            yield database.commit(self._now)
            self._held += self._now - since
            self._row_taken = False
            if self._row_wanted:
                self._row_taken = True
                self._plan(self._now, self._row_wanted.popleft())
            yield self._now + costs.trip / 2
            self._stored += count
            self._results.append(self._now - begun)

    def _renew(self) -> Task:
        """Its lease."""
        while True:
            yield self._database.compute(self._now, self._costs.lease)
            yield self._database.commit(self._now)
            yield self._now + 1.0


def _quantile(times: Sequence[float]) -> float:
    """That of 99 of 100; nan: there is none."""
    return sorted(times)[int(0.99 * (len(times) - 1))] if times else math.nan


def parser() -> argparse.ArgumentParser:
    """The command line."""
    out = Parser(description=__doc__, epilog=EXAMPLE)
    costs, load = Costs(), Load()
    out.add_argument("--servers", metavar="N,…", default="1,2,4,8,16,32,64,128")
    out.add_argument("--streams", type=command.positive, default=load.streams, help="per server")
    out.add_argument("--rate", type=float, default=load.rate, help="tokens/s of a stream")
    out.add_argument("--tokens", type=command.positive, default=load.tokens, help="of an answer")
    out.add_argument("--cores", type=command.positive, default=costs.cores, help="of the database")
    for name, what in (
        ("sync", "of its log"),
        ("trip", "of the network, there and back"),
        ("batch", "of a core, for a batch of tokens"),
        ("result", "of a core, for a result"),
        ("row", "of those, holding the row `store`"),
        ("lease", "of a core, for a renewal"),
    ):
        default = 1000 * getattr(costs, name)
        out.add_argument(f"--{name}-ms", type=float, default=default, help=f"{what} ({default:g})")
    out.add_argument("--seconds", type=float, default=5.0, help="to simulate (%(default)s)")
    out.add_argument("--seed", type=int, default=1)
    out.add_argument("--json", type=Path, metavar="FILE", help="write everything there")
    return out


def main(arguments: Sequence[str] | None = None) -> int:
    """Simulate each number of servers."""
    options = parser().parse_args(arguments)
    try:
        numbers = [int(one) for one in options.servers.split(",")]
        times = {
            name: getattr(options, f"{name}_ms") / 1000
            for name in ("sync", "trip", "batch", "result", "row", "lease")
        }
        if min([*numbers, options.rate, options.seconds]) <= 0 or min(times.values()) < 0:
            raise ValueError
        if times["row"] > times["result"]:
            raise ValueError
    except ValueError:
        echo(f"error: {_WRONG}", file=sys.stderr)
        return 2
    costs = Costs(cores=options.cores, **times)
    load = Load(options.streams, options.rate, options.tokens)
    found = [Simulation(costs, load, one, options.seconds, options.seed).run() for one in numbers]
    rows = [
        [
            f"{one.servers}",
            f"{one.streams:,}",
            f"{one.tokens_per_s:,.0f}",
            f"{one.results_per_s:,.0f}",
            f"{one.batch_ms:.1f}",
            f"{one.result_ms:.1f}",
            f"{100 * one.cores:.0f} %",
            f"{100 * one.row:.0f} %",
            "full" if one.full else "",
        ]
        for one in found
    ]
    names = ["servers", "streams", "tokens/s", "results/s", "batch", "result", "cores", "row", ""]
    for line in table(names, rows, right=frozenset(range(8))):
        echo(line)
    if options.json:
        document = {
            "costs": asdict(costs),
            "load": asdict(load),
            "found": [asdict(one) for one in found],
        }
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
