"""`llcuda bench latency`: what a user waits for."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from llcuda_net.cli.bench import options
from llcuda_net.cli.bench.interrupt import caution, measured
from llcuda_net.cli.bench.tool import Tool, command, drawing, finish, help_by_topic, need_extra
from llcuda_net.cli.common import Exit, Parser, fail, run_command

_DESCRIPTION = """\
What a user waits for: first token, each next one, and the whole answer, with intervals.

At a rate (an open schedule, decided before the run) latency counts from the moment a request was
meant to be sent, so that a server that stalls cannot hide it by being asked less.
"""
_EPILOG = """\
examples:
  {call} --start demo --rate 4 --html latency.html
  {call} --target 127.0.0.1:9000 --rate 10 --repeats 5 --json new.json
  {call} --start demo --rate 4 --slo ttft=500ms,tpot=50ms --price 0.30/kWh --html latency.html
  {call} --target 127.0.0.1:9000 --direct http://127.0.0.1:8080
  {call} --target 127.0.0.1:9000 --direct https://host/v1 --direct-api openai
  {call} --target http://127.0.0.1:11434/v1 --model llama3.2 --rate 2
  {call} --start demo --direct started --rate 4
  {call} --start demo --workload chat --max-prompt 1400 --max-tokens 64 --rate 1 --seconds 60
  {call} --target http://127.0.0.1:8080 --trace AzureLLMInferenceTrace_conv.csv --trace-speed 0.5

A server with the OpenAI API gets each prompt as a chat of one message. Its key: OPENAI_API_KEY, or
--api-key-file.

With --direct each prompt goes both ways, in random order, and the gateway's own cost is the median
of the pairs' differences; if one gets chats, both do. With --start, "--direct started" is the
upstream that was started. Its key: LLCUDA_DIRECT_KEY, or --api-key-file.

Percentiles are reported where at least ten answers lie beyond them: p50 needs 20, p99 needs 1,000.
Intervals are by whole repeats; a figure without one says why.
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
    group = out.add_argument_group("a second way, pair by pair")
    group.add_argument(
        "--direct",
        metavar="URL",
        help="also ask this llama-server, or OpenAI-compatible server",
    )
    group.add_argument(
        "--direct-api",
        choices=("auto", "llama", "openai"),
        default="auto",
        help="its API, as --api (auto)",
    )
    group.add_argument(
        "--direct-model",
        metavar="NAME",
        help="its model, by the OpenAI API (default: the first that it lists)",
    )
    group = out.add_argument_group("when to ask")
    group.add_argument(
        "--rate",
        type=options.above_0,
        help="requests/s, or sessions/s of a workload of several turns; without it a closed loop",
    )
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
        help="workers of a closed loop, or users with sessions (1)",
    )
    group.add_argument(
        "--seconds", type=options.some_seconds, default=20.0, help="of measuring (20)"
    )
    group.add_argument(
        "--warmup",
        type=options.seconds,
        help="before it (as long as the load needs to settle, by a rehearsal)",
    )
    group.add_argument(
        "--iters", type=options.positive, help="end after so many requests, or sessions"
    )
    group.add_argument(
        "--repeats",
        type=options.positive,
        default=5,
        help="of the whole run, after a rehearsal: intervals and --compare need them (5)",
    )
    options.add_trace(out)
    options.add_slo(group)
    options.add_request(out)
    options.add_kernels(out)
    options.add_output(out)
    help_by_topic(out)
    return out


def main(argv: Sequence[str] | None = None, tool: Tool | None = None) -> int:
    """Measure, show, write; returns the exit code."""
    given = list(sys.argv[1:] if argv is None else argv)
    tool = tool or command("latency")
    args = make_parser(tool).parse_args(given)
    return run_command(tool.prog, lambda: _run(args, given, tool))


def _run(args: argparse.Namespace, argv: list[str], tool: Tool) -> int:
    need_extra()

    from llcuda_net.bench.record.requests import parts_of
    from llcuda_net.bench.record.sent import sent
    from llcuda_net.bench.report import document, latency
    from llcuda_net.bench.runs.latency import STARTED, Direct, LatencyBench, Load
    from llcuda_net.cli.progress import Ticker
    from llcuda_net.util import logs

    settings = options.settings_of(args, tool)
    if args.direct == STARTED and not args.start:
        fail("--direct started goes with --start")
    if args.direct is None and (args.direct_model or args.direct_api != "auto"):
        fail("--direct-api and --direct-model go with --direct")
    if args.trace is not None:
        for name in ("rate", "arrivals", "direct"):
            if getattr(args, name) is not None:
                fail(f"--trace brings its own moments and lengths: it goes without --{name}")
    direct = None
    if args.direct is not None:
        key = None
        if args.direct != STARTED:
            key = options.api_key(args, args.direct, "LLCUDA_DIRECT_KEY")
        direct = Direct(args.direct, args.direct_api, args.direct_model, key)
    load = Load(
        rate=args.rate,
        arrivals=args.arrivals,
        concurrency=args.concurrency,
        seconds=args.seconds,
        warmup=args.warmup,
        requests=args.iters,
        repeats=args.repeats,
        slo=args.slo,
    )
    old = document.read(args.compare) if args.compare else None
    logs.configure("error")
    ticker = Ticker()
    bench = LatencyBench(settings, load, direct, ticker.say)
    what = sent(settings.request)
    found = document.begin(tool.name, argv, args.seed, bench.as_dict(), sent=what)
    whole = measured(bench.run, ticker)
    if not whole:
        caution(found, len(bench.runs), load.repeats, "runs")
    bench.figures(found)

    def page() -> str:
        from llcuda_net.bench.report.latency_page import page

        return page(found)

    before = [] if bench.rehearsal is None else [bench.rehearsal]
    parts = [*parts_of("rehearsal", None, before), *parts_of("run", None, bench.runs)]
    code = finish(found, latency.lines(found, drawing(args)), page, args, old, parts)
    return code if whole else Exit.INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
