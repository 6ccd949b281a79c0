#!/usr/bin/env python3
"""What grows with the number of results and of journalled tokens, and what does not."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "protocol")]  # runs from anywhere, without being installed

from llcuda_net.cli.common import Parser
from llcuda_net.storage.journal.journal import Journal
from llcuda_net.util.process_memory import resident
from llcuda_net.util.terminal import echo, is_clever, status_line
from tools.growth import plot, store
from tools.growth.journal import fill_journal
from tools.overhead.results import machine

EXAMPLE = """\
example:
  python tools/bench_growth.py --json growth.json --plot growth.png
  python tools/bench_growth.py --quick
  python tools/bench_growth.py --sizes 1000000 --keep /var/tmp/growth --fill
  python tools/bench_growth.py --sizes 1000000 --keep /var/tmp/growth

Stores of each size are filled with texts of Zipf's distribution, of 20 owners, 8 models and 4
states, and asked everything that a client can ask; each question up to 21 times, the median, the
least and the most are given. Filling takes half a minute for 100,000 results, and 3.5 kB each. With
--keep the stores stay, and are measured the next time without being filled. Journals of each number
of tokens are read as after a crash. Each is measured in a process of its own.

exit codes: 0 measured, 1 a measurement failed, 2 usage, 130 interrupted
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    out = Parser(description=__doc__, epilog=EXAMPLE)
    add = out.add_argument
    sizes = [1000, 10_000, 100_000, 300_000, 1_000_000]
    add("--sizes", type=_numbers, default=sizes, help="of stores (default 1000 to 1000000)")
    tokens = [100_000, 1_000_000, 4_000_000]
    add("--tokens", type=_numbers, default=tokens, help="of journals (default 100000 to 4000000)")
    add("--quick", action="store_true", help="a look: 500 and 2,000 results, 20,000 tokens")
    add("--seed", type=int, default=1, help="of texts (default %(default)s)")
    add("--dir", type=Path, default=Path(tempfile.gettempdir()), help="on the disk to be measured")
    add("--keep", type=Path, metavar="FOLDER", help="where stores stay, and are used again")
    add("--fill", action="store_true", help="with --keep: fill the stores, and measure nothing")
    add("--json", type=Path, metavar="FILE", help="write everything there")
    add("--plot", type=Path, metavar="FILE", help="draw the curves there (extra bench)")
    return out


def _numbers(text: str) -> list[int]:
    values = sorted({int(part) for part in text.split(",")})
    if values[0] < 100:
        raise argparse.ArgumentTypeError("must be at least 100, separated by commas")
    return values


def _say(text: str) -> None:
    if is_clever(sys.stderr):
        status_line(text, sys.stderr)


def filled(folder: Path, sizes: Sequence[int], seed: int) -> list[Path]:
    """A store of each size; each begins as a copy of the one before it."""
    out: list[Path] = []
    for size in sizes:
        path = folder / str(size)
        if out and not path.exists():
            store.copied(out[-1], path)
        store.fill(path, size, seed, _say)
        out.append(path)
    return out


def start(folder: Path) -> dict[str, Any]:
    """Read a journal as after a crash."""
    before = resident()
    started = time.perf_counter()
    pairs, _ = Journal(folder).open()
    seconds = time.perf_counter() - started
    return {
        "generations": len(pairs),
        "seconds": round(seconds, 3),
        "memory_bytes": resident() - before,
    }


def alone(what: Callable[..., Any], *values: Any) -> Any:
    """What a function returns, called in a new process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(what, *values).result()


def run(args: argparse.Namespace, folder: Path, document: dict[str, Any]) -> None:
    """Fill and measure."""
    paths = filled(args.keep or folder, args.sizes, args.seed)
    if args.fill:
        return
    for path, size in zip(paths, args.sizes, strict=True):
        _say(f"measuring {size:,} results")
        document["stores"].append(alone(store.measure, path, size, args.seed))
    for tokens in args.tokens:
        _say(f"measuring a journal of {tokens:,} tokens")
        path = folder / f"journal-{tokens}"
        written = fill_journal(path, tokens)
        figures = {"tokens": written.tokens, "bytes": written.bytes}
        document["journals"].append({**figures, **alone(start, path)})


def table(document: dict[str, Any]) -> str:
    """The medians, a question a line and a size a column."""
    stores = document["stores"]
    lines = [
        "machine: {cpu}, {cores} cores, Linux {kernel}, Python {python}".format(
            **{"cpu": "?", **document["machine"]}
        ),
        f"load before: {document['load_before']:.2f} (other work makes every figure worse)",
        f"{'results':28}" + "".join(f"{one['results']:>20,}" for one in stores),
    ]

    def line(name: str, show: Callable[[dict[str, Any]], str]) -> None:
        lines.append(f"{name:28}" + "".join(f"{show(one):>20}" for one in stores))

    line("open, ms", lambda one: f"{one['open_ms']:.2f}")
    for name in stores[0]["asked"] if stores else ():

        def asked(one: dict[str, Any], name: str = name) -> str:
            figures = one["asked"][name]
            return "{p50_ms:.2f} ({least_ms:.2f}-{most_ms:.2f})".format(**figures)

        line(f"{name}, ms", asked)
    line("insert, results/s", lambda one: f"{sorted(one['inserts_per_s'])[2]:,}")
    line("results.db, B/result", lambda one: f"{one['results_bytes_per_result']:,}")
    line("derived.db, B/result", lambda one: f"{one['derived_bytes_per_result']:,}")
    line("memory, MiB", lambda one: f"{one['memory_bytes'] / (1 << 20):.1f}")
    for one in document["journals"]:
        lines.append(
            "a journal of {tokens:,} tokens ({bytes:,} bytes) is read in {seconds} s, "
            "with {memory_bytes:,} bytes of memory".format(**one)
        )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the table, write the JSON, draw the curves."""
    args = parser().parse_args(argv)
    if args.quick:
        args.sizes, args.tokens = [500, 2000], [20_000]
    if args.fill and args.keep is None:
        parser().error("--fill goes with --keep")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    document: dict[str, Any] = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": ["tools/bench_growth.py", *(argv if argv is not None else sys.argv[1:])],
        "machine": machine(),
        "load_before": os.getloadavg()[0],
        "stores": [],
        "journals": [],
    }
    try:
        # Whatever ends us, the folder goes with it.
        with tempfile.TemporaryDirectory(prefix="bench-growth-", dir=args.dir) as top:
            run(args, Path(top), document)
        _say("")
    except KeyboardInterrupt:
        echo("\ninterrupted", file=sys.stderr)
        return 130
    except OSError as error:
        echo(f"{args.keep or args.dir}: {error}", file=sys.stderr)
        return 1
    if args.fill:
        return 0
    echo(table(document))
    if args.json is not None:
        args.json.write_text(json.dumps(document, indent=1) + "\n", "utf-8")
    if args.plot is not None:
        plot.draw(document, args.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
