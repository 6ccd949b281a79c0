#!/usr/bin/env python3
"""How often the 95 % intervals of llcuda bench hold the truth, where that is known."""

from __future__ import annotations

import argparse
import gc
import json
import signal
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "protocol")]  # runs from anywhere, without being installed

from llcuda_net.cli.common import Parser
from llcuda_net.util.terminal import echo, is_clever, status_line
from tools.coverage import report
from tools.coverage.count import Count, count, product
from tools.coverage.modes import Mode, modes
from tools.coverage.pooled import pool
from tools.overhead.results import machine

EXAMPLE = """\
example:
  python tools/bench_coverage.py --table docs/benchmarks/coverage.md
  python tools/bench_coverage.py --replications 50 --only M/M/1 --workers 2
  python tools/bench_coverage.py --replications 2000 --only 'correlated,levels' --json coverage.json

Each mode is measured so many times: a rehearsal and the repeats are simulated, and the functions of
the product make figures of their records. Of those figures that have an interval, the share is
counted in which it holds the truth. "before" is a bootstrap of all requests together, as it was.
After Ctrl-C the table is of what was measured by then.

exit codes: 0 all within 90 to 97 %, 1 one is not, by more than two standard errors, 2 usage,
130 interrupted
"""
#: Measurements of one task: so many that a process is not asked for little.
_TASK = 10


def parser() -> argparse.ArgumentParser:
    """The command line."""
    out = Parser(description=__doc__, epilog=EXAMPLE)
    add = out.add_argument
    add("--replications", type=_positive, default=400, help="measurements a mode (%(default)s)")
    add("--repeats", type=_positive, default=5, help="of a measurement (%(default)s)")
    add("--only", metavar="WORDS", help="modes in whose name one of these is, by commas")
    add("--workers", type=_positive, default=1, help="processes (%(default)s)")
    add("--seed", type=int, default=1, help="of everything (%(default)s)")
    add("--json", type=Path, metavar="FILE", help="write everything there")
    add("--table", type=Path, metavar="FILE", help="write the table there, as Markdown")
    return out


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


_MODES: list[Mode] = []


def _modes() -> list[Mode]:
    """All modes, made once in a process."""
    if not _MODES:
        _MODES.extend(modes())
    return _MODES


def _quiet() -> None:
    """Ctrl-C is the main process's; and nothing here is garbage in circles."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.disable()


def task(
    place: int, seeds: Sequence[Sequence[int]], repeats: int, before: bool
) -> dict[str, Count]:
    """Some measurements of one mode, in a process of its own."""
    mode = _modes()[place]
    return count(mode, seeds, repeats, pool if before else product)


def _tasks(
    args: argparse.Namespace, wanted: Sequence[int]
) -> Iterator[tuple[int, list[list[int]], bool]]:
    """Of each part: the mode's place, seeds, and whether it is judged as it was done before.

    All modes have their first measurements before one has its second ones, so that a run that is
    interrupted has as many of each.
    """
    few = max(1, round(args.replications * report.PART))
    for first in range(0, args.replications, _TASK):
        numbers = range(first, min(first + _TASK, args.replications))
        for place in wanted:
            mode = _modes()[place]
            yield place, [[args.seed, place, number] for number in numbers], False
            before = [[args.seed, place, number] for number in numbers if number < few]
            queue = mode.name == "M/M/1" and mode.metric == "latency"
            if before and queue and mode.load.endswith(" 20 s"):  # longer ones take minutes
                yield place, before, True


def run(
    args: argparse.Namespace,
    wanted: Sequence[int],
    found: dict[tuple[int, bool], dict[str, Count]],
) -> None:
    """Measure; fills `found`, by mode and whether it is judged as before, as it goes on."""
    with ProcessPoolExecutor(
        args.workers, mp_context=get_context("spawn"), initializer=_quiet
    ) as workers:
        pending: dict[Future[dict[str, Count]], tuple[int, bool]] = {
            workers.submit(task, place, seeds, args.repeats, before): (place, before)
            for place, seeds, before in _tasks(args, wanted)
        }
        try:
            for number, done in enumerate(as_completed(pending), 1):
                whole = found.setdefault(pending[done], {})
                for name, part in done.result().items():
                    whole.setdefault(name, Count()).merge(part)
                if is_clever(sys.stderr):
                    status_line(f"{number} of {len(pending)} parts", sys.stderr)
        except BaseException:
            workers.shutdown(wait=False, cancel_futures=True)
            raise


def rows(found: dict[tuple[int, bool], dict[str, Count]]) -> list[dict[str, Any]]:
    """A row a mode and figure."""
    out = []
    for place in sorted({place for place, before in found if not before}):
        mode = _modes()[place]
        for name, each in found[place, False].items():
            other = found.get((place, True), {}).get(name)
            out.append(
                {
                    "mode": mode.name,
                    "load": mode.load,
                    "metric": mode.metric,
                    "figure": name,
                    "truth": mode.truth[name],
                    **each.as_dict(),
                    "before": None if other is None else other.as_dict(),
                }
            )
    return out


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, write; the exit code."""
    args = parser().parse_args(argv)
    words = [word.strip() for word in (args.only or "").split(",") if word.strip()]
    wanted = [
        place
        for place, mode in enumerate(_modes())
        if not words or any(word in f"{mode.name}, {mode.load}, {mode.metric}" for word in words)
    ]
    if not wanted:
        parser().error(f"no mode has {args.only!r} in its name")
    document: dict[str, Any] = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "command": ["tools/bench_coverage.py", *(sys.argv[1:] if argv is None else argv)],
        "replications": args.replications,
        "repeats": args.repeats,
        "seed": args.seed,
    }
    found: dict[tuple[int, bool], dict[str, Count]] = {}
    interrupted = False
    try:
        run(args, wanted, found)
    except KeyboardInterrupt:
        interrupted = True
    document["rows"] = rows(found)
    if interrupted and not found:
        return 130
    # Of an interrupted run: what every mode has.
    document["replications"] = min(row["measurements"] for row in document["rows"])
    for line in report.lines(document):
        echo(line)
    if args.json is not None:
        args.json.write_text(json.dumps(document, indent=1) + "\n", "utf-8")
    if args.table is not None:
        args.table.write_text(report.markdown(document), "utf-8")
    if interrupted:
        return 130
    return 1 if report.missed(document) else 0


if __name__ == "__main__":
    sys.exit(main())
