#!/usr/bin/env python3
"""How soon a client that cancels or goes away frees the engine's slots, with the real engine."""

from __future__ import annotations

import argparse
import json
import math
import platform
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import trio

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "protocol")]  # runs from anywhere, without being installed

from llcuda_net.cli.common import Parser
from llcuda_net.util import logs
from llcuda_net.util.terminal import echo, is_clever, status_line
from tools.cancel_rig import SLOTS, MissedError, Rig, rig

EXAMPLE = """\
example:
  python tools/bench_cancel.py --tries 50 --json cancel.json

Rows: "streaming": one answer, ended 50 to 300 ms after its first token. "reading": sixteen prompts
of about 1,900 tokens, one per slot, ended together while the engine reads them. Each row once by
cancel frames and once by closing the connection.
Columns: "closed": from the client's cancel or close until llcuda-server has closed its connections
to the engine, seen by a proxy between the two. "free": until /slots shows every slot idle.
llama-server looks for closed clients once a second while it sends nothing, and answers /slots
between two batches; so "free" while reading may take 1.2 s and a batch, of which the tool measures
the length. (While other requests stream, its look is put off with each of their tokens.)

exit codes: 0 measured and within bounds, 1 a median is over its bound, 2 usage
"""
#: Seconds: bounds of the medians.
CLOSED_BOUND = 0.020
FREE_BOUND = {"streaming": 0.200, "reading": 1.2}
_SENTENCE = "The little {} dog ran over the hill to see what the sun was doing there. "
#: Patience for one try, in seconds.
_PATIENCE = 60.0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    out = Parser(
        description=__doc__,
        epilog=EXAMPLE,
    )
    out.add_argument("--tries", type=_positive, default=50, help="of each row (default 50)")
    out.add_argument("--threads", type=_positive, help="of the engine (default: one per core)")
    out.add_argument("--seed", type=int, default=1, help="of the moments (default 1)")
    out.add_argument("--json", metavar="FILE", help="also write every figure; - for stdout")
    return out


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


async def one_try(r: Rig, phase: str, how: str, rng: random.Random) -> tuple[float, float] | None:
    """Seconds until closed and until free; None if the moment to end it was missed."""
    before = len(r.proxy.closed)
    async with r.client() as client, trio.open_nursery() as nursery:
        if phase == "streaming":
            await client.ask(["Once upon a time"], 1900)
            await client.first_tokens()
            count = 1
            nursery.start_soon(client.read_on)
            await trio.sleep(rng.uniform(0.05, 0.3))
        else:
            names = [f"{rng.random():.6f}" for _ in range(SLOTS)]
            await client.ask([_SENTENCE.format(name) * 60 for name in names], 100)
            try:
                await r.until_busy(SLOTS)
            except MissedError:
                await trio.aclose_forcefully(client.stream)
                await trio.sleep(2)
                return None
            count = SLOTS
            await trio.sleep(rng.uniform(0, 0.3))
        with trio.fail_after(_PATIENCE):
            start = trio.current_time()
            if how == "cancel":
                await client.cancel()
            else:
                await trio.aclose_forcefully(client.stream)
            free = await r.until_free(set(range(SLOTS)))
            await r.until_closed(before + count)
            await trio.aclose_forcefully(client.stream)  # which ends its reader
    return max(r.proxy.closed[before:]) - start, free - start


async def batch_seconds(r: Rig) -> float:
    """How long the engine takes for one batch: a whole prompt's reading, by its batches."""
    async with r.client() as client:
        start = trio.current_time()
        await client.ask([_SENTENCE.format("grey") * 60], 1)
        await client.first_tokens()
        return (trio.current_time() - start) / 4  # 1,900 tokens in batches of 512


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Every row's figures, in seconds."""
    rng = random.Random(options.seed)
    rows: list[dict[str, Any]] = []
    async with rig(options.threads) as r:
        batch = await batch_seconds(r)
        await r.until_free(set(range(SLOTS)))
        await trio.sleep(0.5)  # its connection is closed by then, and not counted to the first try
        for phase in ("streaming", "reading"):
            for how in ("cancel", "drop"):
                closed: list[float] = []
                free: list[float] = []
                missed = 0
                while len(free) < options.tries:
                    _progress(f"{phase}, {how}: {len(free) + 1} of {options.tries}")
                    found = await one_try(r, phase, how, rng)
                    if found is None:
                        missed += 1
                        if missed > options.tries:
                            raise RuntimeError("the engine's slots were never all seen at work")
                        continue
                    closed.append(found[0])
                    free.append(found[1])
                rows.append({"phase": phase, "how": how, "closed": closed, "free": free})
    _progress("")
    return {
        "machine": f"{platform.machine()}, {platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "tries": options.tries,
        "batch": batch,
        "rows": rows,
    }


def quantile(values: Sequence[float], part: float) -> float:
    """By nearest rank: a value that was measured."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(part * len(ordered)) - 1)]


def table(found: dict[str, Any]) -> tuple[str, bool]:
    """The figures in milliseconds for people, and whether the medians are within bounds."""
    batch = found["batch"]
    text = (
        f"{found['tries']} tries a row; milliseconds; the engine's batch: {batch * 1e3:.0f}, "
        f"reading all prompts: {batch * 4e3 * SLOTS:.0f}"
    )
    lines = [
        text,
        f"{'':20} {'what':8} {'median':>8} {'p90':>8} {'max':>8} {'bound':>8}",
    ]
    good = True
    for row in found["rows"]:
        for what in ("closed", "free"):
            values = row[what]
            bound = CLOSED_BOUND
            if what == "free":
                bound = FREE_BOUND[row["phase"]]
                bound += batch if row["phase"] == "reading" else 0
            median = quantile(values, 0.5)
            good &= median <= bound
            figures = (median, quantile(values, 0.9), max(values), bound)
            lines.append(
                f"{row['phase'] + ', ' + row['how']:20} {what:8} "
                + " ".join(f"{value * 1e3:8.1f}" for value in figures)
                + ("" if median <= bound else "  OVER")
            )
    return "\n".join(lines), good


def _progress(text: str) -> None:
    if is_clever(sys.stderr):
        status_line(text, sys.stderr)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    options = parser().parse_args(argv)
    logs.configure("error")
    found = trio.run(measure, options)
    text, good = table(found)
    if options.json == "-":
        echo(json.dumps(found, indent=1))
    else:
        echo(text)
        if options.json:
            Path(options.json).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
