#!/usr/bin/env python3
"""Kill servers of a cluster, cut its networks, break its database: nothing is lost."""

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
from tools.cluster.broken import MODES
from tools.cluster.campaign import Outcome, Plan, run
from tools.cluster.faults import KINDS, Timing

EXAMPLE = """\
example:
  python tools/cluster_campaign.py --minutes 10 --json cluster.json
  python tools/cluster_campaign.py --minutes 2 --only kill,stop --seed 7 --logs /tmp/logs
  python tools/cluster_campaign.py --break no-fencing      # must end with exit code 1

Real processes on loopback: four llcuda-servers with one PostgreSQL (of the wheel, in a small tmpfs
of its own where this runs as root on Linux), six synthetic upstreams, and 64 clients: a third over
the Python client, a third with chats over HTTP, a third with responses in the background; two more
have batches. Every connection goes through a proxy that this program holds, so that any two parties
can be cut off from each other: connections are reset and refused, or silent, and what was under way
comes late.

At random moments: kill -9 of a server for good (a new one with an empty disk comes) or with a
restart on its disk; SIGTERM; SIGSTOP for up to 12 s, so that others take over and it wakes up; two
servers, a server and the database, upstreams or clients are cut off from each other, or a server
from all; PostgreSQL is restarted, killed, slow, or its disk full. Faults overlap.

First two users ask for more than there is, at different servers, the one three times as much: both
must get about the same.

Answers follow from the prompt, token by token; those of a third of the requests do not, and are
others at each run: all readers of one must get the same, and the store must have it (but for
responses at the level disk, whose readers cannot say that they are ahead). Checked: each
piece that a client gets; each acknowledged result in the store, at once and unaltered at the end;
no result that no client knows of; one key is one generation, asked at two servers at once; every
request comes to its end, and no generation is left; no traceback in a log.

A violation is told with what its reader did (which server, which epoch, after how many pieces),
and with all that servers log, and the database knows, of its generation.

Afterwards clusters of servers that are broken on purpose are tried, and must be found out.

exit codes: 0 all is well, 1 something is not, 2 usage, 130 interrupted
"""
#: Faults that are told of a campaign with violations: the last ones.
_TOLD = 12
#: Seconds in which a broken cluster must be noticed, and what happens in it.
_CONTROL = 60.0
_CONTROL_TIMING = Timing(peace=1.5, lasts=(6.0, 9.0))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    out = Parser(description=__doc__, epilog=EXAMPLE)
    out.add_argument("--minutes", type=command.above_0, default=10.0, help="(default %(default)g)")
    out.add_argument("--servers", type=command.positive, default=Plan.servers)
    out.add_argument("--upstreams", type=command.positive, default=Plan.upstreams)
    out.add_argument(
        "--peace",
        type=command.above_0,
        default=Timing.peace,
        metavar="SECONDS",
        help="mean time from one fault to the next (default %(default)g)",
    )
    out.add_argument(
        "--only", type=_kinds, default=tuple(KINDS), metavar="KIND,…", help=", ".join(KINDS)
    )
    out.add_argument(
        "--apart", action="store_true", help="the servers share the store, and know no others"
    )
    out.add_argument("--no-fairness", action="store_true", help="do not look at users' shares")
    out.add_argument("--no-controls", action="store_true", help="try no broken servers")
    out.add_argument("--break", dest="broken", choices=MODES, help="run with broken servers only")
    out.add_argument("--logs", type=Path, metavar="DIR", help="keep all logs there")
    command.add_common(out, Plan.clients)
    out.set_defaults(rate=Plan.rate)
    return out


def _kinds(text: str) -> tuple[str, ...]:
    found = tuple(text.split(","))
    if wrong := [kind for kind in found if kind not in KINDS]:
        raise argparse.ArgumentTypeError(f"{wrong[0]!r} is none of {', '.join(KINDS)}")
    return found


def plans(args: argparse.Namespace, seed: int) -> list[Plan]:
    """The campaigns to run, one after another."""
    plan = Plan(
        seed,
        args.minutes * 60,
        args.servers,
        args.upstreams,
        clients=args.clients,
        rate=args.rate,
        timing=Timing(peace=args.peace),
        kinds=args.only,
        clustered=not args.apart,
        fairness=not args.no_fairness,
        logs=args.logs,
    )
    quick = replace(plan, seconds=_CONTROL, timing=_CONTROL_TIMING, fairness=False)
    controls = [replace(quick, broken=mode, kinds=kinds) for mode, (_, kinds) in MODES.items()]
    if args.broken is not None:
        return [control for control in controls if control.broken == args.broken]
    return [plan] if args.no_controls or args.apart else [plan, *controls]


def summary(outcome: Outcome) -> str:
    """One campaign as text."""
    plan, violations, n = outcome.plan, outcome.violations, outcome.ledger.counts
    if plan.broken is not None:
        if not violations:
            return f"control {plan.broken}: NOT NOTICED in {outcome.seconds:.0f} s"
        return f"control {plan.broken}: noticed after {outcome.seconds:.0f} s: {violations[0]}"
    errors = ", ".join(
        f"{count:,} {name.removeprefix('error ')}"
        for name, count in sorted(n.items())
        if name.startswith("error ")
    )
    disk = "" if outcome.disk else "; no disk of its own, which could be full"
    what = (
        f"{plan.servers} servers, {plan.upstreams} upstreams at {plan.rate:g} tokens/s per stream"
    )
    lines = [
        ("", f"{what}, {plan.clients} clients, {outcome.seconds:,.0f} s{disk}"),
        ("faults", ", ".join(f"{outcome.faults.get(kind, 0):,} {kind}" for kind in plan.kinds)),
        *command.rows(outcome.ledger),
        ("asked again", f"{n['asked again']:,} times over our own protocol"),
        ("  answered", errors or "no errors"),
        ("batches", f"{n['batches']:,}, with {n['batch lines']:,} lines"),
        ("shares", ", ".join(f"{n:,} of {name}" for name, n in outcome.shares.items()) or "-"),
        ("ended otherwise", f"{n['errors']:,}, with an error that is allowed"),
        *command.verdict(violations, n["violations"]),
    ]
    if violations:
        lines += outcome.explained()
        lines += [("before that", text) for text in outcome.told[-_TOLD:]]
        lines.append(("seed", f"{plan.seed}; --logs DIR keeps the logs of another run"))
    return command.table(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the campaigns, print the summary, write the JSON."""
    args = parser().parse_args(argv)
    seed = command.seed_of(args.seed)
    outcomes, code = command.conduct(plans(args, seed), run, summary, seed, args.json)
    return command.exit_code(outcomes, code, args.broken)


if __name__ == "__main__":
    sys.exit(main())
