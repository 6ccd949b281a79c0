"""`llcuda bench compare`: one record against others."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llcuda_net.cli.bench.tool import Tool, need_extra, verdict
from llcuda_net.cli.common import Exit, Parser, run_command
from llcuda_net.util.terminal import echo

PROG = "llcuda bench compare"
_DESCRIPTION = """\
Compares records with the first one: better, worse, or cannot tell, figure by figure.

Whole repetitions are compared by Welch's test of their logarithms: the interval is that of the
ratio. All figures of all records are judged together (Holm). What a comparison needs to be the
same is named where it is not: settings, workload, machine, GPUs, model.
"""
_EPILOG = """\
examples:
  llcuda bench compare old.json new.json
  llcuda bench compare llama-server.json ollama.json vllm.json
  llcuda bench compare --across laptop.json workstation.json
  llcuda bench compare --html both.html old.json new.json

exit codes: 0 compared, 1 something is worse, 2 usage, or a file is no record
"""


def make_parser(tool: Tool | None = None) -> Parser:
    """The command's options; it has one name."""
    out = Parser(
        prog=PROG, usage=f"{PROG} [options] OLD NEW...", description=_DESCRIPTION, epilog=_EPILOG
    )
    out.add_argument("old", type=Path, metavar="OLD", help="the record to compare with")
    out.add_argument("new", nargs="+", type=Path, metavar="NEW", help="the others")
    out.add_argument(
        "--across",
        action="store_true",
        help="compare all the same where machine, model, workload or settings differ",
    )
    out.add_argument("--json", action="store_true", help="the comparisons as JSON")
    out.add_argument("--html", type=Path, metavar="FILE", help="a page with all of them overlaid")
    return out


def main(argv: Sequence[str] | None = None) -> int:
    """Compare them; returns the exit code."""
    args = make_parser().parse_args(sys.argv[1:] if argv is None else argv)
    return run_command(PROG, lambda: _run(args))


def _run(args: argparse.Namespace) -> int:
    need_extra()

    from llcuda_net.bench.record.differences import notes, obstacles, unlike
    from llcuda_net.bench.report import document
    from llcuda_net.bench.statistics import compare

    old = document.read(args.old)
    others = [document.read(path) for path in args.new]
    told: list[dict[str, Any]] = []
    hindered = []
    for path, new in zip(args.new, others, strict=True):
        differ = unlike(old, new)
        hinders = obstacles(old, new)
        if args.across:
            hinders = [each for each in hinders if each not in differ]
        hindered.append(hinders)
        told.append(
            {
                "with": str(path),
                "when": new["when"],
                "obstacles": hinders,
                "differences": differ if args.across else [],
                "notes": notes(old, new),
            }
        )
    all_changes = compare.compare_all(
        old["repetitions"], [new["repetitions"] for new in others], hindered
    )
    for one, changes in zip(told, all_changes, strict=True):
        one["changes"] = [change.as_dict() for change in changes]
    if args.html is not None:
        names = [path.name for path in (args.old, *args.new)]
        _overlay(args.html, [old, *others], names, told)
    if args.json:
        echo(json.dumps({"old": str(args.old), "new": told}, indent=1, ensure_ascii=False))
    else:
        for one, changes in zip(told, all_changes, strict=True):
            echo(f"{args.old} of {old['when']}, then {one['with']} of {one['when']}:")
            for line in [*one["differences"], *one["notes"]]:
                echo(f"  note: {line}")
            for line in compare.lines(changes, one["obstacles"]):
                verdict(line)
            echo("")
        many = sum(len(changes) for changes in all_changes)
        echo(f"{many} figures, judged together; intervals are 95 % of each by itself")
    worse = any(change.verdict == "worse" for changes in all_changes for change in changes)
    return Exit.REFUSED if worse else Exit.OK


def _overlay(
    path: Path, documents: list[dict[str, Any]], names: list[str], told: list[dict[str, Any]]
) -> None:
    """Write the page of all of them."""
    from llcuda_net.bench.report.page import write
    from llcuda_net.bench.report.parts.overlay import overlay

    write(path, overlay(documents, names=names, told=told))


if __name__ == "__main__":
    sys.exit(main())
