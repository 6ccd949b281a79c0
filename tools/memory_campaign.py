#!/usr/bin/env python3
"""Make llcuda-server hold as much as clients can, and see that its memory stays within a bound."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "protocol")]  # runs from anywhere, without being installed

from llcuda_net.cli.common import Parser
from tools.campaign import command
from tools.campaign.memory import mib
from tools.memory.campaign import ATTACKS, Outcome, Plan, run

EXAMPLE = """\
example:
  python tools/memory_campaign.py --seconds 10 probabilities unread

Each attack has a server of its own, with its default settings, in front of a synthetic upstream.
Meanwhile another client asks for the status. The memory is that of the server's process alone.
Attacks:
"""
CODES = "\nexit codes: 0 all is well, 1 something is not, 2 usage, 130 interrupted\n"


def parser() -> Parser:
    """The command line."""
    kinds = "\n".join(f"  {name:14} {work.__doc__}" for name, work in ATTACKS.items())
    out = Parser(description=__doc__, epilog=EXAMPLE + kinds + CODES)
    out.add_argument("attack", nargs="*", help="which attacks (default: all)")
    out.add_argument(
        "--seconds", type=command.above_0, default=20.0, help="of each (default %(default)g)"
    )
    out.add_argument(
        "--most",
        type=command.positive,
        default=300,
        metavar="MIB",
        help="memory that the server may take (default %(default)s)",
    )
    out.add_argument(
        "--rate", type=command.above_0, default=50.0, help="tokens/s of each stream (%(default)g)"
    )
    out.add_argument("--json", type=Path, metavar="FILE", help="write everything there")
    return out


def summary(outcome: Outcome) -> str:
    """One attack as text."""
    status = sorted(outcome.status)
    lines = [
        ("attack", f"{outcome.plan.attack}, {outcome.plan.seconds:g} s"),
        ("memory", f"{mib(outcome.before)} before, {mib(outcome.peak)} at most, "),
        ("", f"{mib(outcome.after)} when its clients had gone"),
        ("status", "was never answered"),
        ("clients", ", ".join(f"{n:,} {name}" for name, n in sorted(outcome.counts.items()))),
        *command.verdict(outcome.violations, outcome.ledger.counts["violations"]),
    ]
    if status:
        shown = (
            f"{statistics.median(status) * 1e3:.0f} ms median, {status[-1] * 1e3:.0f} ms at most"
        )
        lines[3] = ("status", f"{len(status):,} times: {shown}")
    return command.table(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the attacks, print a summary of each, write the JSON."""
    options = parser()
    args = options.parse_args(argv)
    unknown = [name for name in args.attack if name not in ATTACKS]
    if unknown:
        options.error(f"there is no attack {unknown[0]!r}: choose from {', '.join(ATTACKS)}")
    plans = [
        Plan(0, attack=name, seconds=args.seconds, most=args.most << 20, rate=args.rate)
        for name in args.attack or ATTACKS
    ]
    outcomes, code = command.conduct(plans, run, summary, 0, args.json)
    return command.exit_code(outcomes, code)


if __name__ == "__main__":
    sys.exit(main())
