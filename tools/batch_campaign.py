#!/usr/bin/env python3
"""Kill llcuda-server with -9 while it runs batches, and prove that each line is asked once."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "protocol")]  # runs from anywhere, without being installed

from llcuda_net.cli.common import Parser
from tools.campaign import command
from tools.crash.batches import Outcome, Plan, run
from tools.crash.broken import BATCH_MODES

EXAMPLE = """\
example:
  python tools/batch_campaign.py --kills 20
  python tools/batch_campaign.py --kills 5 --lines 100 --seed 7 --json batches.json

Real processes: llcuda-server in front of the synthetic upstream, whose every token follows from all
ids before it; clients that upload a file, make a batch, wait for it and read its output, again and
again; and kill -9 at random moments, some of them while the server starts. So uploads are cut, and
batches as they are made, checked, asked and written.

Checked: each line is in the output once, in its place, with the computed answer; of each line there
is one result in the store, which is done, and there is no other; the upstream was not asked more
often than there are lines, and once for each that a kill cut.

Afterwards a server is tried that asks cut lines anew, on purpose; it must be found out.

exit codes: 0 all is well, 1 something is not, 2 usage, 130 interrupted
"""
#: Kills in which a server that is broken on purpose must be found out.
_CONTROL_KILLS = 3


def parser() -> argparse.ArgumentParser:
    """The command line."""
    out = Parser(description=__doc__, epilog=EXAMPLE)
    out.add_argument("--kills", type=command.positive, default=20, help="(default %(default)s)")
    out.add_argument(
        "--lines", type=command.positive, default=1000, help="of a batch (default %(default)s)"
    )
    out.add_argument("--no-controls", action="store_true", help="try no broken server")
    command.add_common(out, 2)
    out.set_defaults(rate=400.0)
    return out


def plans(args: argparse.Namespace, seed: int) -> list[Plan]:
    """The campaigns to run, one after another."""
    plan = Plan(seed, args.kills, args.lines, args.clients, args.rate)
    if args.no_controls:
        return [plan]
    controls = [replace(plan, kills=_CONTROL_KILLS, broken=mode) for mode in BATCH_MODES]
    return [plan, *controls]


def summary(outcome: Outcome) -> str:
    """One campaign as text."""
    plan, violations = outcome.plan, outcome.violations
    if plan.broken is not None:
        if not violations:
            return f"control {plan.broken}: NOT NOTICED, {outcome.kills} kills"
        return f"control {plan.broken}: noticed: {violations[0]}"
    lines = [
        ("", f"synthetic upstream, {plan.clients} clients, {outcome.seconds:,.0f} s"),
        ("kills", f"{outcome.kills:,}, {outcome.early:,} of them while the server started"),
        ("batches", f"{outcome.batches:,}, with {outcome.lines:,} lines, each in its output once"),
        (
            "upstream",
            f"asked {outcome.asked:,} times; {outcome.continued:,} continuations after a kill",
        ),
        *command.verdict(violations, outcome.ledger.counts["violations"]),
    ]
    return command.table(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the campaigns, print the summary, write the JSON."""
    args = parser().parse_args(argv)
    seed = command.seed_of(args.seed)
    outcomes, code = command.conduct(plans(args, seed), run, summary, seed, args.json)
    return command.exit_code(outcomes, code)


if __name__ == "__main__":
    sys.exit(main())
