#!/usr/bin/env python3
"""Hold half load on llcuda-server for an hour, and see whether anything grows."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "protocol")]  # runs from anywhere, without being installed

from llcuda_net.cli.common import Parser
from llcuda_net.util.terminal import echo
from tools.campaign import command
from tools.campaign.memory import mib
from tools.soak import plot
from tools.soak.campaign import JUDGED, Outcome, Plan, run
from tools.soak.users import mean_tokens

EXAMPLE = """\
example:
  python tools/soak_campaign.py --minutes 60 --json soak.json --plot soak.png
  python tools/soak_campaign.py --minutes 5 --load 0.8 --seed 7

Three synthetic upstreams, one llcuda-server, and the requests of three users, which come at random
moments (Poisson), at half of what the slots sustain. Each answer is compared with what it must be.
Every 10 seconds: the server's memory, descriptors, threads and CPU, what clients waited for first
tokens and between tokens, and the size of journal and store.

Memory, descriptors, threads and latencies must be flat. Of each, the slope of the minutes' medians
is taken (Theil-Sen) with its 95 % interval, without the first tenth of the time; of memory, without
the first half, in which what has a limit fills. It is flat where even the interval's upper end
stays below what is allowed, it grows where the lower end is above that, and is undecided otherwise:
then the run was too short, or too noisy.

exit codes: 0 all is flat and every answer right, 1 it is not, 2 usage, 130 interrupted
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    out = Parser(
        description=__doc__,
        epilog=EXAMPLE,
    )
    add, above_0, positive = out.add_argument, command.above_0, command.positive
    add("--minutes", type=above_0, default=60.0, help="(default %(default)g)")
    add(
        "--load",
        type=above_0,
        default=Plan.load,
        help="as a share of what the slots sustain (default %(default)g)",
    )
    add("--upstreams", type=positive, default=Plan.upstreams, help="(default %(default)s)")
    add("--slots", type=positive, default=Plan.slots, help="of each (default %(default)s)")
    add(
        "--rate",
        type=above_0,
        default=Plan.rate,
        help="tokens/s of each stream (default %(default)g)",
    )
    add(
        "--every",
        type=above_0,
        default=Plan.every,
        metavar="SECONDS",
        help="between two samples (default %(default)g)",
    )
    add("--seed", type=int, help="of everything random (default: a new one, printed)")
    add("--json", type=Path, metavar="FILE", help="write everything there")
    add("--plot", type=Path, metavar="FILE", help="draw it there, as a PNG")
    return out


def summary(outcome: Outcome) -> str:
    """The soak as text."""
    plan, counts = outcome.plan, outcome.counts
    ends = ", ".join(f"{counts.get(k, 0):,} {k}" for k in ("length", "cancelled", "failed"))
    slots, all_slots = f"{plan.upstreams} upstreams of {plan.slots} slots", outcome.slots
    share = f"{plan.load:.0%} of the slots: {plan.requests_per_second:.2f} requests/s"
    lines = [
        ("", f"{slots} at {plan.rate:g} tokens/s; {outcome.seconds:,.0f} s"),
        ("load", f"{share} of {mean_tokens():.0f} tokens in the mean"),
        ("requests", f"{counts.get('requests', 0):,}: {ends}"),
    ]
    if outcome.samples:
        last, mean = outcome.samples[-1], outcome.mean
        cores = ", ".join(
            f"{mean(name):.2f} {who}"
            for name, who in (
                ("server_cpu", "cores by the server"),
                ("own_cpu", "by upstreams and clients"),
                ("machine_cpu", "by all that ran"),
            )
        )
        journal, store = mib(last.journal), mib(last.store)
        lines.append(("in the mean", f"{mean('running'):.1f} of {all_slots} slots, {cores}"))
        lines.append(("on the disk", f"{journal} of journal, {store} of store at the end"))
    for name, person in outcome.people().items():
        waits = [_ms(person[key]) for key in ("first_p50", "first_p99")]
        first = f"{waits[0]} in the median, {waits[1]} at p99"
        lines.append((f"  {name}", f"{person['requests']:,} first tokens: {first}"))
    for name, trend in outcome.trends().items():
        label, _ = JUDGED[name]
        lines.append((label, f"{trend.verdict}: {_figures(name, trend.document())}"))
    lines += command.verdict(outcome.violations, len(outcome.violations))
    return "\n".join(f"{name:22}{text}".rstrip() for name, text in lines)


def _ms(seconds: float | None) -> str:
    return "unknown" if seconds is None else f"{seconds * 1000:.1f} ms"


def _figures(name: str, trend: dict[str, Any]) -> str:
    """Median, growth and its bounds, in a readable unit."""
    scale, unit = (1.0, "")
    if name == "rss":
        scale, unit = 1 / (1 << 20), " MiB"
    elif name.startswith(("first", "interval")):
        scale, unit = 1000.0, " ms"
    median, slope, low, high = (trend[key] * scale for key in ("median", "slope", "low", "high"))
    growth = f"{slope:+.3g}{unit} an hour ({low:+.3g} to {high:+.3g})"
    allowed = f"{trend['allowed'] * scale:.3g}{unit} in {trend['hours'] * 60:.0f} minutes"
    return f"{median:.4g}{unit} in the median, {growth}; allowed {allowed}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the soak, print the summary, write the JSON and the picture."""
    args = parser().parse_args(argv)
    if args.plot is not None and importlib.util.find_spec("matplotlib") is None:
        echo("--plot needs matplotlib: pip install 'llcuda-net[bench]'", file=sys.stderr)
        return 2
    seed = command.seed_of(args.seed)
    plan = Plan(
        seed,
        args.minutes * 60,
        args.load,
        args.upstreams,
        args.slots,
        args.rate,
        every=args.every,
    )
    outcomes, code = command.conduct([plan], run, summary, seed, args.json, single=True)
    if args.plot is not None and outcomes:
        plot.draw(outcomes[0].document(), args.plot)
    return command.exit_code(outcomes, code)


if __name__ == "__main__":
    sys.exit(main())
