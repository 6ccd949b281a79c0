#!/usr/bin/env python3
"""Whether users get the tokens that are due to them: the queue in virtual time, by seeds."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "protocol")]  # runs from anywhere, without being installed

from llcuda_net.cli.common import Parser
from llcuda_net.util.terminal import echo
from tools.campaign import command
from tools.queueing.scenario import OFF, measured
from tools.queueing.simulation import Fifo

EXAMPLE = """\
example:
  python tools/eval_fairness.py --seeds 5 --json fairness.json

Fifty users with weights of 1, 2 and 4 have requests of lognormal lengths waiting all along, for one
or both of two models on four upstreams, which go away and come back with other numbers of slots.
Counted is what each user got of the tokens of one model in 2,700 s of virtual time, and compared
with their weight's share. First come, first served is measured beside it. In each run of the fair
queue it is checked after every event that no slot is idle for which somebody waits who may have it.

exit codes: 0 all users got their share, 1 they did not, 2 usage
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    out = Parser(
        description=__doc__,
        epilog=EXAMPLE,
    )
    out.add_argument("--seeds", type=command.positive, default=5, help="(default %(default)s)")
    out.add_argument("--json", type=Path, metavar="FILE", help="write everything there")
    return out


def row(queue: type[Fifo] | None, seed: int) -> dict[str, Any]:
    """One run."""
    began = time.perf_counter()
    simulation, got = measured(queue, seed)
    largest = simulation.largest["a"]
    worst = max(got.due, key=lambda name: abs(got.got[name] / got.due[name] - 1))
    return {
        "queue": "fair" if queue is None else "first come",
        "seed": seed,
        "requests": simulation.finished,
        "largest_request": largest,
        "least_due": round(min(got.due.values())),
        "worst_got": round(got.got[worst]),
        "worst_due": round(got.due[worst]),
        "beyond_one_largest_request": round(got.worst(largest), 4),
        "seconds": round(time.perf_counter() - began, 1),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Run, print the table, write the JSON."""
    args = parser().parse_args(argv)
    rows = []
    form = "{:10} {:>4} {:>8} {:>8} {:>9} {:>20} {:>10}"
    echo(
        form.format(
            "queue", "seed", "requests", "largest", "least due", "worst: got / due", "beyond"
        )
    )
    for queue in (None, Fifo):
        for seed in range(1, args.seeds + 1):
            command.say(f"seed {seed}")
            rows.append(found := row(queue, seed))
            command.say("")
            worst = f"{found['worst_got']:,} / {found['worst_due']:,}"
            echo(
                form.format(
                    found["queue"],
                    seed,
                    f"{found['requests']:,}",
                    f"{found['largest_request']:,}",
                    f"{found['least_due']:,}",
                    worst,
                    f"{found['beyond_one_largest_request']:.1%}",
                ),
                flush=True,
            )
    echo("\nbeyond: by how much of their due the worst is off, beyond one largest request")
    if args.json is not None:
        args.json.write_text(
            json.dumps({**command.about(), "runs": rows}, indent=1) + "\n", "utf-8"
        )
    fair = [one for one in rows if one["queue"] == "fair"]
    return int(any(one["beyond_one_largest_request"] > OFF for one in fair))


if __name__ == "__main__":
    sys.exit(main())
