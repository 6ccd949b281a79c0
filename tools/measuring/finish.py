"""The end of every tool: the table, the files, the comparison, and the exit code."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from llcuda_net.bench import compare, document, page
from llcuda_net.cli.common import paint


def finish(
    found: dict[str, Any],
    lines: Sequence[str],
    html: Callable[[], str],
    args: argparse.Namespace,
    old: dict[str, Any] | None,
) -> int:
    """Print and write everything; returns 1 if the run is INVALID or worse than the old one.

    Args:
        lines: the table for the terminal.
        html: makes the page, where it is asked for.
    """
    out = sys.stderr if str(args.json) == "-" else sys.stdout
    changes: list[compare.Change] = []
    for line in lines:
        print(line, file=out)
    if old is not None:
        changes = compare.compare(old, found)
        hindered = compare.obstacles(old, found)
        found["comparison"] = {
            "with": str(args.compare),
            "when": old["when"],
            "obstacles": hindered,
            "changes": [change.as_dict() for change in changes],
        }
        print(f"\nagainst {args.compare} of {old['when']}:", file=out)
        for line in compare.lines(changes, hindered):
            colour = {"worse": "31", "better": "32"}.get(line.split("  ")[0].strip())
            print(f"  {paint(line, colour, out) if colour else line}", file=out)
    for caution in found["cautions"]:
        print(f"\n{paint('note:', '33', out)} {caution}", file=out)
    for problem in found["problems"]:
        print(f"\n{paint('INVALID:', '31', out)} {problem}", file=out)
    if args.json is not None:
        document.write(args.json, found)
    if args.html is not None:
        page.write(Path(args.html), html())
    return int(bool(found["problems"]) or any(change.verdict == "worse" for change in changes))
