"""`llcuda bench scaling --work search`: how a search over ranks grows."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llcuda_net.cli.bench import options
from llcuda_net.cli.bench.interrupt import measured
from llcuda_net.cli.bench.tool import command
from llcuda_net.cli.common import Parser, fail

if TYPE_CHECKING:
    from llcuda_net.bench.runs.searches import Search

#: What is searched where nothing else is said.
_DEFAULTS: dict[str, Any] = {"rows": 10_000_000, "dim": 768, "queries": 1, "k": 10, "gather": "mpi"}
#: Seconds before searches are measured.
_WARMUP = 1.0
#: What goes with both kinds of work.
_BOTH = (
    *("work", "sweep", "over", "mode", "seconds", "warmup", "repeats", "seed"),
    *("json", "html", "compare", "point", "note"),
)


@dataclass(frozen=True, slots=True)
class Swept:
    """The points of a sweep.

    Attributes:
        points: those that are complete.
        of: how many were to be.
        whole: False: Ctrl-C ended it.
    """

    points: list[dict[str, Any]]
    of: int
    whole: bool


def add(parser: Parser) -> None:
    """What to search."""
    group = parser.add_argument_group("what to search, with --work search")
    group.add_argument(
        "--rows",
        type=options.positive,
        metavar="N",
        help="vectors: of each rank (weak), or of all together (strong) (10000000)",
    )
    group.add_argument("--dim", type=options.positive, metavar="N", help="of each vector (768)")
    group.add_argument("--queries", type=options.positive, metavar="N", help="of one search (1)")
    group.add_argument("--k", type=options.positive, metavar="N", help="found for each query (10)")
    group.add_argument(
        "--gather", choices=("mpi", "nccl"), help="how ranks tell each other what they found (mpi)"
    )


def search_of(args: argparse.Namespace, parser: Parser) -> Search | None:
    """What is to be searched; None where requests are measured.

    Raises:
        CommandError: an option belongs to the other kind of work, or is out of range.
    """
    if args.work == "requests":
        given = [name for name in _DEFAULTS if getattr(args, name) is not None]
        if given:
            fail(f"--{given[0]} goes with --work search")
        return None
    untouched = parser.parse_args([])
    for name, value in vars(args).items():
        if name not in _BOTH and name not in _DEFAULTS and value != getattr(untouched, name):
            fail(f"--{name.replace('_', '-')} does not go with --work search: no server is asked")
    if args.over == "servers":
        fail("--over servers does not go with --work search: no server is asked")

    from llcuda_kernels.search import MAX_DIM, MAX_K
    from llcuda_net.bench.runs.searches import Search

    what = {
        name: value if (value := getattr(args, name)) is not None else default
        for name, default in _DEFAULTS.items()
    }
    for name, most in (("dim", MAX_DIM), ("k", MAX_K)):
        if what[name] > most:
            fail(f"--{name} must be at most {most}, not {what[name]}")
    if args.warmup is None:
        args.warmup = _WARMUP
    return Search(**what, mode=args.mode, seconds=args.seconds, warmup=args.warmup, seed=args.seed)


def settings(args: argparse.Namespace, search: Search) -> dict[str, Any]:
    """What the document says of the run."""
    names = ("work", "sweep", "over", "mode", "seconds", "warmup")
    return {
        **{name: getattr(args, name) for name in names},
        **{name: getattr(search, name) for name in _DEFAULTS},
    }


def sweep(args: argparse.Namespace, search: Search) -> Swept:
    """A sweep: one process, which starts the points."""
    from llcuda_net.bench.runs import sweep
    from llcuda_net.cli.progress import Ticker

    name = command("scaling").prog
    curve = sweep.Curve([int(size) for size in args.sweep], repeats=args.repeats)

    async def one(size: int, repeat: int) -> dict[str, Any]:
        def program(file: Path) -> Sequence[str]:
            given = [*("--work", "search", "--mode", search.mode, "--point", str(file))]
            for option in (*_DEFAULTS, "seconds", "warmup"):
                given += [f"--{option}", str(getattr(search, option))]
            given += ["--seed", str(search.seed + repeat)]
            return [sys.executable, "-m", "llcuda_net.cli.main", *name.split()[1:], *given]

        return await sweep.run(size, name, program)

    ticker = Ticker()
    found: list[dict[str, Any]] = []
    whole = measured(lambda: sweep.points(curve, one, found, ticker.say), ticker)
    return Swept(found, curve.points, whole)
