#!/usr/bin/env python3
"""How much a server does: tokens/s and requests/s against concurrency and against offered rate.

Tokens are counted by the wall clock, as they arrive; the knee is found, and saturation is seen by
what is offered and not carried. With --slo, goodput: answers that kept the objective.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import trio

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), *(str(ROOT / part) for part in ("protocol", "kernels"))]

from llcuda_net.batch import post_process
from llcuda_net.batch.targets import Target, open_target
from llcuda_net.bench import document, prompts, schedules
from llcuda_net.bench.knee import knee, saturated
from llcuda_net.bench.load import After, Plan
from llcuda_net.bench.shown import Ticker
from llcuda_net.bench.statistics import Estimate
from llcuda_net.bench.validity import Bounds, Ceiling, cautions, shared
from llcuda_net.cli.common import Exit, Parser, run_command
from llcuda_net.cli.run_async import run_async
from llcuda_net.util import logs
from tools.measuring import options, stack, steps, throughput_report
from tools.measuring.finish import finish
from tools.measuring.once import once, self_test
from tools.measuring.steps import Step

PROG = "bench_throughput.py"
EXAMPLE = """\
examples:
  python tools/bench_throughput.py --start demo --slo ttft=200ms,tpot=20ms --html throughput.html
  python tools/bench_throughput.py --server 127.0.0.1:9000 --concurrency 1,2,4,8,16 --rates none
  python tools/bench_throughput.py --server 127.0.0.1:9000 --rates 1,2,4,8 --json new.json
  python tools/bench_throughput.py --server http://127.0.0.1:8080 --inflight 1,2,4,8

Each load is held for --warmup and --seconds, every second round backwards, so that what drifts
meets all loads alike. --rates auto offers shares of the greatest requests/s that the closed loops
reached, up to one and a quarter of it.

exit codes: 0 measured, 1 the run is INVALID or --compare found something worse, 2 usage,
3 no connection
"""
#: Shares of the capacity that --rates auto offers.
_SHARES = (0.25, 0.5, 0.75, 0.9, 1.0, 1.25)


def parser() -> Parser:
    """The command line."""
    out = Parser(prog=PROG, usage=f"{PROG} [options]", description=__doc__, epilog=EXAMPLE)
    options.add_target(out)
    group = out.add_argument_group("how much to ask")
    group.add_argument(
        *("--concurrency", "--inflight"),
        type=options.numbers,
        default=[1.0, 2.0, 4.0, 8.0, 16.0],
        metavar="N,N,…",
        help="workers of the closed loops (1,2,4,8,16)",
    )
    group.add_argument("--rates", default="auto", metavar="R,R,…", help="requests/s; auto or none")
    group.add_argument("--seconds", type=options.seconds, default=5.0, help="of each load (5)")
    group.add_argument("--warmup", type=options.seconds, default=1.0, help="before it (1)")
    group.add_argument(
        "--rounds",
        *("--repeats", "--iters"),
        dest="rounds",
        type=options.positive,
        default=3,
        help="over all loads (3)",
    )
    group.add_argument(
        "--slo", type=options.slo, metavar="SLO", help="objective: ttft=500ms,tpot=50ms,latency=5s"
    )
    options.add_request(out)
    options.add_kernels(out)
    # More than for latencies: a rate over seconds is not moved by it, and overload is part of this.
    options.add_output(out, max_lag="100ms")
    return out


class Bench:
    """The whole sweep."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.prompts = prompts.parse(args.prompts, seed=args.seed)
        self.ticker = Ticker()
        self.bounds = Bounds(lag=args.max_lag)
        self.ceiling: Ceiling | None = None
        self.about: dict[str, Any] = {}
        self.concurrency: list[Step] = []
        self.rates: list[Step] = []
        self.post = ""

    async def run(self) -> None:
        """Connect, test this client, and sweep.

        Raises:
            ConnectError, RequestError: the server is not there.
        """
        args = self.args
        access = options.access_of(args)
        async with AsyncExitStack() as cleanup:
            server = args.server or options.DEFAULT_SERVER
            if args.start:
                started = await cleanup.enter_async_context(
                    stack.running(
                        args.start,
                        slots=args.slots,
                        rate=args.rate_per_slot,
                        durability=args.durability,
                        seed=args.seed,
                    )
                )
                server, access["api_key"] = started.server, started.api_key
            target = await cleanup.enter_async_context(open_target(server, **access))
            about = await target.about()
            self.about = {
                "address": server,
                "model": about.model,
                "slots": about.slots,
                "version": about.version,
            }
            after = None
            if args.cuda_work is not None or args.cuda_post:
                after, self.post = post_process.prepare(
                    args.cuda_work, args.cuda_iters, args.cuda_post
                )
            self.concurrency = [Step(n) for n in args.concurrency]
            if not args.no_self_test:
                self.ceiling = await self_test(
                    self.plan(self.concurrency[-1], 0, False), self.ticker
                )
            await self.sweep(self.concurrency, target, after, rates=False)
            self.rates = [Step(rate) for rate in self.offered()]
            await self.sweep(self.rates, target, after, rates=True)

    async def sweep(
        self, found: list[Step], target: Target, after: After | None, *, rates: bool
    ) -> None:
        """Every load once a round."""
        for number in range(self.args.rounds if found else 0):
            for step in found if number % 2 == 0 else reversed(found):
                what = f"{step.load:.3g} requests/s" if rates else f"concurrency {step.load:g}"
                label = f"round {number + 1} of {self.args.rounds}, {what}:"
                plan = self.plan(step, number, rates)
                step.runs.append(
                    await once(
                        plan, {"gateway": target}, after=after, ticker=self.ticker, label=label
                    )
                )
                # What was cut is cancelled on the server: its slots must be free for the next.
                await trio.sleep(0.2)

    def plan(self, step: Step, number: int, rates: bool) -> Plan:
        """What a step sends in a round."""
        args = self.args
        length = args.warmup + args.seconds
        seed = args.seed + number
        schedule = (
            schedules.poisson(step.load, length, seed)
            if rates
            else schedules.closed(int(step.load), length)
        )
        return Plan(
            schedule=schedule,
            prompts=self.prompts,
            params=options.params_of(args),
            timeout=args.timeout,
            warmup=args.warmup,
            cut=True,
            seed=seed,
        )

    def offered(self) -> list[float]:
        """The rates to offer."""
        if self.args.rates == "none":
            return []
        if self.args.rates != "auto":
            found: list[float] = self.args.rates
            return found
        capacity = max(step.rates()["requests_per_s"].value for step in self.concurrency)
        return [float(f"{share * capacity:.3g}") for share in _SHARES] if capacity > 0 else []


def figures(bench: Bench, found: dict[str, Any]) -> None:
    """Fill the document with what the sweep gave."""
    args = bench.args
    found["about"] = bench.about
    found["post"] = bench.post
    found["repetitions"] = {}
    for kind, all_steps in (("concurrency", bench.concurrency), ("rates", bench.rates)):
        rows = [steps.describe(step, args.slo, bench.bounds, bench.ceiling) for step in all_steps]
        found[kind] = rows
        for step, row in zip(all_steps, rows, strict=True):
            if kind == "rates":
                share = step.carried()
                row["carried"], row["saturated"] = share.as_dict(), saturated(share)
            found["problems"] += [
                f"{kind} {step.load:g}, round {number}: {text}" for number, text in row["problems"]
            ]
            if kind == "concurrency":
                for name, values in step.repetitions().items():
                    found["repetitions"][f"{name} at {step.load:g}"] = values
    curve = [Estimate.from_dict(row["tokens_per_s"]) for row in found["concurrency"]]
    bend = knee([step.load for step in bench.concurrency], curve)
    found["knee"] = {"load": bend.load, "tokens_per_s": bend.throughput, "why": bend.why}
    over = [row["load"] for row in found["rates"] if row["saturated"] == "yes"]
    under = [row["load"] for row in found["rates"] if row["saturated"] == "no"]
    found["saturation"] = {
        "from": min(over, default=None),
        "carried": max((r for r in under if not over or r < min(over)), default=None),
    }
    slots = bench.about["slots"]
    if any(step.load > slots for step in bench.concurrency):
        found["cautions"].append(
            f"the upstream has {slots} slots: beyond that concurrency requests wait for one"
        )
    found["cautions"] += shared([bench.about["address"]], document.cores())
    everything = [record for step in bench.rates for run in step.runs for record in run.measured]
    if everything:
        found["cautions"] += [
            text
            for text in cautions(everything, schedules.constant(1, 1))
            if not text.startswith("latency rose")  # of steps that do not follow each other
        ]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, show, write; returns the exit code."""
    args = parser().parse_args(argv)
    return run_command(PROG, lambda: _run(args, list(sys.argv[1:] if argv is None else argv)))


def _run(args: argparse.Namespace, argv: list[str]) -> int:
    options.check(args)
    if args.rates not in ("auto", "none"):
        try:
            args.rates = options.numbers(args.rates)
        except argparse.ArgumentTypeError as error:
            parser().error(f"argument --rates: {error}, or auto, or none")
    old = document.read(args.compare) if args.compare else None
    logs.configure("error")
    bench = Bench(args)
    settings = {
        "concurrency": args.concurrency,
        "rates": args.rates,
        "seconds": args.seconds,
        "warmup": args.warmup,
        "slo": args.slo,
        **options.request_settings(args),
    }
    found = document.begin(f"tools/{PROG}", argv, args.seed, settings)
    try:
        run_async(bench.run)
    finally:
        bench.ticker.erase()
    figures(bench, found)
    lines = throughput_report.lines(found)
    code = finish(found, lines, lambda: throughput_report.page(found), args, old)
    return Exit.REFUSED if code else Exit.OK


if __name__ == "__main__":
    sys.exit(main())
