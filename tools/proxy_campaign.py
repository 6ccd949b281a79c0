#!/usr/bin/env python3
"""Cut, stall and delay the connections of llcuda's clients, and prove that no answer suffers."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "protocol")]  # runs from anywhere, without being installed

from llcuda_net.cli.common import Parser
from tools.campaign import command
from tools.proxy.campaign import Outcome, Plan, run
from tools.proxy.proxy import TROUBLES, Timing

EXAMPLE = """\
example:
  python tools/proxy_campaign.py --minutes 10 --json proxy.json

Between the clients and llcuda-server, a proxy forwards slices of random size. Every few seconds
something happens to each connection: it is reset, closed, half closed, slowed down, or stalled, for
a while or for good. Some are refused at once.

The clients, the requests and the checks are those of tools/crash_campaign.py; see its --help.

exit codes: 0 all is well, 1 something is not, 2 usage, 130 interrupted
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    out = Parser(
        description=__doc__,
        epilog=EXAMPLE,
    )
    out.add_argument("--minutes", type=command.above_0, default=10.0, help="(default %(default)g)")
    out.add_argument(
        "--peace",
        type=command.above_0,
        default=Timing.peace,
        metavar="SECONDS",
        help="mean time between two troubles of a connection (default %(default)g)",
    )
    command.add_common(out, 32)
    return out


def summary(outcome: Outcome) -> str:
    """The campaign as text."""
    plan, n = outcome.plan, outcome.troubles
    lines = [
        (
            "",
            f"{plan.clients} clients, {plan.rate:g} tokens/s per stream, {outcome.seconds:,.0f} s",
        ),
        ("connections", f"{n['connections']:,}, {n['refused']:,} of them refused"),
        ("  troubles", ", ".join(f"{n[name]:,} {name}" for name in TROUBLES)),
        ("bytes forwarded", f"{n['bytes']:,}"),
        *command.rows(outcome.ledger),
        *command.verdict(outcome.violations, outcome.ledger.counts["violations"]),
    ]
    return command.table(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the campaign, print the summary, write the JSON."""
    args = parser().parse_args(argv)
    seed = command.seed_of(args.seed)
    timing = Timing(peace=args.peace, stall=2 * args.peace)
    plan = Plan(seed, args.minutes * 60, args.clients, args.rate, timing=timing)
    outcomes, code = command.conduct([plan], run, summary, seed, args.json, single=True)
    return command.exit_code(outcomes, code)


if __name__ == "__main__":
    sys.exit(main())
