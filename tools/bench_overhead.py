#!/usr/bin/env python3
"""What llcuda-server costs between a llama-server and its clients: CPU, time, memory per token.

A synthetic upstream emits tokens at a known rate; the same streams are read directly, through
llcuda-server and, with --peer, through another program, in turns within one run.
"""

from __future__ import annotations

import argparse
import http.client
import json
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path as FilePath
from typing import Any

ROOT = FilePath(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "protocol")]  # runs from anywhere, without being installed

from llcuda_net.cli.common import Parser
from llcuda_net.util.terminal import echo, is_clever, status_line
from tools.load.chat import ChatConnection, PeerConnection
from tools.load.streams import HttpConnection, LlcudaConnection
from tools.overhead import processes, profiling, results
from tools.overhead.measurement import Path, Plan, Run, paced, saturated

EXAMPLE = """\
example:
  python tools/bench_overhead.py --peer nginx --json overhead.json
  python tools/bench_overhead.py --quick --http --peer nginx --peer litellm
  python tools/bench_overhead.py --quick --profile stacks.txt    (needs py-spy)
  python tools/bench_overhead.py --against ../older/.venv/bin/llcuda-server

Each repeat takes every path in turn. CPU is the process's own clock over --seconds; delays are from
a token's emission (it carries the time) to its arrival; first tokens are those of one more
connection that requests a single token again and again while the others stream. "Synchronised":
all streams' tokens are emitted together, as llama-server does; "spread": each at its own phase.
Saturated: the upstream sends as fast as it is read. LiteLLM's proxy stands in front of an
llcuda-server, over HTTP; its CPU is its own alone, its delays hold those of both.

exit codes: 0 measured, 1 a run was invalid (tokens lost, or the load could not keep up), 2 usage
"""
#: Context and length of a saturated stream, in tokens: more than can arrive.
ENDLESS = 1_000_000_000


def parser() -> argparse.ArgumentParser:
    """The command line."""
    out = Parser(
        description=__doc__.splitlines()[0] if __doc__ else None,
        epilog=EXAMPLE,
    )
    out.add_argument("--streams", type=_positive, default=64, help="connections (default 64)")
    out.add_argument("--rate", type=_above_0, default=50.0, help="tokens/s per stream (default 50)")
    out.add_argument("--seconds", type=_above_0, help="of each window (default 10)")
    out.add_argument("--warmup", type=_above_0, help="seconds before it (default 1)")
    out.add_argument("--repeats", type=_positive, help="of each path (default 5)")
    out.add_argument(
        "--peer", action="append", choices=["nginx", "litellm"], default=[], dest="peers"
    )
    out.add_argument(
        "--http", action="store_true", help="also llcuda-server by HTTP, in a process of its own"
    )
    out.add_argument("--seed", type=int, default=1)
    out.add_argument(
        "--quick", action="store_true", help="a look in 20 s: windows of 1 s, 1 repeat"
    )
    out.add_argument("--json", type=FilePath, metavar="FILE", help="write everything there")
    out.add_argument("--profile", type=FilePath, metavar="FILE", help="sampled stacks, by py-spy")
    beside = str(FilePath(sys.executable).with_name("llcuda-server"))
    out.add_argument(
        "--durability",
        choices=("memory", "process", "disk", "strict"),
        default="disk",
        help="the server's level; memory keeps nothing (default %(default)s)",
    )
    out.add_argument("--server", default=beside, metavar="COMMAND", help="default: %(default)s")
    out.add_argument(
        "--against",
        metavar="COMMAND",
        help="another llcuda-server, such as an earlier version, to measure in turn with it",
    )
    return out


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


class Bench:
    """The whole run. `runs` fills while it runs, so that an interrupted run can still report."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        seconds, warmup, repeats = (1.0, 0.3, 1) if args.quick else (10.0, 1.0, 5)
        seconds, warmup = args.seconds or seconds, args.warmup or warmup
        self.repeats: int = args.repeats or repeats
        self.plan = Plan(args.streams, args.rate, seconds, warmup, seconds / 2, args.seed)
        self.runs: list[Run] = []

    def all(self) -> None:
        """Every kind of arrivals, each with fresh processes."""
        paths = 2 + len(self.args.peers) + (self.args.against is not None) + self.args.http
        total = 3 * self.repeats * paths
        for arrivals in (*results.ARRIVALS, "saturated"):
            with ExitStack() as stack:
                ways = self._start(stack, arrivals)
                for repeat in range(self.repeats):
                    # Every second repeat backwards: whatever drifts meets all paths alike.
                    for way in ways if repeat % 2 == 0 else reversed(ways):
                        self._progress(f"{len(self.runs) + 1}/{total} {arrivals}, {way.name}")
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
        upstream = stack.enter_context(processes.synthetic_upstream(*options))
        ways = [Path("direct", upstream.address, HttpConnection, upstream, None)]
        for peer in self.args.peers:
            if peer == "litellm":  # it speaks OpenAI's API on both sides
                behind = stack.enter_context(self._server(upstream))
                child = stack.enter_context(processes.litellm(behind.address))
                ways.append(Path(peer, child.address, PeerConnection, upstream, child))
                continue
            child = stack.enter_context(processes.nginx(upstream.address))
            ways.append(Path(peer, child.address, HttpConnection, upstream, child))
        commands = [("against", self.args.against), ("llcuda", self.args.server)]
        for name, command in commands:
            if command is not None:
                server = processes.llcuda_server(command, upstream.address, self.args.durability)
                child = stack.enter_context(server)
                ways.append(Path(name, child.address, LlcudaConnection, upstream, child))
        if self.args.http:
            child = stack.enter_context(self._server(upstream))
            ways.append(Path("llcuda-http", child.address, ChatConnection, upstream, child))
        return ways

    def _server(self, upstream: processes.Child) -> processes.Child:
        return processes.llcuda_server(self.args.server, upstream.address, self.args.durability)

    def _one(self, way: Path, arrivals: str, repeat: int) -> Run:
        if arrivals == "saturated":
            run = saturated(way, self.plan, repeat, ENDLESS)
        else:
            run = paced(way, self.plan, arrivals, repeat)
        deadline = time.monotonic() + 10
        while _active(way.upstream.address) > 0:
            if time.monotonic() > deadline:
                run.problems.append("slots were still busy 10 s after the connections closed")
                break
            time.sleep(0.05)
        if run.problems and way.proxy is not None and (said := way.proxy.said()):
            self._progress("")
            echo(f"{way.name} said:\n{said}", file=sys.stderr)
        return run

    def profile(self, file: FilePath) -> str:
        """One more synchronised run, sampled; a table of where the time went."""
        self._progress("profile")
        with ExitStack() as stack:
            way = self._start(stack, "synchronised")[-1]
            assert way.proxy is not None
            plan = replace(self.plan, seconds=max(self.plan.seconds, profiling.SECONDS))
            seconds = plan.warmup + plan.seconds
            sampler = stack.enter_context(profiling.start(way.proxy.pid, seconds, file))
            stack.callback(sampler.terminate)
            run = paced(way, plan, "synchronised", 0)
            said, _ = sampler.communicate(timeout=60)
        self._progress("")
        if run.problems:
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
    if not FilePath("/proc/self/stat").exists():
        echo("this needs Linux: CPU and memory of a process are read from /proc", file=sys.stderr)
        return 2
    if "nginx" in args.peers and processes.nginx_path() is None:
        echo("nginx is not installed (Debian: apt-get install nginx-light)", file=sys.stderr)
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
    echo(
        f"{args.streams} streams at {args.rate:g} tokens/s, {bench.repeats} repeats of "
        f"{bench.plan.seconds:g} s: medians (least to greatest)"
    )
    echo(results.table(document))
    if args.against is not None:
        echo("\n".join(results.ratios(bench.runs)))
    if profile is not None:
        echo(f"\n{profile}")
    if args.json is not None:
        args.json.write_text(json.dumps(document, indent=1) + "\n", "utf-8")
    problems = [
        f"{run.arrivals}, {run.path}, repeat {run.repeat}: {problem}"
        for run in bench.runs
        for problem in run.problems
    ]
    if problems:
        echo("\nINVALID:\n  " + "\n  ".join(problems), file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
