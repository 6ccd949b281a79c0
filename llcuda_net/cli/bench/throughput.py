"""`llcuda bench throughput`: how much a server does."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from llcuda_net.cli.bench import options
from llcuda_net.cli.bench.interrupt import caution, measured
from llcuda_net.cli.bench.tool import Tool, command, drawing, finish, help_by_topic, need_extra
from llcuda_net.cli.common import Exit, Parser, run_command

_DESCRIPTION = """\
How much a server does: tokens/s and requests/s against concurrency and against offered rate.

Tokens are counted by the wall clock, as they arrive; the knee is found. A rate is saturated where
what is under way grows. With --slo, goodput: answers that kept the objective.
"""
_EPILOG = """\
examples:
  {call} --start demo --slo ttft=200ms,tpot=20ms --html throughput.html
  {call} --target 127.0.0.1:9000 --concurrency 1,2,4,8,16 --rates none
  {call} --target 127.0.0.1:9000 --rates 1,2,4,8 --json new.json
  {call} --target http://127.0.0.1:11434/v1 --model llama3.2 --inflight 1,2,4,8

Each load is held for --warmup and --seconds, every second round backwards, so that what drifts
meets all loads alike; then what is under way is waited for, so that slow answers count. --rates
auto offers shares of the greatest requests/s that the closed loops reached, up to one and a quarter
of it.

exit codes: 0 measured, 1 the run is INVALID or --compare found something worse, 2 usage,
3 no connection
"""


def make_parser(tool: Tool) -> Parser:
    """The command's options."""
    out = Parser(
        prog=tool.prog,
        usage=f"{tool.prog} [options]",
        description=_DESCRIPTION,
        epilog=_EPILOG.format(call=tool.call),
    )
    options.add_target(out, tool)
    group = out.add_argument_group("how much to ask")
    group.add_argument(
        *("--concurrency", "--inflight"),
        type=options.numbers,
        default=[1.0, 2.0, 4.0, 8.0, 16.0],
        metavar="N,N,…",
        help="workers of the closed loops (1,2,4,8,16)",
    )
    group.add_argument(
        "--rates",
        type=_rates,
        default="auto",
        metavar="R,R,…",
        help="requests/s; auto or none",
    )
    group.add_argument(
        "--seconds",
        type=options.some_seconds,
        help="of each load (5, or twice as long as its answers)",
    )
    group.add_argument(
        "--warmup",
        type=options.seconds,
        help="before it (as long as each load needs, found by a pilot run)",
    )
    group.add_argument(
        "--drain",
        type=options.seconds,
        metavar="TIME",
        help="after it, for what is under way, then that is cut (until all has ended)",
    )
    group.add_argument(
        "--rounds",
        *("--repeats", "--iters"),
        dest="rounds",
        type=options.positive,
        default=5,
        help="over all loads (5)",
    )
    options.add_slo(group)
    options.add_request(out)
    options.add_kernels(out)
    # More than for latencies: a rate over seconds is not moved by it, and overload is part of this.
    options.add_output(out, max_lag="100ms")
    help_by_topic(out)
    return out


def _rates(text: str) -> list[float] | str:
    """Rates to offer: numbers, none, or the word auto."""
    if text == "auto":
        return text
    if text == "none":
        return []
    try:
        return options.numbers(text)
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{error}, or auto, or none") from None


def main(argv: Sequence[str] | None = None, tool: Tool | None = None) -> int:
    """Measure, show, write; returns the exit code."""
    given = list(sys.argv[1:] if argv is None else argv)
    tool = tool or command("throughput")
    args = make_parser(tool).parse_args(given)
    return run_command(tool.prog, lambda: _run(args, given, tool))


def _run(args: argparse.Namespace, argv: list[str], tool: Tool) -> int:
    need_extra()

    from llcuda_net.bench.record.requests import parts_of
    from llcuda_net.bench.record.sent import sent
    from llcuda_net.bench.report import document, throughput
    from llcuda_net.bench.runs.throughput import Sweep, ThroughputBench
    from llcuda_net.cli.progress import Ticker
    from llcuda_net.util import logs

    settings = options.settings_of(args, tool)
    options.generates(args)
    sweep = Sweep(
        concurrency=args.concurrency,
        rates=args.rates,
        seconds=args.seconds,
        warmup=args.warmup,
        drain=args.drain,
        rounds=args.rounds,
        slo=args.slo,
    )
    old = document.read(args.compare) if args.compare else None
    logs.configure("error")
    ticker = Ticker()
    bench = ThroughputBench(settings, sweep, ticker.say)
    what = sent(settings.request)
    found = document.begin(tool.name, argv, args.seed, bench.as_dict(), sent=what)
    whole = measured(bench.run, ticker)
    if not whole:
        complete, of = bench.progress()
        caution(found, complete, of, "runs of a load")
    bench.figures(found)

    def page() -> str:
        from llcuda_net.bench.report.throughput_page import page

        return page(found)

    loads = (("concurrency", bench.concurrency), ("rates", bench.rates))
    parts = [
        part
        for kind, steps in loads
        for step in steps
        for part in parts_of(kind, step.load, step.runs)
    ]
    code = finish(found, throughput.lines(found, drawing(args)), page, args, old, parts)
    return code if whole else Exit.INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
