#!/usr/bin/env python3
"""Kill llcuda-server with -9, again and again, and prove that nothing that was sent is lost."""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "protocol")]  # runs from anywhere, without being installed

from llcuda_net.cli.common import Parser
from llcuda_net.util.terminal import echo
from tools.campaign import command
from tools.crash import faults
from tools.crash.broken import MODES
from tools.crash.campaign import EARLY, Outcome, Plan, run

EXAMPLE = f"""\
example:
  python tools/crash_campaign.py --kills 300 --real-engine 20
  python tools/crash_campaign.py --kills 25 --seed 7 --json crash.json
  python tools/crash_campaign.py --break send-before-journal      # must end with exit code 1

Real processes: llcuda-server in front of the synthetic upstream, whose every token follows from all
ids before it; clients that submit and stream all the time: a third over the Python client, which
reconnects, a third with chats over HTTP, a third with responses in the background, which they read
in pieces by starting_after; and kill -9 at random moments, {EARLY} of a hundred while the server
still starts. Clients read to the end, detach and leave the rest to another client, send a key twice
at once, and cancel; answers have characters of four tokens, stop strings and their beginnings,
log-probabilities.

Checked: each piece that a client gets (number, text, id, log-probabilities) against the computed
answer, across all restarts; each acknowledged result in the store while the killed server is still
dead, and again at the end; no result that no client knows of; every stream ends; at least half of
the kills find a stream under way, with pieces from the killed server.

With the built-in engine the answers are compared with those that it gave before, undisturbed; half
of the kills wait for a stream under way, since the demonstration model answers in milliseconds.

With --faults, faults of the disk: the data directory, the journal or results.db is deleted under a
server, which must refuse at once; a write stalls, and other clients must be answered; the newest
segment of a killed server's journal is damaged, and nothing may be lost without being told of.

Afterwards two servers that are broken on purpose are tried, and must be found out.

exit codes: 0 all is well, 1 something is not, 2 usage, 130 interrupted
"""
#: Kills in which a server that is broken on purpose must be found out.
_CONTROL_KILLS = 10
#: Seconds that a server lives, with the engine: its answers come faster, and so does their end.
_ENGINE_LIFE = (0.3, 2.5)
#: Share of the engine's kills that wait for a stream under way: the demonstration model answers in
#: so few milliseconds that chance seldom meets one.
_ENGINE_AIMED = 0.5


def parser() -> argparse.ArgumentParser:
    """The command line."""
    out = Parser(
        description=__doc__,
        epilog=EXAMPLE,
    )
    out.add_argument("--kills", type=command.count, default=25, help="(default %(default)s)")
    out.add_argument(
        "--real-engine",
        type=command.count,
        default=0,
        metavar="KILLS",
        help="then so many more with the built-in engine and the demonstration model (default 0)",
    )
    out.add_argument(
        "--life",
        type=_life,
        default=(0.1, 2.0),
        metavar="MIN,MAX",
        help="seconds from when the server is ready to its kill (default 0.1,2.0)",
    )
    out.add_argument(
        "--faults",
        type=command.count,
        default=0,
        metavar="ROUNDS",
        help="then faults of the disk, with so many damaged journals (default 0)",
    )
    out.add_argument("--no-controls", action="store_true", help="try no broken server")
    out.add_argument("--break", dest="broken", choices=MODES, help="run with a broken server only")
    command.add_common(out, 16)
    return out


def _life(text: str) -> tuple[float, float]:
    least, _, most = text.partition(",")
    out = float(least), float(most)
    if not 0 <= out[0] <= out[1] < float("inf"):
        raise argparse.ArgumentTypeError("must be two numbers, the smaller one first")
    return out


def plans(args: argparse.Namespace, seed: int) -> list[Plan]:
    """The campaigns to run, one after another."""
    plan = Plan(seed, args.kills, args.clients, args.rate, args.life)
    if args.broken is not None:
        return [replace(plan, broken=args.broken)]
    out = [plan] if plan.kills else []
    if args.real_engine:
        real = replace(plan, kills=args.real_engine, engine=True, life=_ENGINE_LIFE)
        out.append(replace(real, aimed=_ENGINE_AIMED))
    if not args.no_controls:
        out += [replace(plan, kills=_CONTROL_KILLS, broken=mode) for mode in MODES]
    return out


def summary(outcome: Outcome) -> str:
    """One campaign as text."""
    plan, violations = outcome.plan, outcome.violations
    if plan.broken is not None:
        if not violations:
            return f"control {plan.broken}: NOT NOTICED, {outcome.kills} kills"
        return f"control {plan.broken}: noticed at kill {outcome.kills}: {violations[0]}"
    what = "the built-in engine" if plan.engine else f"synthetic upstream, {plan.rate:g} tokens/s"
    share = outcome.mid_stream / max(1, outcome.kills)
    known = outcome.document()["start_median_s"]
    start = f", start {known:.2f} s in the median" if known is not None else ""
    lines = [
        ("", f"{what}, {plan.clients} clients, {outcome.seconds:,.0f} s{start}"),
        ("kills", f"{outcome.kills:,}, {outcome.early:,} of them while the server started"),
        ("  mid-stream", f"{outcome.mid_stream:,} ({share:.0%}), cutting {outcome.cut:,} streams"),
        *command.rows(outcome.ledger),
        *command.verdict(violations, outcome.ledger.counts["violations"]),
    ]
    return command.table(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the campaigns, print the summary, write the JSON."""
    args = parser().parse_args(argv)
    seed = command.seed_of(args.seed)
    outcomes, code = command.conduct(plans(args, seed), run, summary, seed, args.json)
    code = command.exit_code(outcomes, code, args.broken)
    if args.faults and not code:
        violations = command.run(partial(faults.run, args.faults, random.Random(seed)))
        echo("faults of the disk: " + ("; ".join(violations) or "all noticed"), flush=True)
        code = int(bool(violations))
    return code


if __name__ == "__main__":
    sys.exit(main())
