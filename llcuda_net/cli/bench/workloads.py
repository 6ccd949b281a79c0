"""`llcuda bench workloads`: the workloads with names, in numbers, and where these are from."""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from collections.abc import Sequence

from llcuda_net.bench.workload.catalogue import WORKLOADS, Workload, find
from llcuda_net.cli.bench.tool import Tool
from llcuda_net.cli.common import Exit, Parser, run_command
from llcuda_net.util.numbers import plain
from llcuda_net.util.terminal import echo

PROG = "llcuda bench workloads"
_DESCRIPTION = """\
The workloads with names: lengths in tokens, turns, think times, and the source of each number.

Figures are quoted by name and version: whatever changes what is sent is a new version. With the
same seed, and a tokenizer that makes as many tokens of a word, requests are the same byte by byte.
"""
_EPILOG = """\
examples:
  llcuda bench workloads
  llcuda bench workloads agent@1
  llcuda bench workloads --json
  llcuda bench latency --start demo --workload chat --rate 1
"""
_ROWS = {
    "first": "first message",
    "later": "later messages",
    "answer": "answers",
    "turns": "turns of a session",
    "think": "think time",
}


def make_parser(tool: Tool | None = None) -> Parser:
    """The command's options; it has one name."""
    out = Parser(
        prog=PROG,
        usage=f"{PROG} [NAME[@VERSION]] [--json]",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    out.add_argument("name", nargs="?", metavar="NAME[@VERSION]", help="only this one")
    out.add_argument("--json", action="store_true", help="with all quantiles")
    return out


def main(argv: Sequence[str] | None = None) -> int:
    """List them; returns the exit code."""
    args = make_parser().parse_args(sys.argv[1:] if argv is None else argv)
    return run_command(PROG, lambda: _run(args))


def _run(args: argparse.Namespace) -> int:
    chosen = WORKLOADS if args.name is None else (find(args.name),)
    if args.json:
        echo(json.dumps([each.as_dict() for each in chosen], indent=1))
        return Exit.OK
    for number, each in enumerate(chosen):
        if number:
            echo("")
        for line in _lines(each):
            echo(line)
    return Exit.OK


def _lines(workload: Workload) -> list[str]:
    out = [f"{workload}: {workload.what}"]
    if workload.system:
        out.append(
            f"  system prompt       {workload.system:,} tokens; all sessions share"
            f" {workload.systems} of them"
        )
    if workload.texts:
        out.append(f"  texts of a request  {workload.texts}")
    for key, label in _ROWS.items():
        table = getattr(workload, key)
        if table is None:
            continue
        found = table.as_dict()
        figures = [f"mean {_number(found['mean'])}"]
        figures += [
            f"{name} {_number(found[name])}" for name in ("p50", "p90", "p99") if name in found
        ]
        label = "each text" if key == "first" and workload.texts else label
        out.append(
            f"  {label:<19} {', '.join(figures)}, max {_number(found['max'])} {found['unit']}"
        )
        out += textwrap.wrap(found["source"], 96, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return out


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else plain(value, 3)


if __name__ == "__main__":
    sys.exit(main())
