"""`llcuda bench scaling`: how throughput grows with load processes, servers, or searching ranks."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llcuda_net.cli.bench import options, searching
from llcuda_net.cli.bench.interrupt import caution, measured
from llcuda_net.cli.bench.searching import Swept
from llcuda_net.cli.bench.tool import Tool, command, drawing, finish, help_by_topic, need_extra
from llcuda_net.cli.common import Exit, Parser, fail, run_command
from llcuda_net.util.numbers import plain

if TYPE_CHECKING:
    from llcuda_net.batch.mpi import Communicator
    from llcuda_net.bench.runs.once import Say
    from llcuda_net.bench.runs.ranks import Load
    from llcuda_net.bench.runs.searches import Search
    from llcuda_net.bench.runs.settings import Settings

_DESCRIPTION = """\
How throughput grows with load processes, with servers, or with ranks that search, under mpirun.

Each rank is a process with connections of its own. All start together, by aligned clocks, and what
they reach in the same window is added up; latencies are merged as histograms.

--work search asks no server: each rank holds a part of the vectors, on a GPU of its own where there
are GPUs, and all answer each search together (llcuda_kernels.ShardedStore).
"""
_EPILOG = """\
examples:
  {call} --sweep 1,2,4 --start {start} --slots 64 --html scaling.html
  {call} --sweep 1,2,4 --mode strong --inflight 16 --target 127.0.0.1:9000
  {call} --sweep 1,2,3,4 --over servers --start {start} --ranks 2
  mpirun -n 4 {call} --target 127.0.0.1:9000 --json four.json
  {call} --work search --sweep 1,2 --mode strong --rows 10000000 --gather nccl

Without --sweep it is one point: what as many ranks as mpirun starts (one without it) reach.
weak: each rank keeps --inflight requests going, so the load grows with the ranks. strong: all ranks
together keep --inflight going. Servers (--target A,B) are shared out over the ranks in turn. With
--work search each rank brings --rows (weak: vectors/s are to grow), or all share them (strong:
searches/s).
Ranks need the extra `mpi`, too: pip install 'llcuda-net[bench,mpi]'.

exit codes: 0 measured, 1 the run is INVALID or --compare found something worse, 2 usage,
3 no connection
"""


def make_parser(tool: Tool) -> Parser:
    """The command's options."""
    start = next(iter(tool.upstreams), "demo")
    out = Parser(
        prog=tool.prog,
        usage=f"{tool.prog} [options]",
        description=_DESCRIPTION,
        epilog=_EPILOG.format(call=tool.call, start=start),
    )
    out.add_argument(
        "--work",
        choices=("requests", "search"),
        default="requests",
        help="what ranks do: ask servers, or search vectors together (requests)",
    )
    options.add_target(out, tool)
    group = out.add_argument_group("how it grows")
    group.add_argument("--sweep", type=options.numbers, metavar="1,2,4", help="start these runs")
    group.add_argument(
        "--over", choices=("ranks", "servers"), default="ranks", help="what --sweep counts (ranks)"
    )
    group.add_argument("--ranks", type=options.positive, default=2, help="with --over servers (2)")
    group.add_argument("--mode", choices=("weak", "strong"), default="weak")
    group.add_argument(
        *("--inflight", "--concurrency"),
        type=options.positive,
        default=8,
        help="requests at once: of each rank (weak), or of all together (strong) (8)",
    )
    group.add_argument("--seconds", type=options.some_seconds, default=5.0, help="of measuring (5)")
    group.add_argument(
        "--warmup",
        type=options.seconds,
        help="before it (as long as an answer takes, found by a pilot run; of a search 1)",
    )
    group.add_argument(
        *("--repeats", "--iters"),
        dest="repeats",
        type=options.positive,
        default=3,
        help="of each point of a sweep (3)",
    )
    options.add_slo(group)
    options.add_request(out)
    searching.add(out)
    options.add_kernels(out)
    options.add_output(out, max_lag="100ms")  # as for throughput: it moves no rate
    out.add_argument("--point", metavar="FILE", help=argparse.SUPPRESS)  # of a sweep's child
    help_by_topic(out)
    return out


def main(argv: Sequence[str] | None = None, tool: Tool | None = None) -> int:
    """Measure, show, write; returns the exit code."""
    given = list(sys.argv[1:] if argv is None else argv)
    tool = tool or command("scaling")
    parser = make_parser(tool)
    args = parser.parse_args(given)
    return run_command(tool.prog, lambda: _run(args, given, tool, parser))


def _run(args: argparse.Namespace, argv: list[str], tool: Tool, parser: Parser) -> int:
    need_extra()

    from llcuda_net.bench.report import document, scaling
    from llcuda_net.bench.workload.validity import shared
    from llcuda_net.util import logs

    if args.requests is not None:
        fail("--requests does not go with scaling: its ranks keep histograms, not requests")
    search = searching.search_of(args, parser)
    if args.start and not args.sweep:
        fail("--start goes with --sweep: ranks that start servers would measure each other's")
    work = _requests(args, tool) if search is None else _searches(args, search)
    old = document.read(args.compare) if args.compare else None
    logs.configure("error")
    # Before the load, which it describes; a sweep's child leaves it to its parent.
    found: dict[str, Any] = {}
    if args.point is None:
        found = document.begin(tool.name, argv, args.seed, work.settings, sent=work.sent)
    if args.sweep:
        swept = work.sweep()
        points, whole = swept.points, swept.whole
        if not whole:
            caution(found, len(points), swept.of, "runs of a size")
    else:
        point = _point(work.point)
        if not isinstance(point, dict):
            return point
        if args.point is not None:
            Path(args.point).write_text(json.dumps(point), "utf-8")
            return Exit.OK
        points, whole = [point], True

    from llcuda_net.bench.runs import curve  # with its solver: not for every rank

    curve.fill(found, points, args.over if args.sweep else "ranks", work.rate)
    addresses = [one.get("server", "") for one in points[0]["each"]]
    found["cautions"] += shared(addresses, document.cores())

    def page() -> str:
        from llcuda_net.bench.report.scaling_page import page

        return page(found)

    code = finish(found, scaling.lines(found, drawing(args)), page, args, old)
    return code if whole else Exit.INTERRUPTED


@dataclass(frozen=True, slots=True)
class _Work:
    """What ranks do.

    Attributes:
        settings: for the document.
        rate: the figure that is to grow.
        point: one point, as every rank runs it.
        sweep: starts the points, and gives their figures.
        sent: what is sent, for the document.
    """

    settings: dict[str, Any]
    rate: str
    point: Callable[[Communicator, Say], Awaitable[dict[str, Any] | None]]
    sweep: Callable[[], Swept]
    sent: dict[str, Any] | None = None


def _requests(args: argparse.Namespace, tool: Tool) -> _Work:
    from llcuda_net.bench.record.sent import sent
    from llcuda_net.bench.runs import ranks

    settings = options.settings_of(args, tool)
    options.generates(args)
    load = ranks.Load(args.inflight, args.mode, args.seconds, args.warmup, args.slo)
    return _Work(
        _settings(args, settings),
        "tokens_per_s",
        lambda communicator, say: ranks.point(communicator, settings, load, say),
        lambda: _sweep(args, settings, load),
        sent(settings.request),
    )


def _searches(args: argparse.Namespace, search: Search) -> _Work:
    from llcuda_net.bench.runs import searches

    return _Work(
        searching.settings(args, search),
        searches.RATE[search.mode],
        lambda communicator, say: searches.point(communicator, search, say),
        lambda: searching.sweep(args, search),
    )


def _settings(args: argparse.Namespace, settings: Settings) -> dict[str, Any]:
    return {
        "sweep": args.sweep,
        "over": args.over,
        "mode": args.mode,
        "inflight": args.inflight,
        "seconds": args.seconds,
        "warmup": args.warmup,
        "slo": args.slo,
        **settings.as_dict(),
    }


def _point(
    point: Callable[[Communicator, Say], Awaitable[dict[str, Any] | None]],
) -> dict[str, Any] | int:
    """One point: every rank runs this. Its figures on rank 0, else the exit code."""
    from llcuda_net.batch.mpi import open_communicator
    from llcuda_net.cli.progress import Ticker
    from llcuda_net.cli.run_async import run_async
    from llcuda_net.errors import ConfigError, ConnectError, LlcudaError

    # What all ranks agree upon is raised after the block, which would end them all, and by rank 0.
    agreed: LlcudaError | None = None
    found = None
    ticker = Ticker()
    with open_communicator() as communicator:
        say = ticker.say if communicator.rank == 0 else _silent
        try:
            found = run_async(point, communicator, say)
        except (ConfigError, ConnectError) as error:
            agreed = error
        finally:
            ticker.erase()
    if agreed is not None:
        if communicator.rank == 0:
            raise agreed
        return Exit.CONNECT
    return Exit.OK if found is None else found


def _silent(text: str) -> None:
    """Only rank 0 reports."""


def _sweep(args: argparse.Namespace, settings: Settings, load: Load) -> Swept:
    """A sweep: one process, which starts the points."""
    from llcuda_net.bench.runs.sweep import Curve, Program, sweep
    from llcuda_net.cli.progress import Ticker

    sizes = [int(size) for size in args.sweep]
    points = Curve(sizes, args.over, args.ranks, args.repeats)
    name = command("scaling").prog

    def program(settings: Settings, load: Load, file: Path) -> Sequence[str]:
        """A rank, with the files of this command, whose contents are no arguments."""
        request = settings.request
        given = [
            *(
                "--target",
                settings.server,
                "--api",
                args.api,
                "--mode",
                load.mode,
                "--inflight",
                str(load.inflight),
            ),
            *("--seconds", str(load.seconds)),
            *(() if load.warmup is None else ("--warmup", str(load.warmup))),
            *("--seed", str(request.seed), "--timeout", str(request.timeout)),
            "--cache-prompt" if request.cache_prompt else "--no-cache-prompt",
            *("--connections", str(args.connections), "--max-lag", str(args.max_lag)),
            *("--cuda-iters", str(args.cuda_iters), "--point", str(file)),
        ]
        given += ["--energy", args.energy]
        if load.slo:
            bounds = [f"{name}={plain(bound, 9)}s" for name, bound in load.slo.items()]
            given += ["--slo", ",".join(bounds)]
        for option in ("natural_ends", "tls", "cuda_post", "no_self_test"):
            given += [f"--{option.replace('_', '-')}"] * getattr(args, option)
        for option in (
            *("token_file", "tls_ca", "api_key_file", "cuda_work", "model", "tokenizer"),
            *("prompts", "workload", "max_tokens", "max_prompt", "price", "price_hour"),
        ):
            value = getattr(args, option)
            given += [f"--{option.replace('_', '-')}", str(value)] if value else []
        if args.workload:
            given += ["--think", str(args.think)]
        return [sys.executable, "-m", "llcuda_net.cli.main", *name.split()[1:], *given]

    ticker = Ticker()
    found: list[dict[str, Any]] = []
    what = Program(name, program)
    whole = measured(lambda: sweep(settings, load, points, what, found, ticker.say), ticker)
    return Swept(found, points.points, whole)


if __name__ == "__main__":
    sys.exit(main())
