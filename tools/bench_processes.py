#!/usr/bin/env python3
"""How tokens/s grow with llcuda-server --processes N: saturated, with 2 N synthetic upstreams.

For each N and level of durability: 2 N upstreams that send as fast as they are read, one server of
N processes, and N load generators with --connections each, every one of which asks for another
answer when the last has ended. With one process the server has the same PostgreSQL beside it, so
that only N differs.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), *(str(ROOT / part) for part in ("protocol", "kernels"))]

from llcuda_net.cli.common import Parser
from llcuda_net.cli.tables import table
from llcuda_net.server.processes.database import Database, running
from llcuda_net.util.terminal import echo
from tools.load.loop import LoadLoop
from tools.load.streams import LlcudaConnection, Recorder, Request
from tools.overhead.processes import Child, synthetic_upstream
from tools.overhead.usage import Usage, machine_cpu

EXAMPLE = """\
example:
  python tools/bench_processes.py --json processes.json          (5 minutes; 16 cores)
  python tools/bench_processes.py --processes 1,2 --seconds 2 --connections 8 --levels disk

"growth" is tokens/s over those of one process at that level, for each process. Shares are of a
core: of the busiest upstream and the busiest load generator, which must not be the limit (0.85).
exit codes: 0 measured, 1 something failed or was the limit, 2 usage
"""
LEVELS = ("disk", "cluster")
#: Seconds between two lines of a load generator.
_BEAT = 0.25
#: Most of a core that a load generator or an upstream may take.
_BUSY = 0.85
#: Seconds for all connections to have a token.
_PATIENCE = 60.0


@dataclass
class Run:
    """One measurement."""

    processes: int
    level: str
    repeat: int
    tokens_per_s: float = 0.0
    answers_per_s: float = 0.0
    growth: float | None = None
    server_cores: list[float] = field(default_factory=list)
    database_cores: float = 0.0
    upstream_share: float = 0.0
    load_share: float = 0.0
    machine_cores: float = 0.0
    cpu_us_per_token: float = 0.0
    connections: list[int] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    out = Parser(description=(__doc__ or "").splitlines()[0], epilog=EXAMPLE)
    out.add_argument("--processes", default="1,2,4", metavar="N,…", help="default 1,2,4")
    out.add_argument("--levels", default=",".join(LEVELS), metavar="LEVEL,…")
    out.add_argument("--connections", type=int, default=64, help="per process (default 64)")
    out.add_argument("--tokens", type=int, default=2000, help="of an answer (default 2000)")
    out.add_argument("--warmup", type=float, default=4.0, help="seconds before the window")
    out.add_argument("--seconds", type=float, default=6.0, help="of the window (default 6)")
    out.add_argument("--repeats", type=int, default=2, help="of everything (default 2)")
    out.add_argument("--budget", type=float, default=540.0, help="seconds in all (default 540)")
    out.add_argument("--json", metavar="FILE", help="all figures")
    out.add_argument("--load", metavar="PORT", type=int, help=argparse.SUPPRESS)
    out.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    return out


# -- the load -------------------------------------------------------------------------------------


def load(port: int, connections: int, tokens: int, seed: int) -> int:
    """Ask without an end, and say how much came: a line of JSON per beat."""
    loop, recorder = LoadLoop(), Recorder()
    made = [LlcudaConnection(("127.0.0.1", port), recorder, False) for _ in range(connections)]
    number = answers = 0

    def ask(connection: LlcudaConnection) -> Request:
        nonlocal number
        number += 1
        return connection.ask(f"load {seed}: question {number}", tokens)

    for connection in made:
        loop.add(connection)
    running_now = {connection: ask(connection) for connection in made}
    due = time.monotonic()

    def step() -> float:
        nonlocal due, answers
        for connection, request in running_now.items():
            if request.ended:
                answers += 1
                running_now[connection] = ask(connection)
        now = time.monotonic()
        if now >= due:
            due = now + _BEAT
            flowing = answers > 0 or all(one.count for one in running_now.values())
            said = [now, recorder.tokens, answers, time.process_time(), flowing]
            echo(json.dumps(said), flush=True)
        return due - now

    loop.run(3600, step)
    return 0


class Load:
    """A load generator in a process of its own, whose last lines can be looked at."""

    def __init__(self, port: int, options: argparse.Namespace, seed: int) -> None:
        command = [sys.executable, __file__, "--load", str(port), "--seed", str(seed)]
        command += ["--connections", str(options.connections), "--tokens", str(options.tokens)]
        self._folder = tempfile.TemporaryDirectory()
        self._path = Path(self._folder.name) / "out"
        with self._path.open("wb") as out, (self._path.with_name("err")).open("wb") as err:
            self._process = subprocess.Popen(command, stdout=out, stderr=err)

    def said(self) -> list[list[Any]]:
        """Its lines so far."""
        lines = self._path.read_text().splitlines()
        return [json.loads(line) for line in lines if line.endswith("]")]

    def failure(self) -> str:
        """Why it ended; empty: it has not."""
        if self._process.poll() is None:
            return ""
        text = self._path.with_name("err").read_text().strip()
        return text.splitlines()[-1] if text else f"exit code {self._process.returncode}"

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        self._folder.cleanup()


# -- the server -----------------------------------------------------------------------------------


@contextmanager
def server(processes: int, level: str, upstreams: Sequence[Child]) -> Iterator[tuple[Child, int]]:
    """A server, and the pid of PostgreSQL."""
    with tempfile.TemporaryDirectory(prefix="llcuda-processes-", dir="/tmp") as folder:
        data = Path(folder) / "data"
        data.mkdir(mode=0o700)
        command = [sys.executable, "-m", "llcuda_net.cli.server", "--port", "0", "--no-analysis"]
        command += ["--durability", level, "--drain-seconds", "0", "--log-level", "warning"]
        for upstream in upstreams:
            command += ["--upstream", "http://{}:{}".format(*upstream.address)]
        environment = {"PYTHONPATH": os.pathsep.join([*sys.path[:3], _python_path()])}
        with ExitStack() as stack:
            if processes == 1:
                url = stack.enter_context(running(data))
                command += ["--store", url, "--data-dir", f"{data}/processes/1"]
            else:
                command += ["--processes", str(processes), "--data-dir", str(data)]
            found = Child("llcuda-server", command, environment=environment, patience=120)
            stack.enter_context(found)
            _settle(Database(data).url, processes)
            postmaster = int((data / "postgres/data/postmaster.pid").read_text().split()[0])
            yield found, postmaster


def _settle(url: str, processes: int) -> None:
    """Return when each process has its two upstreams: one that comes later gets what is idle.

    Raises:
        RuntimeError: that took too long.
    """
    import psycopg  # extra cluster

    counts = "SELECT count(*) FROM llcuda.upstreams WHERE server IS NOT NULL GROUP BY server"
    until = time.monotonic() + _PATIENCE
    with psycopg.connect(url, autocommit=True) as connection:
        while connection.execute(counts).fetchall() != [(2,)] * processes:
            if time.monotonic() > until:
                raise RuntimeError(f"not each process got two upstreams in {_PATIENCE:g} s")
            time.sleep(_BEAT)


def _python_path() -> str:
    return os.environ.get("PYTHONPATH", "")


def serving(child: Child, processes: int) -> list[int]:
    """The pids of the processes that serve."""
    if processes == 1:
        return [child.pid]
    return [pid for pid in children(child.pid) if "--as-process" in command_of(pid)]


def children(pid: int) -> list[int]:
    """Those whose parent a process is."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, ValueError, IndexError):
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            if int(fields[1]) == pid:
                found.append(int(entry.name))
    return found


def command_of(pid: int) -> list[str]:
    """Its command line."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    return []


def cpu(pids: Sequence[int]) -> float:
    """Seconds of the processor that they took, those of children that live included."""
    total = 0.0
    for pid in pids:
        with suppress(OSError):
            total += Usage.of(pid).cpu
    return total


def own(pid: int) -> float:
    """Seconds of the processor that a process took itself; 0 for one that has ended."""
    with suppress(OSError):
        return time.clock_gettime((~pid << 3) | 2)
    return 0.0


def connections_of(pids: Sequence[int], port: int) -> list[int]:
    """How many connections to a port each process has."""
    mine = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if int(fields[1].rpartition(":")[2], 16) == port and fields[3] == "01":
            mine.add(f"socket:[{fields[9]}]")
    out = []
    for pid in pids:
        count = 0
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                count += str(entry.readlink()) in mine
        out.append(count)
    return out


# -- measuring ------------------------------------------------------------------------------------


def measure(options: argparse.Namespace, processes: int, level: str, repeat: int) -> Run:
    """One run."""
    run = Run(processes, level, repeat)
    with ExitStack() as stack:
        rate = ("--rate", "0", "--slots", str(2 * options.connections), "--ctx", "1000000")
        upstreams = [stack.enter_context(synthetic_upstream(*rate)) for _ in range(2 * processes)]
        child, postmaster = stack.enter_context(server(processes, level, upstreams))
        loads = []
        for number in range(processes):
            loads.append(Load(child.address[1], options, number))
            stack.callback(loads[-1].close)
        _flow(loads)
        time.sleep(options.warmup)
        pids = serving(child, processes)
        run.connections = connections_of(pids, child.address[1])
        before = _now(pids, postmaster, upstreams)
        time.sleep(options.seconds)
        after = _now(pids, postmaster, upstreams)
        time.sleep(2 * _BEAT)
        if failures := [text for one in loads if (text := one.failure())]:
            run.problems += failures
        _figures(run, before, after, loads)
    return run


def _flow(loads: Sequence[Load]) -> None:
    """Return when every connection of all has had a token.

    Raises:
        RuntimeError: a load generator ended, or it took too long.
    """
    until = time.monotonic() + _PATIENCE
    while not all(lines and lines[-1][4] for lines in (one.said() for one in loads)):
        if failures := [text for one in loads if (text := one.failure())]:
            raise RuntimeError(failures[0])
        if time.monotonic() > until:
            raise RuntimeError(f"not all connections got a token in {_PATIENCE:g} s")
        time.sleep(_BEAT)


def _now(pids: Sequence[int], postmaster: int, upstreams: Sequence[Child]) -> dict[str, Any]:
    return {
        "time": time.monotonic(),
        "server": [cpu([pid]) for pid in pids],
        "database": {pid: own(pid) for pid in [postmaster, *children(postmaster)]},
        "upstreams": [cpu([one.pid]) for one in upstreams],
        "machine": machine_cpu(),
    }


def _figures(
    run: Run, before: dict[str, Any], after: dict[str, Any], loads: Sequence[Load]
) -> None:
    seconds = after["time"] - before["time"]
    run.server_cores = [
        (late - early) / seconds
        for early, late in zip(before["server"], after["server"], strict=True)
    ]
    run.database_cores = (
        sum(after["database"].values())
        - sum(before["database"].get(pid, 0.0) for pid in after["database"])
    ) / seconds
    run.upstream_share = max(
        (late - early) / seconds
        for early, late in zip(before["upstreams"], after["upstreams"], strict=True)
    )
    run.machine_cores = (after["machine"] - before["machine"]) / seconds
    for one in loads:
        inside = [line for line in one.said() if before["time"] <= line[0] <= after["time"]]
        if len(inside) < 2:
            run.problems.append("a load generator said too little")
            continue
        (t0, tokens0, answers0, cpu0, _), (t1, tokens1, answers1, cpu1, _) = inside[0], inside[-1]
        run.tokens_per_s += (tokens1 - tokens0) / (t1 - t0)
        run.answers_per_s += (answers1 - answers0) / (t1 - t0)
        run.load_share = max(run.load_share, (cpu1 - cpu0) / (t1 - t0))
    if run.tokens_per_s:
        run.cpu_us_per_token = sum(run.server_cores) * 1e6 / run.tokens_per_s
    for who, share in (("an upstream", run.upstream_share), ("a load generator", run.load_share)):
        if share > _BUSY:
            run.problems.append(f"{who} took {share:.0%} of a core: it was the limit")


def show(runs: Sequence[Run]) -> Iterator[str]:
    """A table, the best of each kind's repeats."""
    best: dict[tuple[str, int], Run] = {}
    for run in runs:
        at = (run.level, run.processes)
        if at not in best or run.tokens_per_s > best[at].tokens_per_s:
            best[at] = run
    for run in runs:
        one = best.get((run.level, 1))
        if one is not None and one.tokens_per_s:
            run.growth = run.tokens_per_s / one.tokens_per_s / run.processes
    rows = [
        (
            run.level,
            str(run.processes),
            f"{run.tokens_per_s:,.0f}",
            "" if run.growth is None else f"{run.growth:.2f}",
            f"{run.cpu_us_per_token:.1f}",
            " ".join(f"{one:.2f}" for one in run.server_cores),
            f"{run.database_cores:.2f}",
            f"{run.upstream_share:.2f}",
            f"{run.load_share:.2f}",
            " ".join(map(str, run.connections)),
            f"{run.answers_per_s:,.0f}",
            "; ".join(run.problems),
        )
        for _, run in sorted(best.items())
    ]
    head = "level,N,tokens/s,growth,µs/token,cores of each,PostgreSQL,upstream,load,connections"
    head += ",answers/s,problems"
    yield from table(head.split(","), rows, right=frozenset({1, 2, 3, 4, 6, 7, 8, 10}))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    options = parser().parse_args(argv)
    if options.load is not None:
        return load(options.load, options.connections, options.tokens, options.seed)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    end = time.monotonic() + options.budget
    counts = [int(text) for text in options.processes.split(",")]
    runs: list[Run] = []
    longest = 0.0
    for repeat in range(options.repeats):
        for level in options.levels.split(","):
            for processes in counts:
                began = time.monotonic()
                if began + longest > end:
                    break
                try:
                    run = measure(options, processes, level, repeat)
                except Exception as error:  # the others are measured all the same
                    run = Run(processes, level, repeat, problems=[f"{error}"[:500]])
                longest = max(longest, time.monotonic() - began)
                runs.append(run)
                echo(json.dumps(asdict(run)), file=sys.stderr, flush=True)
    lines = [*show(runs)]
    for line in lines:
        echo(line)
    if options.json:
        found = {"cores": os.cpu_count(), "connections": options.connections}
        found |= {"tokens": options.tokens, "runs": [asdict(run) for run in runs], "table": lines}
        Path(options.json).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 1 if any(run.problems for run in runs) else 0


if __name__ == "__main__":
    sys.exit(main())
