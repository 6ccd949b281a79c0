#!/usr/bin/env python3
"""What a backlog of analysis costs those who ask meanwhile.

A store is filled with long results that nobody has analysed, and a server with the demonstration
model started on it: once without analysis, once with it. A client asks again and again, with pauses
in which the analysis begins, and measures the time to the first token and to the end. The rounds
alternate, so that what else the machine does meets both alike.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # so that the script runs from anywhere, without being installed

from llcuda_net import sync
from llcuda_net.cli.common import Parser
from llcuda_net.storage.records import Result, TokenLog
from llcuda_net.storage.results.sqlite import SqliteStore
from llcuda_net.util.terminal import echo
from tools.demo_model import corpus
from tools.eval_semantic import server

#: Answers of the corpus that one prompt, and one text, are made of: about 2,000 characters.
_ANSWERS = 12
_QUESTION, _TOKENS = "What is a slot?", 60
EXAMPLE = """\
example:
  python tools/bench_analysis.py --rounds 3 --json analysis.json
  python tools/bench_analysis.py --pause 2.8 --jitter 0.1 --requests 13  # it works in each pause
"""


@dataclass
class Times:
    """Seconds of each request, how the backlog moved, and the server's memory in MiB at the end."""

    first: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)
    analysed: int = 0
    memory: list[float] = field(default_factory=list)


def backlog(folder: Path, count: int, rng: random.Random) -> None:
    """Store long results."""
    answers = [entry.answer for entry in corpus.load()]

    def text() -> str:
        return " ".join(rng.choices(answers, k=_ANSWERS))

    store = SqliteStore(folder, write=True)
    store.put(
        [
            Result(
                id=f"long-{number:06d}",
                state="done",
                created=time.time_ns(),
                finished=time.time_ns(),
                request={"prompt": text()},
                log=TokenLog([text()], [1]),
                model={"name": "elsewhere"},
            )
            for number in range(count)
        ]
    )
    store.close()


def measure(options: argparse.Namespace, flag: str, rng: random.Random, into: Times) -> None:
    """One round: a new server, and requests with pauses."""
    with tempfile.TemporaryDirectory(prefix="llcuda-bench-") as name:
        backlog(Path(name), options.backlog, rng)
        with (
            server(name, flag, "--slots", str(options.slots)) as address,
            sync.connect(address) as client,
        ):
            time.sleep(options.settle)  # the kernels are loaded, once in a server's life
            before = client.status().get("analysis", {}).get("indexed", 0)
            for _ in range(options.requests):
                time.sleep(rng.uniform(1 - options.jitter, 1 + options.jitter) * options.pause)
                began = time.perf_counter()
                with client.generate(_QUESTION, temperature=0, n_predict=_TOKENS) as stream:
                    next(iter(stream))
                    into.first.append(time.perf_counter() - began)
                    for _ in stream:
                        pass
                into.whole.append(time.perf_counter() - began)
            into.memory.append(_resident())
            into.analysed += client.status().get("analysis", {}).get("indexed", 0) - before


def _resident() -> float:
    """Resident memory of the server, our only child, without its engine: MiB."""
    (child,) = Path("/proc/self/task", str(os.getpid()), "children").read_text("ascii").split()
    pages = int(Path("/proc", child, "statm").read_text("ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def figures(times: list[float]) -> dict[str, float]:
    """Milliseconds: median, 90th and 99th percentile, greatest."""
    ordered = sorted(times)
    chosen = {"median": 0.5, "p90": 0.9, "p99": 0.99, "greatest": 1.0}
    return {
        name: round(ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1e3, 1)
        for name, share in chosen.items()
    }


def ratio(without: list[float], beside: list[float], share: float) -> tuple[float, float, float]:
    """A quantile of the second sample over the first's; its 95 % interval, by bootstrap."""
    rng = random.Random(1)

    def at(sample: list[float]) -> float:
        return sorted(sample)[min(len(sample) - 1, int(share * len(sample)))]

    drawn = sorted(
        at(rng.choices(beside, k=len(beside))) / at(rng.choices(without, k=len(without)))
        for _ in range(1000)
    )
    return at(beside) / at(without), drawn[25], drawn[974]


def parser() -> argparse.ArgumentParser:
    """The command line."""
    out = Parser(
        description="Measure what a backlog of analysis costs those who ask meanwhile.",
        epilog=EXAMPLE,
    )
    out.add_argument("--rounds", type=int, default=3, help="servers of each kind (default: 3)")
    out.add_argument("--requests", type=int, default=80, help="in each round (default: 80)")
    out.add_argument("--pause", type=float, default=0.3, help="seconds between (default: 0.3)")
    out.add_argument(
        "--jitter", type=float, default=0.5, help="share by which a pause varies (default: 0.5)"
    )
    out.add_argument("--settle", type=float, default=6.0, help="seconds before (default: 6)")
    out.add_argument("--slots", type=int, default=4, help="of the engine (default: 4)")
    out.add_argument("--backlog", type=int, default=4000, help="results (default: 4000)")
    out.add_argument("--json", metavar="FILE", help="write the figures there as well")
    return out


def run(options: argparse.Namespace) -> int:
    """Measure and print; returns the exit code."""
    rng = random.Random(1)
    kinds = {"without analysis": "--no-analysis", "with a backlog": "--analysis"}
    found = {name: Times() for name in kinds}
    for _ in range(options.rounds):
        for name, flag in kinds.items():
            measure(options, flag, rng, found[name])
    report: dict[str, Any] = {}
    for name, times in found.items():
        report[name] = {
            "first_token_ms": figures(times.first),
            "whole_ms": figures(times.whole),
            "requests": len(times.first),
            "analysed_meanwhile": times.analysed,
            "memory_mib": round(max(times.memory)),
        }
        echo(name)
        for key, value in report[name].items():
            shown = value
            if isinstance(value, dict):
                shown = ", ".join(f"{part} {number}" for part, number in value.items())
            echo(f"  {key:<20} {shown}")
    without, beside = (times.first for times in found.values())
    ratios = {share: ratio(without, beside, share) for share in (0.5, 0.99)}
    for share, (middle, low, high) in ratios.items():
        name = f"p{100 * share:.0f}"
        report[f"first_token_ratio_{name}"] = [middle, low, high]
        echo(f"first token, {name}: {middle:.2f} of that without ({low:.2f} to {high:.2f}, 95 %)")
    if options.json:
        Path(options.json).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 0


def main() -> int:
    """Run; report faults that a user can mend in one line."""
    try:
        return run(parser().parse_args())
    except KeyboardInterrupt:
        return 130
    except (OSError, RuntimeError) as error:
        echo(f"bench_analysis: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
