#!/usr/bin/env python3
"""How good the choice of slots is: simulated, against what no choice could beat."""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import trio

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "protocol")]  # runs from anywhere, without being installed

from llcuda_net.cli.common import Parser
from llcuda_net.util import logs
from llcuda_net.util.terminal import echo
from tools.slots.policies import Chosen, Rule, SimulatedClock
from tools.slots.simulation import (
    MACHINES,
    Closed,
    Given,
    Machine,
    Outcome,
    Poisson,
    Policy,
    Source,
    Talks,
    optimum,
    simulate,
)

EXAMPLE = """\
example:
  python tools/eval_slots.py
  python tools/eval_slots.py --seeds 10 --machine h200 --json slots.json

Figures are tokens/s of a stream at work, as shares of the bound: one run of slots in each step, and
nothing read that any slot ever held. "optimum" (6 requests on 4 slots): against the best of all
choices with all that comes known, found by trying each.
Machines: h200 and cpu as measured with a 135M model; weights: each batch reads all weights once;
unified: --kv-unified. Loads: "closed", streams that ask again at once, with two conversations
each; "poisson", requests that come by themselves. Rules: "old": the slot that holds most of the
prompt, else the one idle longest; "lowest": else the lowest number; "llama": llama-server's own.

exit codes: 0 evaluated, 2 usage
"""
SLOTS = 32
STREAMS = (1, 4, 8, 16, 24, 32)
RULES = ("chosen", "old", "lowest", "llama")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    out = Parser(description=__doc__, epilog=EXAMPLE)
    out.add_argument("--seeds", type=int, default=3, help="simulations of each (default 3)")
    out.add_argument("--answers", type=int, default=400, help="in each (default 400)")
    out.add_argument("--answer", type=int, default=64, help="tokens, in the mean (default 64)")
    out.add_argument("--machine", action="append", choices=list(MACHINES), dest="machines")
    out.add_argument("--json", type=Path, metavar="FILE", help="also write every figure")
    return out


def policy(name: str, slots: int, clock: SimulatedClock) -> Policy:
    """A rule by its name, as at the start of a server."""
    return Chosen(slots, clock) if name == "chosen" else Rule(name, slots)


def source(
    load: str, machine: Machine, streams: int, talks: bool, mean: int, answers: int, seed: int
) -> Source:
    """Requests by the load's name."""
    if load == "closed":
        return Closed(streams, talks, mean, seed)
    return Poisson(machine, streams, talks, mean, seed, answers)


def evaluate(
    machine: Machine, load: str, talks: bool, streams: int, args: argparse.Namespace
) -> dict[str, Any]:
    """One row: the shares of the bound that each rule comes to, means over the seeds."""
    shares: dict[str, list[float]] = {name: [] for name in RULES}
    found: dict[str, list[float]] = {name: [] for name in RULES}
    for seed in range(args.seeds):

        def run(of: Policy | None, seed: int = seed) -> Outcome:
            asks = source(load, machine, streams, talks, args.answer, args.answers, seed)
            return simulate(machine, SLOTS, asks, of, args.answers, seed)

        bound = run(None)
        for name in RULES:
            clock = SimulatedClock()
            outcome = trio.run(_within, run, name, clock, clock=clock)
            shares[name].append(outcome.speed / bound.speed)
            found[name].append(outcome.found / outcome.asked)
    row: dict[str, Any] = {"machine": machine.name, "load": load, "streams": streams}
    row["prompts"] = "conversations" if talks else "distinct"
    row |= {name: statistics.fmean(values) for name, values in shares.items()}
    row["to_old"] = row["chosen"] / row["old"]
    row["found"] = {name: statistics.fmean(values) for name, values in found.items()}
    return row


async def _within(run: Any, name: str, clock: SimulatedClock) -> Outcome:
    outcome: Outcome = run(policy(name, SLOTS, clock))
    return outcome


def small(machine: Machine, seed: int) -> list[tuple[float, Any]]:
    """Six requests for four slots: some go on with a conversation, some overlap."""
    chance = random.Random(seed)
    talks, at, jobs = Talks(chance, 3, system=2, turn=1), 0.0, []
    for _ in range(6):
        at += chance.expovariate(1 / (6 * machine.whole))
        jobs.append((at, talks.job(chance.randrange(3), chance.randint(4, 20))))
    return jobs


def against_optimum(machine: Machine, seeds: int) -> dict[str, float]:
    """Shares of the optimum that each rule comes to, means over the seeds."""
    shares: dict[str, list[float]] = {name: [] for name in RULES}
    for seed in range(seeds):
        jobs = small(machine, seed)
        best = optimum(machine, 4, jobs, seed)
        for name in RULES:
            clock = SimulatedClock()

            async def run(name: str = name, seed: int = seed, clock: Any = clock) -> Outcome:
                rule = policy(name, 4, clock)
                return simulate(machine, 4, Given(jobs), rule, len(jobs), seed)  # noqa: B023

            shares[name].append(best.stream_ms / trio.run(run, clock=clock).stream_ms)
    return {name: statistics.fmean(values) for name, values in shares.items()}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool; returns its exit code."""
    args = parser().parse_args(argv)
    logs.configure(level="error")
    machines = [MACHINES[name] for name in args.machines or MACHINES]
    rows = []
    echo(f"{'machine':8} {'load':8} {'prompts':13} {'streams':>7}" + _cells(RULES) + "  / old")
    for machine, load, talks, streams in product(
        machines, ("closed", "poisson"), (False, True), STREAMS
    ):
        row = evaluate(machine, load, talks, streams, args)
        rows.append(row)
        figures = _cells([f"{row[name]:.3f}" for name in RULES])
        where = f"{machine.name:8} {load:8} {row['prompts']:13} {streams:7}"
        echo(f"{where}{figures} {row['to_old']:6.2f}")
    smalls = {}
    for machine in machines:
        smalls[machine.name] = found = against_optimum(machine, 4 * args.seeds)
        figures = _cells([f"{found[name]:.3f}" for name in RULES])
        echo(f"{machine.name:8} {'optimum':8} {'':13} {'':7}{figures}")
    if args.json is not None:
        report = {"schema": 1, "rows": rows, "optimum": smalls}
        args.json.write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    return 0


def _cells(values: Sequence[str]) -> str:
    return "".join(f" {value:>7}" for value in values)


if __name__ == "__main__":
    sys.exit(main())
