#!/usr/bin/env python3
"""Cut, stall and delay the connections of llcuda's clients, and prove that no answer suffers."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "protocol")]  # runs from anywhere, without being installed

from tools.crash import command
from tools.crash.disturbed import Outcome, Plan, run
from tools.crash.proxy import TROUBLES, Manners
from tools.overhead.processes import StartError

EXAMPLE = """\
example:
  python tools/proxy_campaign.py --minutes 10 --json proxy.json

Between the clients and llcuda-server stands a proxy that forwards in slices of random size. Every
few seconds something happens to each connection: it is reset, closed, half closed, slowed down, or
nothing goes through it any more, for a while or for good. Some are refused at once.

The clients, the requests and the checks are those of tools/crash_campaign.py; see its --help.

exit codes: 0 all is well, 1 something is not, 2 usage, 130 interrupted
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    out = argparse.ArgumentParser(
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    out.add_argument("--minutes", type=command.above_0, default=10.0, help="(default %(default)g)")
    out.add_argument(
        "--peace",
        type=command.above_0,
        default=Manners.peace,
        metavar="SECONDS",
        help="mean time between two troubles of a connection (default %(default)g)",
    )
    command.add_common(out, 32)
    return out


def summary(outcome: Outcome) -> str:
    """The campaign, for a person."""
    plan, n = outcome.plan, outcome.troubles
    lines = [
        ("", f"{plan.clients} clients, {plan.rate:g} tokens/s a stream, {outcome.seconds:,.0f} s"),
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
    about = command.about()
    print(f"seed {seed}; {command.machine_line(about)}", flush=True)
    manners = Manners(peace=args.peace, stall=2 * args.peace)
    plan = Plan(seed, args.minutes * 60, args.clients, args.rate, manners=manners)
    try:
        outcome = command.run(partial(run, plan, say=command.say))
    except (command.Interrupted, KeyboardInterrupt) as interrupted:
        command.say("")
        print("interrupted", file=sys.stderr)
        return int(getattr(interrupted, "code", 130))
    except StartError as error:
        print(error, file=sys.stderr)
        return 1
    command.say("")
    print(f"\n{summary(outcome)}")
    if args.json is not None:
        document: dict[str, Any] = {**about, **outcome.document()}
        args.json.write_text(json.dumps(document, indent=1) + "\n", "utf-8")
    return int(bool(outcome.violations))


if __name__ == "__main__":
    sys.exit(main())
