#!/usr/bin/env python3
"""Kill, stop and break the upstreams of one llcuda-server, and prove that no answer suffers."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "protocol")]  # runs from anywhere, without being installed

from llcuda_net.cli.common import Parser
from tools.campaign import command, memory
from tools.chaos.broken import MODES
from tools.chaos.campaign import Outcome, Plan, run
from tools.chaos.clients import KINDS
from tools.chaos.troubles import KINDS as TROUBLES
from tools.chaos.troubles import Timing

EXAMPLE = """\
example:
  python tools/chaos_campaign.py --minutes 10 --json chaos.json
  python tools/chaos_campaign.py --minutes 1 --real-engine 0 --seed 7
  python tools/chaos_campaign.py --break keep-a-slot      # must end with exit code 1

Real processes: llcuda-server with three upstreams. At random moments one of them is killed with -9
and later restarted on its port, one is stopped (SIGSTOP) and later continued, and one answers
errors, breaks off or stalls for a while; each by itself, so that at times all of them are in
trouble. Clients read to the end, detach and attach, send a key twice at once, and cancel: after
some pieces, or after a while, whether it has begun or waits.

Four fifths of the time the upstreams are synthetic: every token follows from all ids before it. The
rest (--real-engine) they are llama.cpp's servers with the demonstration model, whose answers were
recorded before, with nothing going wrong; those do not answer errors, and run at a tenth of their
speed, since their answers take milliseconds.

Checked: each piece that a client gets, against what the model says: number, text, id, and
log-probabilities; every generation ends, with done, cancelled, or an error that says why, and an
error only if no upstream was well; once all is quiet, no slot is busy on any upstream or held by
the server, and all slots can be used at once; the server's memory is flat; no traceback in its
log; what was acknowledged is in the store, unaltered.

Afterwards servers that are broken on purpose are tried, and must be found out.

exit codes: 0 all is well, 1 something is not, 2 usage, 130 interrupted
"""
#: Default share of the time for real engines.
REAL_SHARE = 0.2
#: Seconds of trouble within which a broken server must be noticed.
_CONTROL = 8.0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    out = Parser(
        description=__doc__,
        epilog=EXAMPLE,
    )
    out.add_argument("--minutes", type=command.above_0, default=10.0, help="(default %(default)g)")
    out.add_argument(
        "--real-engine",
        type=command.count,
        metavar="SECONDS",
        help="of these minutes, so long with llama.cpp's own server (default: a fifth)",
    )
    out.add_argument("--upstreams", type=command.positive, default=3, help="(default %(default)s)")
    out.add_argument(
        "--peace",
        type=command.above_0,
        default=Timing.peace,
        metavar="SECONDS",
        help="mean time between two troubles of one kind (default %(default)g)",
    )
    out.add_argument("--no-controls", action="store_true", help="try no broken server")
    out.add_argument("--break", dest="broken", choices=MODES, help="run with a broken server only")
    command.add_common(out, 64)
    out.set_defaults(rate=Plan.rate)
    return out


def plans(args: argparse.Namespace, seed: int) -> list[Plan]:
    """The campaigns to run, one after another."""
    seconds = args.minutes * 60
    real = round(seconds * REAL_SHARE) if args.real_engine is None else args.real_engine
    plan = Plan(
        seed,
        seconds - real,
        args.clients,
        args.upstreams,
        args.rate,
        timing=Timing(args.peace, (args.peace / 6, args.peace)),
    )
    quick = replace(plan, seconds=_CONTROL, timing=Timing(2.0, (0.5, 3.0)))
    if args.broken is not None:
        return [replace(quick, broken=args.broken)]
    out = [plan] if plan.seconds > 0 else []
    if real:
        out.append(replace(plan, seconds=real, real=True))
    if not args.no_controls:
        out += [replace(quick, broken=mode) for mode in MODES]
    return out


def summary(outcome: Outcome) -> str:
    """One campaign as text."""
    plan, violations, n = outcome.plan, outcome.violations, outcome.ledger.counts
    if plan.broken is not None:
        if not violations:
            return f"control {plan.broken}: NOT NOTICED in {outcome.seconds:.0f} s"
        return f"control {plan.broken}: noticed after {outcome.seconds:.0f} s: {violations[0]}"
    what = f"synthetic, {plan.rate:g} tokens/s per stream"
    if plan.real:
        what = "llama.cpp's server, demonstration model"
    times = ", ".join(f"{s:,.0f} s {k}" for k, s in sorted(outcome.in_trouble.items()))
    errors = ", ".join(
        f"{count:,} {name.removeprefix('error ')}"
        for name, count in sorted(n.items())
        if name.startswith("error ")
    )
    lines = [
        (
            "",
            f"{plan.upstreams} upstreams: {what}; {plan.clients} clients, {outcome.seconds:,.0f} s",
        ),
        ("troubles", ", ".join(f"{outcome.troubles.get(k, 0):,} {k}" for k in TROUBLES)),
        ("  at once", f"{times} of {plan.upstreams} upstreams in trouble"),
        ("requests", ", ".join(f"{n[f'{kind} jobs']:,} {kind}" for kind in KINDS)),
        ("ended", f"{n['acknowledged']:,} done or cancelled, {n['errors']:,} with an error"),
        ("  errors", errors or "none"),
        ("pieces compared", f"{n['pieces']:,}: text, id, log-probabilities and number"),
        ("moved", f"{n['spliced results']:,} results went on elsewhere, {n['splices']:,} times"),
        ("in the store", f"{n['stored']:,}, {n['unaltered at the end']:,} acknowledged, unaltered"),
        ("memory", _memory(outcome.memory)),
        *command.verdict(violations, n["violations"]),
    ]
    return command.table(lines)


def _memory(looks: Sequence[memory.Look]) -> str:
    if not looks:
        return "not looked at"
    second, last = memory.medians(looks)
    allowed = f"up to {memory.mib(memory.allowed(second, last))} allowed"
    if len(looks) < memory.FEWEST:
        allowed = "too short to judge"
    before, after = memory.mib(second.resident), memory.mib(last.resident)
    return f"{before} in the second quarter, {after} in the last; {allowed}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the campaigns, print the summary, write the JSON."""
    args = parser().parse_args(argv)
    seed = command.seed_of(args.seed)
    outcomes, code = command.conduct(plans(args, seed), run, summary, seed, args.json)
    return command.exit_code(outcomes, code, args.broken)


if __name__ == "__main__":
    sys.exit(main())
