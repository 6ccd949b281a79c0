#!/usr/bin/env python3
"""How local models are swapped: who waits how long, and how often models are loaded, by seeds."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "protocol")]  # runs from anywhere, without being installed

from llcuda_net.cli.common import Parser
from llcuda_net.models.serving.policy import RULES, Rules
from llcuda_net.util.terminal import echo
from tools.campaign import command
from tools.swaps.scenarios import SCENARIOS

EXAMPLE = """\
example:
  python tools/swap_simulation.py --seeds 5 --json swaps.json
  python tools/swap_simulation.py --scenario alternate --naive

llcuda_net/models/serving/policy.py decides in virtual time for models whose loads take
1 s and as long as 2 GiB/s take, and whose generations last 5 s in the median, a minute at most. It
is checked at each step that memory suffices and that nothing is unloaded that generates.

columns: waits of requests until they begin; claim, the longest that a model was waited for, and its
bound; loads per hour, of the policy (swaps/h), of somebody who knows the future and serves in the
order of arrival (oracle), and the fewest with which that can be done at all (least)

exit codes: 0 every wait was within its bound, 1 one was not, 2 usage
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    out = Parser(description=__doc__, epilog=EXAMPLE)
    out.add_argument("--seeds", type=command.positive, default=3, help="(default %(default)s)")
    out.add_argument("--hours", type=float, default=1.0, help="virtual ones (default %(default)s)")
    out.add_argument("--scenario", choices=SCENARIOS, help="only this one")
    out.add_argument(
        "--naive", action="store_true", help="swap at once, to whoever waits longest: no quanta"
    )
    for name, says in (
        ("least-quantum", "seconds for which a model in use keeps its place at least"),
        ("quantum-loads", "the same, in times that both loads of the swap take"),
        ("grace", "seconds for which an idle one keeps its place within its quantum"),
        ("overdue", "seconds after which a claim comes before others"),
        ("half-life", "seconds after which a use counts half"),
    ):
        default = getattr(RULES, name.replace("-", "_"))
        out.add_argument(f"--{name}", type=float, metavar="N", help=f"{says} ({default:g})")
    out.add_argument("--json", type=Path, metavar="FILE", help="write everything there")
    return out


def rules_of(args: argparse.Namespace) -> Rules:
    """The constants that the command line names."""
    base = {"least_quantum": 0.0, "quantum_loads": 0.0, "grace": 0.0, "overdue": 0.0}
    values = dict(base) if args.naive else {}
    for name in (*base, "half_life"):
        if (value := getattr(args, name)) is not None:
            values[name] = value
    return Rules(**values)  # type: ignore[arg-type]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    args = parser().parse_args(argv)
    rules = rules_of(args)
    form = "{:<17} {:>4} {:>8} {:>6} {:>6} {:>7} {:>7} {:>7} {:>8} {:>8} {:>8}"
    echo(
        form.format(
            *("scenario", "seed", "requests", "p50 s", "p99 s", "max s", "claim s", "bound s"),
            *("swaps/h", "oracle/h", "least/h"),
        )
    )
    rows = []
    late = 0
    for name in [args.scenario] if args.scenario else SCENARIOS:
        for seed in range(1, args.seeds + 1):
            found = SCENARIOS[name](seed, args.hours, rules)
            rows.append({**found.document(), "scenario": name})
            late += found.late + (found.worst_claim > found.bound)
            echo(
                form.format(
                    name,
                    seed,
                    f"{found.requests:,}",
                    f"{found.p50:.1f}",
                    f"{found.p99:.0f}",
                    f"{found.longest:.0f}",
                    f"{found.worst_claim:.0f}",
                    f"{found.bound:.0f}",
                    f"{found.swaps_per_hour:.0f}",
                    f"{found.clairvoyant_per_hour:.0f}",
                    f"{found.least_per_hour:.0f}",
                ),
                flush=True,
            )
    if args.json is not None:
        args.json.write_text(
            json.dumps({**command.about(), "rows": rows}, indent=1) + "\n", "utf-8"
        )
    if late:
        echo(f"{late} waits were longer than their bound", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
