#!/usr/bin/env python3
"""What the journal and the store cost, beside the bare disk they stand on.

The control (append 4 KiB, fdatasync) runs before each measurement, in the same folder.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "protocol")]  # runs from anywhere, without being installed

import trio

from llcuda_net.cli.common import Parser
from llcuda_net.util.terminal import echo, is_clever, status_line
from tools.overhead.results import machine
from tools.store import measure

EXAMPLE = """\
example:
  python tools/bench_store.py --json store.json
  python tools/bench_store.py --quick
  python tools/bench_store.py --prune --results 1000000 --dir /var/tmp

Saturated: as many tasks as the queue holds commit one result after another. Paced: results are due
at a fixed rate, and a commit is timed from when it was due. Journal: tokens come with and without a
journal in turns, and the difference is reported; "together" is one write for all streams, as after
a llama-server's decode step, "spread" one write per token. Prune: half of the results are deleted
while single results are committed beside it.

exit codes: 0 measured, 1 a measurement failed, 2 usage
"""
#: Figures of each measurement that the table shows, and the aim, where there is one.
SHOWN = {
    "saturated": [("results_per_s", ">= 15000"), ("cpu_us_per_result", "")],
    "paced": [("commit_p50_ms", "<= 2"), ("commit_p99_ms", "<= 5"), ("commit_max_ms", "")],
    "pipeline": [("generations_per_s", "")],
    "journal, together": [
        ("bytes_per_token", "<= 150"),
        ("cpu_points", "<= 5"),
        ("cpu_us_per_token", ""),
        ("added_p50_ms", ""),
        ("added_p99_ms", ""),
        ("durable_behind_p50_ms", ""),
        ("durable_behind_p99_ms", ""),
    ],
    "journal, spread": [
        ("bytes_per_token", "<= 150"),
        ("cpu_points", "<= 5"),
        ("cpu_us_per_token", ""),
        ("added_p50_ms", ""),
        ("added_p99_ms", ""),
        ("durable_behind_p50_ms", ""),
        ("durable_behind_p99_ms", ""),
    ],
    "prune": [
        ("results", ""),
        ("deleted", ""),
        ("prune_s", ""),
        ("longest_block_ms", "<= 50"),
        ("commit_beside_p50_ms", ""),
        ("commit_beside_p99_ms", ""),
        ("commit_beside_max_ms", ""),
    ],
}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    out = Parser(
        description=__doc__.splitlines()[0] if __doc__ else None,
        epilog=EXAMPLE,
    )
    out.add_argument("--seconds", type=_above_0, help="of each measurement (default 10)")
    out.add_argument("--rate", type=_positive, default=500, help="results/s, paced (default 500)")
    out.add_argument("--prune", action="store_true", help="measure pruning, and nothing else")
    out.add_argument(
        "--results", type=_positive, default=100_000, help="with --prune (default %(default)s)"
    )
    out.add_argument("--quick", action="store_true", help="a look: 1 s each, 5,000 results")
    out.add_argument(
        "--dir", type=Path, default=Path(tempfile.gettempdir()), help="on the disk to be measured"
    )
    out.add_argument("--json", type=Path, metavar="FILE", help="write everything there")
    return out


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def _above_0(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError("must be above 0")
    return value


def measurements(args: argparse.Namespace) -> dict[str, Callable[[Path], measure.Figures]]:
    """What to do, by name; each gets a folder of its own."""
    seconds = float(args.seconds or (1 if args.quick else 10))
    if args.prune:
        count = 5_000 if args.quick else args.results
        return {"prune": lambda folder: measure.prune(folder, count, _say)}

    def run(what: Callable[..., Any], *values: Any, **options: Any) -> Any:
        return lambda folder: trio.run(partial(what, folder, *values, **options))

    return {
        "saturated": run(measure.saturated, seconds / 2),
        "paced": run(measure.paced, seconds, float(args.rate)),
        "pipeline": run(measure.pipeline, seconds / 2),
        "journal, together": lambda folder: trio.run(
            partial(measure.journal, folder, 3 * seconds, together=True)
        ),
        "journal, spread": lambda folder: trio.run(
            partial(measure.journal, folder, 3 * seconds, together=False)
        ),
    }


def _say(text: str) -> None:
    if is_clever(sys.stderr):
        status_line(text, sys.stderr)


def table(document: dict[str, Any]) -> str:
    """The figures, one a line, with the control beside them."""
    lines = [
        "machine: {cpu}, {cores} cores, Linux {kernel}, Python {python}".format(
            **{"cpu": "?", **document["machine"]}
        ),
        f"load before: {document['load_before']:.2f} (other work makes every figure worse)",
        f"{'measurement':20}{'figure':26}{'value':>12}  {'aim':10}disk p50 / p99 ms",
    ]
    for name, figures in document["measurements"].items():
        control = f"{figures['disk_p50_ms']} / {figures['disk_p99_ms']}"
        for key, aim in SHOWN[name]:
            value = figures[key]
            shown = "too few" if value is None else f"{value:,}"
            lines.append(f"{name:20}{key:26}{shown:>12}  {aim:10}{control}")
            name = control = ""
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the table, write the JSON."""
    args = parser().parse_args(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    document: dict[str, Any] = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": ["tools/bench_store.py", *(argv if argv is not None else sys.argv[1:])],
        "machine": machine(),
        "load_before": os.getloadavg()[0],
        "measurements": {},
    }
    ended = 0
    try:
        # Whatever ends us, the folder goes with it.
        with tempfile.TemporaryDirectory(prefix="bench-store-", dir=args.dir) as top:
            for number, (name, run) in enumerate(measurements(args).items()):
                _say(name)
                folder = Path(top) / str(number)
                folder.mkdir()
                control = measure.disk(Path(top), 1000)
                document["measurements"][name] = {**run(folder), **control}
            _say("")
    except* KeyboardInterrupt:
        echo("\ninterrupted", file=sys.stderr)
        ended = 130
    except* OSError as error:
        echo(f"{args.dir}: {error.exceptions[0]}", file=sys.stderr)
        ended = 1
    if ended:
        return ended
    echo(table(document))
    if args.json is not None:
        args.json.write_text(json.dumps(document, indent=1) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
