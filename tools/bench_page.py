#!/usr/bin/env python3
"""How fast the page is: in a real Chromium, on a real server with an upstream of known pace."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "protocol")]  # runs from anywhere, without being installed

from llcuda_net.cli.common import Parser
from llcuda_net.util.terminal import echo, is_clever, status_line
from tools.overhead.results import machine

EXAMPLE = """\
example:
  python tools/bench_page.py --json page.json                 (25 minutes)
  python tools/bench_page.py --quick --only paint,tabs
  python tools/bench_page.py --only history --keep /var/tmp/page-history

What is measured:
  paint    the first paint, and bytes transferred, with an empty cache and with a full one
  tabs     the server's CPU per token where tabs of one profile show running answers, beside plain
           readers of the same answers and answers that nobody reads, in turns
  answers  frames of a tab that shows an answer while it grows long: prose, one block of code
  turns    how soon a long conversation is open, and frames while it is scrolled to its beginning
  history  lists and searches of a long history, over HTTP and in the page

A frame is the time between two calls of requestAnimationFrame; a stutter is one over 42 ms; a
long task holds the page for more than 50 ms. Each part warms up first. Needs Playwright (extra dev)
and Chromium.

exit codes: 0 measured, 1 a measurement failed, 2 usage, 130 interrupted
"""
PARTS = ("paint", "tabs", "answers", "turns", "history")


def parser() -> Parser:
    """The command line."""
    out = Parser(description=__doc__, epilog=EXAMPLE)
    add = out.add_argument
    add("--only", type=_parts, default=PARTS, metavar="PART,…", help="of " + ", ".join(PARTS))
    add("--quick", action="store_true", help="a look in three minutes")
    add("--repeats", type=int, help="of each measurement that is repeated (default 7)")
    add("--tabs", type=int, default=20, help="tabs, each with an answer (default %(default)s)")
    add("--rate", type=float, default=50.0, help="tokens/s of each of these (default %(default)g)")
    add("--seconds", type=float, help="of a window (default 8)")
    add("--tokens", type=int, help="of the long answer (default 20000)")
    add("--answer-rate", type=float, default=200.0, help="its tokens/s (default %(default)g)")
    add("--turns", type=int, help="of the long conversation (default 200)")
    add("--entries", type=int, help="of the long history (default 100000)")
    add("--keep", type=Path, metavar="FOLDER", help="where that history stays, and is used again")
    add("--json", type=Path, metavar="FILE", help="write everything there")
    return out


def _parts(text: str) -> tuple[str, ...]:
    found = tuple(text.split(","))
    if wrong := [name for name in found if name not in PARTS]:
        raise argparse.ArgumentTypeError(f"{wrong[0]!r} is none of {', '.join(PARTS)}")
    return found


def _say(text: str) -> None:
    if is_clever(sys.stderr):
        status_line(text, sys.stderr)


class Bench:
    """One run; `document` fills while it runs."""

    def __init__(self, args: argparse.Namespace) -> None:
        quick = args.quick
        self.args = args
        self.repeats: int = args.repeats or (2 if quick else 7)
        self.seconds: float = args.seconds or (2.0 if quick else 8.0)
        self.tokens: int = args.tokens or (1000 if quick else 20_000)
        self.turns: int = args.turns or (40 if quick else 200)
        self.entries: int = args.entries or (1000 if quick else 100_000)
        self.document: dict[str, Any] = {
            "what": "bench_page",
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": " ".join(["python", "tools/bench_page.py", *args.argv]),
            "machine": machine(),
            "load_before": round(os.getloadavg()[0], 2),
        }

    def run(self, folder: Path) -> None:
        """Measure what was asked for."""
        # Playwright is imported by who measures only: --help does without.
        from tools.page_bench import answer, many, paint, rig, tabs, turns

        document, only = self.document, self.args.only
        if "history" in only:
            history = self.args.keep or folder
            many.fill(history, self.entries, _say)
        with rig.chromium() as browser:
            document["browser"] = f"Chromium {browser.version}"
            if "paint" in only:
                document["paint"] = paint.measure(browser, repeats=2 * self.repeats, say=_say)
            if "tabs" in only:
                document["tabs"] = [
                    tabs.measure(
                        browser,
                        tabs=self.args.tabs,
                        rate=self.args.rate,
                        seconds=self.seconds,
                        warmup=2.0,
                        repeats=self.repeats,
                        certainty=certainty,
                        say=_say,
                    )
                    for certainty in (True, False)
                ]
            if "answers" in only:
                document["answers"] = [
                    answer.measure(
                        browser, kind, tokens=self.tokens, rate=self.args.answer_rate, say=_say
                    )
                    for kind in answer.TEXTS
                ]
            if "turns" in only:
                document["turns"] = turns.measure(
                    browser, turns=self.turns, repeats=self.repeats, say=_say
                )
            if "history" in only:
                document["history"] = many.measure(
                    browser, history, count=self.entries, repeats=self.repeats, say=_say
                )


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, and print what came of it."""
    given = list(sys.argv[1:] if argv is None else argv)
    args = parser().parse_args(given)
    args.argv = given
    bench = Bench(args)
    code = 0
    with tempfile.TemporaryDirectory(prefix="llcuda-page-") as folder:
        try:
            bench.run(Path(folder))
        except KeyboardInterrupt:
            code = 130
        except Exception as error:  # what was measured before it is reported
            echo(f"bench_page: {type(error).__name__}: {error}", file=sys.stderr)
            code = 1
    _say("")
    if args.json is not None:
        args.json.write_text(json.dumps(bench.document, indent=1) + "\n", "utf-8")
    from tools.page_bench.show import lines

    for line in lines({"browser": "none", **bench.document}):
        echo(line)
    return code


if __name__ == "__main__":
    sys.exit(main())
