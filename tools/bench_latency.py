#!/usr/bin/env python3
"""What a user waits for: first token, each next one, and the whole answer, with intervals.

At a rate (an open schedule, decided before the run) latency counts from the moment a request was
meant to be sent, so that a server that stalls cannot hide it by being asked less.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), *(str(ROOT / part) for part in ("protocol", "kernels"))]

from llcuda_net.batch import post_process
from llcuda_net.batch.targets import Target, open_target
from llcuda_net.bench import document, prompts
from llcuda_net.bench.load import Plan
from llcuda_net.bench.shown import Ticker
from llcuda_net.bench.summary import difference, distribution, headline, rates, summarise
from llcuda_net.bench.validity import Bounds, Ceiling, cautions, shared
from llcuda_net.cli.common import Exit, Parser, fail, read_text, run_command
from llcuda_net.cli.run_async import run_async
from llcuda_net.util import logs
from tools.measuring import latency_report, options, stack
from tools.measuring.finish import finish
from tools.measuring.once import Once, once, self_test

PROG = "bench_latency.py"
EXAMPLE = """\
examples:
  python tools/bench_latency.py --start demo --rate 4 --html latency.html
  python tools/bench_latency.py --server 127.0.0.1:9000 --rate 10 --repeats 5 --json new.json
  python tools/bench_latency.py --server 127.0.0.1:9000 --direct http://127.0.0.1:8080
  python tools/bench_latency.py --server http://127.0.0.1:8080 --inflight 4 --iters 200
  python tools/bench_latency.py --start demo --direct started --rate 4

With --direct each prompt goes both ways, in random order, and the gateway's own cost is the median
of the pairs' differences. With --start, "--direct started" is the upstream that was started.

Percentiles are told where at least ten requests lie beyond them: p50 needs 20, p99 needs 1,000.
exit codes: 0 measured, 1 the run is INVALID or --compare found something worse, 2 usage,
3 no connection
"""
#: Numbers of different repetitions must differ, so that pairs are not mixed up.
_APART = 10_000_000


def parser() -> Parser:
    """The command line."""
    out = Parser(prog=PROG, usage=f"{PROG} [options]", description=__doc__, epilog=EXAMPLE)
    options.add_target(out)
    out.add_argument("--direct", metavar="URL", help="also ask this llama-server, pair by pair")
    group = out.add_argument_group("when to ask")
    group.add_argument("--rate", type=options.above_0, help="requests/s; without it a closed loop")
    group.add_argument(
        "--arrivals",
        metavar="KIND",
        help="poisson (the default with --rate), constant, gamma:CV,"
        " ramp:RATE, trace:FILE, or closed",
    )
    group.add_argument(
        *("--concurrency", "--inflight"),
        type=options.positive,
        default=1,
        help="workers of a closed loop (1)",
    )
    group.add_argument("--seconds", type=options.seconds, default=20.0, help="of measuring (20)")
    group.add_argument("--warmup", type=options.seconds, default=2.0, help="before it (2)")
    group.add_argument("--iters", type=options.positive, help="end after so many requests")
    group.add_argument(
        "--repeats",
        type=options.positive,
        default=3,
        help="of the whole run; --compare needs them (3)",
    )
    options.add_request(out)
    options.add_kernels(out)
    options.add_output(out)
    return out


class Bench:
    """The whole measurement. `runs` fills as it goes on."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.prompts = prompts.parse(args.prompts, seed=args.seed)
        self.bounds = Bounds(lag=args.max_lag)
        self.ticker = Ticker()
        self.runs: list[Once] = []
        self.ceiling: Ceiling | None = None
        self.about: dict[str, dict[str, Any]] = {}
        self.post = ""

    async def run(self) -> None:
        """Connect, test this client, and measure.

        Raises:
            ConnectError, RequestError: a server is not there.
        """
        args = self.args
        access = options.access_of(args)
        async with AsyncExitStack() as cleanup:
            server, direct = args.server or options.DEFAULT_SERVER, args.direct
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
                server = started.server
                direct = started.upstream if direct == "started" else direct
                access["api_key"] = started.api_key or access["api_key"]
            targets: dict[str, Target] = {}
            for path, address in (("gateway", server), ("direct", direct)):
                if address is not None:
                    targets[path] = await cleanup.enter_async_context(
                        open_target(address, **access)
                    )
                    about = await targets[path].about()
                    self.about[path] = {
                        "address": address,
                        "model": about.model,
                        "slots": about.slots,
                        "version": about.version,
                    }
            after = None
            if args.cuda_work is not None or args.cuda_post:
                after, self.post = post_process.prepare(
                    args.cuda_work, args.cuda_iters, args.cuda_post
                )
            if not args.no_self_test:
                self.ceiling = await self_test(self.plan(0), self.ticker)
            for repeat in range(args.repeats):
                label = f"run {repeat + 1} of {args.repeats}:"
                found = await once(
                    self.plan(repeat), targets, after=after, ticker=self.ticker, label=label
                )
                for record in found.records:
                    record.number += repeat * _APART
                self.runs.append(found)

    def plan(self, repeat: int) -> Plan:
        """What a repetition sends: the same prompts, at moments of its own."""
        args = self.args
        schedule = options.schedule_of(args, args.warmup + args.seconds, args.seed + repeat)
        return Plan(
            schedule=schedule,
            prompts=self.prompts,
            params=options.params_of(args),
            timeout=args.timeout,
            warmup=args.warmup,
            requests=args.iters,
            seed=args.seed + repeat,
        )


def figures(bench: Bench, found: dict[str, Any]) -> None:
    """Fill the document with what the runs gave."""
    runs, args = bench.runs, bench.args
    everything = [record for run in runs for record in run.measured]
    found["schedule"] = bench.plan(0).schedule.describe()
    if "direct" in bench.about:
        found["schedule"] += " over both ways together"
    found["paths"] = {}
    repetitions: dict[str, list[float]] = {}
    for path, about in bench.about.items():
        records = [record for record in everything if record.path == path]
        summary = summarise(records, seed=args.seed)
        found["paths"][path] = {"about": about, **summary}
        for run in runs:
            own = [record for record in run.measured if record.path == path]
            for name, value in headline(summarise(own)).items():
                key = name if path == "gateway" else f"{name}, direct"
                repetitions.setdefault(key, []).append(value)
    found["repetitions"] = {
        name: values for name, values in repetitions.items() if len(values) == len(runs)
    }
    if "direct" in bench.about:
        found["cost"] = {
            metric: difference(everything, metric, seed=args.seed)
            for metric in ("service_ttft", "tpot", "service")
        }
    found["rates"] = [rates(run.records, run.begin, run.end) for run in runs]
    found["timeline"] = [
        [round(record.intended, 4), round(record.latency * 1e3, 3), record.path, number]
        for number, run in enumerate(runs)
        for record in run.measured
        if record.done
    ]
    lags = [[record.lag] for record in everything if not math.isnan(record.lag)]
    found["client"] = {
        "lag": distribution(lags, seed=args.seed),
        "cpu_share": [run.cpu_share for run in runs],
        "self_test": None
        if bench.ceiling is None
        else {
            "requests_per_s": bench.ceiling.requests,
            "tokens_per_s": bench.ceiling.tokens,
            "ttft_ms": bench.ceiling.ttft * 1e3,
            "lag_p99_ms": bench.ceiling.lag * 1e3,
        },
    }
    found["post"] = bench.post
    for number, run in enumerate(runs, 1):
        found["problems"] += [
            f"run {number}: {text}" for text in run.problems(bench.bounds, bench.ceiling)
        ]
    addresses = [about["address"] for about in bench.about.values()]
    found["cautions"] += shared(addresses, document.cores())
    found["cautions"] += cautions(everything, bench.plan(0).schedule)
    if "direct" in bench.about and args.rate is not None:
        found["cautions"].append(
            "direct requests take slots that llcuda-server does not know to be taken:"
            " compare the two ways at a rate that leaves slots free"
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, show, write; returns the exit code."""
    args = parser().parse_args(argv)
    return run_command(PROG, lambda: _run(args, list(sys.argv[1:] if argv is None else argv)))


def _run(args: argparse.Namespace, argv: list[str]) -> int:
    options.check(args)
    if args.direct == "started" and not args.start:
        fail("--direct started goes with --start")
    if args.api_key_file is not None:
        read_text(args.api_key_file, "API key file")
    old = document.read(args.compare) if args.compare else None
    logs.configure("error")
    bench = Bench(args)
    settings = {
        "schedule": bench.plan(0).schedule.as_dict(),
        "warmup": args.warmup,
        "iters": args.iters,
        "direct": args.direct is not None,
        **options.request_settings(args),
    }
    found = document.begin(f"tools/{PROG}", argv, args.seed, settings)
    try:
        run_async(bench.run)
    finally:
        bench.ticker.erase()
    figures(bench, found)
    lines = latency_report.lines(found)
    code = finish(found, lines, lambda: latency_report.page(found), args, old)
    return Exit.REFUSED if code else Exit.OK


if __name__ == "__main__":
    sys.exit(main())
