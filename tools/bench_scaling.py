#!/usr/bin/env python3
"""How throughput grows with load processes or with servers, under mpirun.

Each rank is a process with connections of its own. All start together, by aligned clocks, and what
they reach in the same window is added up; latencies are merged as histograms.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import trio

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), *(str(ROOT / part) for part in ("protocol", "kernels"))]

from llcuda_net.batch.mpi import open_communicator
from llcuda_net.bench import document
from llcuda_net.bench.shown import Ticker
from llcuda_net.bench.validity import shared
from llcuda_net.cli.common import Exit, Parser, fail, run_command
from llcuda_net.cli.run_async import run_async
from llcuda_net.errors import ConfigError, ConnectError, LlcudaError
from llcuda_net.util import logs
from tools.measuring import curve, mpirun, options, ranks, scaling_report, stack
from tools.measuring.finish import finish

PROG = "bench_scaling.py"
EXAMPLE = """\
examples:
  python tools/bench_scaling.py --sweep 1,2,4 --start synthetic --slots 64 --html scaling.html
  python tools/bench_scaling.py --sweep 1,2,4 --mode strong --inflight 16 --server 127.0.0.1:9000
  python tools/bench_scaling.py --sweep 1,2,3,4 --over servers --start synthetic --ranks 2
  mpirun -n 4 python tools/bench_scaling.py --server 127.0.0.1:9000 --json four.json

Without --sweep it is one point: what as many ranks as mpirun starts (one without it) reach.
weak: each rank keeps --inflight requests going, so the load grows with the ranks. strong: all ranks
together keep --inflight going. Servers (--server A,B) are shared out over the ranks in turn.

exit codes: 0 measured, 1 the run is INVALID or --compare found something worse, 2 usage,
3 no connection
"""


def parser() -> Parser:
    """The command line."""
    out = Parser(prog=PROG, usage=f"{PROG} [options]", description=__doc__, epilog=EXAMPLE)
    options.add_target(out)
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
    group.add_argument("--seconds", type=options.seconds, default=5.0, help="of measuring (5)")
    group.add_argument("--warmup", type=options.seconds, default=1.0, help="before it (1)")
    group.add_argument(
        *("--repeats", "--iters"),
        dest="repeats",
        type=options.positive,
        default=3,
        help="of each point of a sweep (3)",
    )
    options.add_request(out)
    options.add_kernels(out)
    options.add_output(out, max_lag="100ms")  # as for throughput: it moves no rate
    out.add_argument("--point", metavar="FILE", help=argparse.SUPPRESS)  # of a sweep's child
    return out


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, show, write; returns the exit code."""
    given = list(sys.argv[1:] if argv is None else argv)
    args = parser().parse_args(given)
    return run_command(PROG, lambda: (_sweep if args.sweep else _point)(args, given))


def _settings(args: argparse.Namespace) -> dict[str, Any]:
    return {
        "sweep": args.sweep,
        "over": args.over,
        "mode": args.mode,
        "inflight": args.inflight,
        "seconds": args.seconds,
        "warmup": args.warmup,
        **options.request_settings(args),
    }


# -- one point: every rank runs this --------------------------------------------------------------


def _point(args: argparse.Namespace, argv: list[str]) -> int:
    options.check(args)
    logs.configure("error")
    if args.start:
        fail("--start goes with --sweep: ranks that start servers would measure each other's")
    args.server = args.server or options.DEFAULT_SERVER
    old = document.read(args.compare) if args.compare else None
    # What all ranks agree upon is raised after the block, which would end them all, and by rank 0.
    agreed: LlcudaError | None = None
    found = None
    with open_communicator() as communicator:
        inflight = args.inflight
        if args.mode == "strong":
            share, more = divmod(args.inflight, communicator.size)
            inflight = share + (communicator.rank < more)
            if share == 0:
                agreed = ConfigError(
                    f"{args.inflight} requests at once cannot be shared out over"
                    f" {communicator.size} ranks"
                )
        if agreed is None:
            try:
                found = run_async(ranks.point, communicator, args, inflight)
            except (ConfigError, ConnectError) as error:
                agreed = error
    if agreed is not None:
        if communicator.rank == 0:
            raise agreed
        return Exit.CONNECT
    if found is None:
        return Exit.OK
    if args.point is not None:
        Path(args.point).write_text(json.dumps(found))
        return Exit.OK
    whole = document.begin(f"tools/{PROG}", argv, args.seed, _settings(args))
    curve.fill(whole, [found], "ranks")
    whole["cautions"] += shared(args.server.split(","), document.cores())
    lines = scaling_report.lines(whole)
    return finish(whole, lines, lambda: scaling_report.page(whole), args, old)


# -- a sweep: one process, which starts the points ------------------------------------------------


def _sweep(args: argparse.Namespace, argv: list[str]) -> int:
    options.check(args)
    old = document.read(args.compare) if args.compare else None
    logs.configure("error")
    whole = document.begin(f"tools/{PROG}", argv, args.seed, _settings(args))
    ticker = Ticker()
    try:
        points = run_async(_points, args, ticker)
    finally:
        ticker.erase()
    curve.fill(whole, points, args.over)
    addresses = [one["server"] for one in points[0]["each"]]
    whole["cautions"] += shared(addresses, document.cores())
    lines = scaling_report.lines(whole)
    return finish(whole, lines, lambda: scaling_report.page(whole), args, old)


async def _points(args: argparse.Namespace, ticker: Ticker) -> list[dict[str, Any]]:
    sizes = [int(size) for size in args.sweep]
    found = []
    async with AsyncExitStack() as cleanup:
        servers = (args.server or options.DEFAULT_SERVER).split(",")
        key = args.api_key_file
        if args.start:
            count = max(sizes) if args.over == "servers" else 1
            stacks = [
                await cleanup.enter_async_context(
                    stack.running(
                        args.start,
                        slots=args.slots,
                        rate=args.rate_per_slot,
                        durability=args.durability,
                        seed=args.seed,
                    )
                )
                for _ in range(count)
            ]
            servers = [each.server for each in stacks]
        if args.over == "servers" and len(servers) < max(sizes):
            fail(f"--sweep up to {max(sizes)} servers needs as many: --server A,B,… or --start")
        for repeat in range(args.repeats):
            for size in sizes if repeat % 2 == 0 else reversed(sizes):
                ticker.say(f"run {repeat + 1} of {args.repeats}, {size} {args.over}", at_once=True)
                many = size if args.over == "ranks" else args.ranks
                used = servers if args.over == "ranks" else servers[:size]
                inflight = args.inflight
                if args.over == "servers" and args.mode == "weak":
                    inflight = args.inflight * size  # the load grows with the servers
                found.append(await _one(args, many, used, inflight, args.seed + repeat, key))
    return found


async def _one(
    args: argparse.Namespace,
    many: int,
    servers: list[str],
    inflight: int,
    seed: int,
    key: str | None,
) -> dict[str, Any]:
    """Start one point and read its figures."""
    with tempfile.TemporaryDirectory(prefix="llcuda-scaling-") as folder:
        file = Path(folder) / "point.json"
        given = [
            *("--server", ",".join(servers), "--mode", args.mode, "--inflight", str(inflight)),
            *("--seconds", str(args.seconds), "--warmup", str(args.warmup), "--seed", str(seed)),
            *("--prompts", args.prompts, "--max-tokens", str(args.max_tokens)),
            *("--timeout", str(args.timeout), "--connections", str(args.connections)),
            *("--max-lag", str(args.max_lag), "--point", str(file)),
        ]
        given += ["--natural-ends"] * args.natural_ends + ["--cache-prompt"] * args.cache_prompt
        given += ["--tls"] * args.tls + ["--cuda-post"] * args.cuda_post
        given += ["--cuda-iters", str(args.cuda_iters)]
        given += ["--cuda-work", str(args.cuda_work)] if args.cuda_work else []
        for name, value in (("--token-file", args.token_file), ("--tls-ca", args.tls_ca),
                            ("--api-key-file", key)):  # fmt: skip
            given += [name, value] if value else []
        command = mpirun.command(many, [sys.executable, str(ROOT / "tools" / PROG), *given])
        done = await trio.run_process(
            command,
            env=mpirun.environment(folder),
            check=False,
            capture_stdout=True,
            capture_stderr=True,
        )
        if done.returncode or not file.exists():
            said = (done.stderr or done.stdout).decode("utf-8", "replace").strip().splitlines()
            mine = [line for line in said if line.startswith(PROG)] or said[-3:]
            fail(f"{many} ranks ended with code {done.returncode}: {' '.join(mine)}", 1)
        found: dict[str, Any] = json.loads(file.read_text())
        return found


if __name__ == "__main__":
    sys.exit(main())
