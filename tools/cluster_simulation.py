#!/usr/bin/env python3
"""Simulate a cluster in trouble, thousands of times, under virtual time."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "protocol")]  # runs from anywhere, without being installed

from llcuda_net.cli.common import Parser
from llcuda_net.util.terminal import echo
from tools.campaign import command
from tools.simulated_cluster.world import BROKEN, Plan, Run, World

EXAMPLE = """\
example:
  python tools/cluster_simulation.py --runs 10000
  python tools/cluster_simulation.py --seed 4711 --runs 1 --told

In each run three servers share a modelled database and four upstreams, and eight clients ask for
answers and read them, anywhere. Membership, mirror, recovery, takeover, what is done with the
standing, the choice of upstreams and handing over are the product's; time is virtual, clocks go at
different speeds, and all that is random follows from the seed. For 20 s servers are stopped, killed
for good or started again, told to end, cut off from the database or an upstream; the database is
away; requests and answers are slow, lost, done twice, or done long after. Then all is healed.

Checked: what a reader was shown is what is stored, piece by piece, whoever it read from; each piece
was made once; each epoch has one owner, and epochs grow; what was accepted is stored; of a key
there is one generation; an upstream is asked by one server at a time; everything comes to its end,
and nothing is left open.

Afterwards clusters that are broken on purpose are run, until each is found out.

exit codes: 0 all is well, 1 something is not, 2 usage, 130 interrupted
"""
#: Runs in which a cluster that is broken on purpose must be found out.
CONTROL = 100
#: Runs from one line about how far it is to the next.
_TELL = 500


def parser() -> argparse.ArgumentParser:
    """The command line."""
    out = Parser(description=__doc__, epilog=EXAMPLE)
    out.add_argument("--runs", type=command.positive, default=1000, help="(default %(default)s)")
    out.add_argument("--seed", type=int, default=1, help="of the first run (default %(default)s)")
    out.add_argument("--workers", type=command.positive, default=os.cpu_count() or 1)
    out.add_argument("--break", dest="broken", choices=[*BROKEN], default="")
    out.add_argument("--no-controls", action="store_true", help="try no broken cluster")
    out.add_argument("--told", action="store_true", help="show what happened in the last run")
    out.add_argument("--json", type=Path, metavar="FILE", help="write everything there")
    return out


def one(plan: Plan) -> Run:
    """One run."""
    return World(plan).go()


def runs(plans: Sequence[Plan], workers: int) -> Iterable[Run]:
    """All of them, in their order."""
    if workers == 1 or len(plans) == 1:
        yield from map(one, plans)
        return
    with multiprocessing.get_context("spawn").Pool(min(workers, len(plans))) as pool:
        yield from pool.imap(one, plans, chunksize=8)


def main(argv: Sequence[str] | None = None) -> int:
    """Run, print a summary, write the JSON."""
    args = parser().parse_args(argv)
    began, counts = time.monotonic(), Counter[str]()
    plans = [Plan(args.seed + number, args.broken) for number in range(args.runs)]
    wrong: list[Run] = []
    run = Run(plans[0])
    for run in runs(plans, args.workers):
        counts.update(run.counts)
        counts["runs"] += 1
        if run.violations:
            wrong.append(run)
            echo(
                f"seed {run.plan.seed}: {run.violations[0]} (again, with all that happened: "
                f"python tools/cluster_simulation.py --seed {run.plan.seed} --runs 1 --told)"
            )
        if counts["runs"] % _TELL == 0:
            echo(f"{counts['runs']:,} runs, {len(wrong)} of them wrong", flush=True)
    if args.told:
        echo("\n".join(run.told))
    seconds = time.monotonic() - began
    numbers = ", ".join(f"{count:,} {name}" for name, count in sorted(counts.items()))
    echo(f"{counts['runs']:,} runs in {seconds:,.0f} s: {numbers}")
    echo(f"violations: {len(wrong):,} runs" if wrong else "violations: none")
    missed = [] if args.broken or args.no_controls else [*_missed(args.seed)]
    if args.json is not None:
        found = {"counts": dict(counts), "seconds": round(seconds, 1), "missed": missed}
        found["violations"] = {str(bad.plan.seed): bad.violations for bad in wrong}
        args.json.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    return int(bool(wrong or missed))


def _missed(seed: int) -> Iterable[str]:
    """Ways to be broken that are not found out."""
    for mode in BROKEN:
        for number in range(CONTROL):
            run = one(Plan(seed + number, mode))
            if run.violations:
                echo(f"control {mode}: noticed in run {number + 1}: {run.violations[0]}")
                break
        else:
            echo(f"control {mode}: NOT NOTICED in {CONTROL} runs")
            yield mode


if __name__ == "__main__":
    sys.exit(main())
