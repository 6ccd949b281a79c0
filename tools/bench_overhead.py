#!/usr/bin/env python3
"""What llcuda-server costs between a llama-server and its clients: CPU, time, memory per token.

A synthetic upstream emits tokens at a known rate; the same streams are read directly, through
llcuda-server and, with --peer, through another program, in turns within one run.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence, Set
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path as FilePath
from tempfile import TemporaryDirectory
from typing import Any

ROOT = FilePath(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "protocol")]  # runs from anywhere, without being installed

from llcuda_net.cli.common import Parser
from llcuda_net.server.processes import database
from llcuda_net.util.terminal import echo, is_clever, status_line
from tools.load.chat import ChatConnection, PeerConnection, ResponsesConnection
from tools.load.streams import Connection, HttpConnection, LlcudaConnection
from tools.overhead import processes, profiling, report, results
from tools.overhead.measurement import ENDLESS, Path, Plan, Run, paced, saturated

EXAMPLE = """\
example:
  python tools/bench_overhead.py                       (4 minutes; nginx beside it where it is)
  python tools/bench_overhead.py --quick --http --peer nginx --peer litellm
  python tools/bench_overhead.py --quick --profile stacks.txt    (needs py-spy)
  python tools/bench_overhead.py --against older=../older/.venv/bin/llcuda-server --json o.json

Each repeat takes every path in turn. CPU is the process's own clock over --seconds; delays are from
a token's emission (it carries the time) to its arrival; first tokens are those of one more
connection that requests a single token again and again while the others stream. "Synchronised":
all streams' tokens are emitted together, as llama-server does; "spread": each at its own phase.
Saturated: the upstream sends as fast as it is read. A wake-up is a voluntary context switch; a step
is a token of every stream, or with spread arrivals a token. LiteLLM's proxy stands in front of an
llcuda-server, over HTTP; its CPU is its own alone, its delays hold those of both.

A run is begun again where other processes took more than a quarter of a core.

exit codes: 0 measured, 1 a run was invalid (tokens lost, the load could not keep up, or the machine
was busy at each try), 2 usage
"""
LEVELS = ("memory", "process", "disk", "strict", "cluster")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    out = Parser(
        description=__doc__.splitlines()[0] if __doc__ else None,
        epilog=EXAMPLE,
    )
    out.add_argument("--streams", type=_positive, default=64, help="connections (default 64)")
    out.add_argument("--rate", type=_above_0, default=50.0, help="tokens/s per stream (default 50)")
    out.add_argument("--seconds", type=_above_0, help="of each window (default 1)")
    out.add_argument("--warmup", type=_above_0, help="seconds before it (default 0.3)")
    out.add_argument("--repeats", type=_positive, help="of each path (default 8)")
    out.add_argument(
        "--arrivals",
        type=_some_of(results.ARRIVALS),
        default=results.ARRIVALS,
        metavar="KIND,…",
        help="of " + ", ".join(results.ARRIVALS) + " (default: all)",
    )
    out.add_argument(
        "--peer",
        action="append",
        choices=["nginx", "litellm", "none"],
        dest="peers",
        help="measured in turn with it (default: nginx, where it is installed)",
    )
    out.add_argument(
        "--http", action="store_true", help="also llcuda-server by HTTP, in a process of its own"
    )
    out.add_argument(
        "--responses", action="store_true", help="also by /v1/responses, in a process of its own"
    )
    out.add_argument("--seed", type=int, default=1)
    out.add_argument(
        "--quick", action="store_true", help="a look in half a minute: windows of 1 s, 1 repeat"
    )
    out.add_argument("--json", type=FilePath, metavar="FILE", help="write everything there")
    out.add_argument("--markdown", action="store_true", help="print the tables as Markdown")
    out.add_argument(
        "--show", type=FilePath, metavar="FILE", help="print what --json wrote, and measure nothing"
    )
    out.add_argument("--profile", type=FilePath, metavar="FILE", help="sampled stacks, by py-spy")
    beside = str(FilePath(sys.executable).with_name("llcuda-server"))
    out.add_argument(
        "--durability",
        type=_some_of(LEVELS),
        default=("memory", "disk"),
        metavar="LEVEL,…",
        help="the server's levels, a process each; memory keeps nothing, cluster has a "
        "PostgreSQL beside it, whose CPU is not counted (default memory,disk)",
    )
    out.add_argument("--server", default=beside, metavar="COMMAND", help="default: %(default)s")
    out.add_argument(
        "--against",
        action="append",
        type=_named,
        default=[],
        metavar="[NAME=]COMMAND",
        help="another llcuda-server, such as an earlier version, to measure in turn with it",
    )
    out.add_argument(
        "--pin",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="the load and the upstream on the first core, or two, what is measured on the others",
    )
    return out


def _named(text: str) -> tuple[str, str]:
    """A server's name, "against" if it is not given one, and its command."""
    name, equals, command = text.rpartition("=")
    if equals and not name.replace(".", "").isalnum():
        raise argparse.ArgumentTypeError(f"{name!r} is no name: letters, digits and full stops")
    return name or "against", command


def _some_of(names: Sequence[str]) -> Callable[[str], tuple[str, ...]]:
    """The type of an option that takes some of the names, separated by commas."""

    def some(text: str) -> tuple[str, ...]:
        found = tuple(dict.fromkeys(text.split(",")))
        if wrong := [name for name in found if name not in names]:
            raise argparse.ArgumentTypeError(f"{wrong[0]!r} is none of {', '.join(names)}")
        return found

    return some


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def _above_0(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError("must be above 0")
    return value


@dataclass(frozen=True)
class Cores:
    """Which cores the parts may run on; None: all."""

    load: Set[int] | None = None
    upstream: Set[int] | None = None
    measured: Set[int] | None = None

    @classmethod
    def apart(cls) -> Cores:
        """The load and the upstream apart from what is measured, where there are two cores."""
        cores = sorted(os.sched_getaffinity(0))
        if len(cores) < 2:
            return cls()
        rest = cores[1:] if len(cores) == 2 else cores[2:]
        return cls({cores[0]}, {cores[len(cores) > 2]}, set(rest))

    def __str__(self) -> str:
        if self.load is None or self.upstream is None or self.measured is None:
            return "No process is pinned to a core."
        if self.load == self.upstream:
            where = f"The load and the upstream share core {min(self.load)}"
        else:
            where = f"The load has core {min(self.load)}, the upstream {min(self.upstream)}"
        rest = ", ".join(map(str, sorted(self.measured)))
        return f"{where}, what is measured has {rest}."


class Bench:
    """The whole run. `runs` fills while it runs, so that an interrupted run can still report."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        seconds, warmup, repeats = (1.0, 0.3, 1) if args.quick else (1.0, 0.3, 8)
        seconds, warmup = args.seconds or seconds, args.warmup or warmup
        self.repeats: int = args.repeats or repeats
        self.cores = Cores.apart() if args.pin else Cores()
        shared = self.cores.load is not None and self.cores.load == self.cores.upstream
        self.plan = Plan(args.streams, args.rate, seconds, warmup, seconds, args.seed, shared)
        self.runs: list[Run] = []
        self.store: str | None = None
        #: How often a run may be begun again since the machine was busy.
        self.spare = 2 * self.repeats

    def all(self) -> None:
        """Every kind of arrivals, each with fresh processes."""
        for arrivals in self.args.arrivals:
            with ExitStack() as stack:
                stack.enter_context(processes.pinned(self.cores.load))
                ways = self._start(stack, arrivals)
                for repeat in range(self.repeats):
                    # Every second repeat backwards: whatever drifts meets all paths alike.
                    for way in ways if repeat % 2 == 0 else reversed(ways):
                        self._progress(f"{arrivals}, {repeat + 1}/{self.repeats}, {way.name}")
                        self.runs.append(self._one(way, arrivals, repeat))
                        while self.runs[-1].busy and self.spare > 0:
                            self.spare -= 1
                            self.runs.append(self._one(way, arrivals, repeat))
        self._progress("")

    def _start(self, stack: ExitStack, arrivals: str) -> list[Path]:
        rate = 0.0 if arrivals == "saturated" else self.plan.rate
        options = ["--rate", str(rate), "--slots", str(self.plan.streams + 1)]
        options += ["--ctx", str(ENDLESS + 10_000), "--seed", "0"]
        if arrivals == "spread":
            options.append("--spread")
        if arrivals != "saturated":
            options.append("--stamp")
        upstream = stack.enter_context(
            processes.synthetic_upstream(*options, cores=self.cores.upstream)
        )
        cores = self.cores.measured
        ways = [Path("direct", upstream.address, HttpConnection, upstream, None)]

        def add(name: str, client: type[Connection], process: processes.Child) -> None:
            child = stack.enter_context(process)
            ways.append(Path(name, child.address, client, upstream, child))

        if "nginx" in self.args.peers:
            add("nginx", HttpConnection, processes.nginx(upstream.address, cores=cores))
        if "litellm" in self.args.peers:  # it speaks OpenAI's API on both sides
            behind = stack.enter_context(self._server(self.args.server, upstream, "disk"))
            add("litellm", PeerConnection, processes.litellm(behind.address, cores=cores))
        self.store = None
        if "cluster" in self.args.durability:  # from the wheel, on this machine, with its fsync
            folder = stack.enter_context(TemporaryDirectory(prefix="llcuda-bench-"))
            self.store = stack.enter_context(database.running(FilePath(folder)))
        for level in self.args.durability:
            server = self._server(self.args.server, upstream, level)
            for name, command in self.args.against:
                other = self._server(command, upstream, level)
                add(f"{name}-{level}", LlcudaConnection, other)
            add(f"llcuda-{level}", LlcudaConnection, server)
            if self.args.http:
                server = self._server(self.args.server, upstream, level)
                add(f"http-{level}", ChatConnection, server)
            if self.args.responses:
                server = self._server(self.args.server, upstream, level)
                add(f"responses-{level}", ResponsesConnection, server)
        return ways

    def _server(self, command: str, upstream: processes.Child, level: str) -> processes.Child:
        store = self.store if level == "cluster" else None
        return processes.llcuda_server(
            command, upstream.address, level, store=store, cores=self.cores.measured
        )

    def _one(self, way: Path, arrivals: str, repeat: int) -> Run:
        if arrivals == "saturated":
            # Half as long: it has no probes, and a server's store grows by what it reads.
            run = saturated(way, replace(self.plan, seconds=self.plan.seconds / 2), repeat)
        else:
            run = paced(way, self.plan, arrivals, repeat)
        deadline = time.monotonic() + 10
        while _active(way.upstream.address) > 0:
            if time.monotonic() > deadline:
                run.problems.append("slots were still busy 10 s after the connections closed")
                break
            time.sleep(0.05)
        if run.problems and not run.busy and way.proxy is not None and (said := way.proxy.said()):
            self._progress("")
            echo(f"{way.name} said:\n{said}", file=sys.stderr)
        return run

    def profile(self, file: FilePath) -> str:
        """One more synchronised run, sampled; a table of where the time went."""
        self._progress("profile")
        with ExitStack() as stack:
            stack.enter_context(processes.pinned(self.cores.load))
            way = self._start(stack, "synchronised")[-1]
            assert way.proxy is not None
            plan = replace(self.plan, seconds=max(self.plan.seconds, profiling.SECONDS))
            seconds = plan.warmup + plan.seconds
            sampler = stack.enter_context(profiling.start(way.proxy.pid, seconds, file))
            stack.callback(sampler.terminate)
            run = paced(way, plan, "synchronised", 0)
            said, _ = sampler.communicate(timeout=60)
        self._progress("")
        if run.problems and not run.busy:  # the sampler is busy itself
            return f"the profiled run is invalid: {'; '.join(run.problems)}"
        if sampler.returncode != 0:
            return f"py-spy failed:\n{said.decode('utf-8', 'replace')}"
        cpu = run.figures["cpu_us_per_token"] or 0.0
        return f"profile ({cpu:.1f} us a token while sampled)\n{profiling.table(file)}"

    def _progress(self, text: str) -> None:
        if is_clever(sys.stderr):
            status_line(text, sys.stderr)


def _active(address: tuple[str, int]) -> int:
    connection = http.client.HTTPConnection(*address, timeout=10)
    connection.request("GET", "/synthetic")
    report: dict[str, Any] = json.load(connection.getresponse())
    connection.close()
    return int(report["active"]) + int(report["waiting"])


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the table, write the JSON."""
    args = parser().parse_args(argv)
    form = report.markdown if args.markdown else report.table
    if args.show is not None:
        echo(form(json.loads(args.show.read_text("utf-8"))))
        return 0
    if not FilePath("/proc/self/stat").exists():
        echo("this needs Linux: CPU and memory of a process are read from /proc", file=sys.stderr)
        return 2
    if args.peers is None:
        args.peers = ["nginx"] if processes.nginx_path() is not None else []
        if not args.peers:
            echo(f"nginx is not there to compare with: {processes.NGINX_INSTALL}", file=sys.stderr)
    if "nginx" in args.peers and processes.nginx_path() is None:
        echo(processes.NGINX_INSTALL, file=sys.stderr)
        return 2
    if "litellm" in args.peers and processes.litellm_path() is None:
        echo(processes.LITELLM_INSTALL, file=sys.stderr)
        return 2
    if args.profile is not None and profiling.py_spy() is None:
        echo(profiling.INSTALL, file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    bench = Bench(args)
    about = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": ["tools/bench_overhead.py", *(argv if argv is not None else sys.argv[1:])],
        "seed": args.seed,
        "settings": {
            "streams": args.streams,
            "rate": args.rate,
            "seconds": bench.plan.seconds,
            "warmup": bench.plan.warmup,
            "repeats": bench.repeats,
            "cores": str(bench.cores),
        },
    }
    try:
        bench.all()
        profile = bench.profile(args.profile) if args.profile is not None else None
    except processes.StartError as error:
        echo(str(error), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        echo("\ninterrupted", file=sys.stderr)
        return 130
    document = results.document(bench.runs, about)
    if not args.markdown:
        echo(
            f"{args.streams} streams at {args.rate:g} tokens/s, {bench.repeats} repeats of "
            f"{bench.plan.seconds:g} s: medians (least to greatest). {bench.cores}"
        )
    echo(form(document))
    if profile is not None:
        echo(f"\n{profile}")
    if args.json is not None:
        args.json.write_text(json.dumps(document, indent=1) + "\n", "utf-8")
    valid = results.valid(bench.runs)
    problems = [
        f"{run.arrivals}, {run.path}, repeat {run.repeat}: {problem}"
        for run in bench.runs
        for problem in run.problems
        if not valid[run.arrivals, run.path, run.repeat]
    ]
    if problems:
        echo("\nINVALID:\n  " + "\n  ".join(problems), file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
