"""How a measurement runs as a command: its name, the extra that it needs, and its end."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from llcuda_net.cli.common import Exit, fail
from llcuda_net.util.terminal import echo, paint

#: What the extra `bench` brings, of which nothing works without.
_EXTRA = ("scipy", "matplotlib", "jinja2")


@dataclass(frozen=True, slots=True)
class Tool:
    """A measurement by the name under which it was called.

    Attributes:
        prog: stands before its errors.
        call: how its examples call it.
        name: of the tool in its documents.
        upstreams: what --start can start besides "demo": commands, see `runs.settings.Start`.
    """

    prog: str
    call: str
    name: str
    upstreams: Mapping[str, Sequence[str]] = field(default_factory=dict)


def command(name: str) -> Tool:
    """The measurement as a command of llcuda."""
    words = f"llcuda bench {name}"
    return Tool(words, words, words)


def need_extra() -> None:
    """Nothing, where the extra is installed.

    Raises:
        CommandError: it is not.
    """
    missing = [name for name in _EXTRA if find_spec(name) is None]
    if missing:
        fail(f"measuring needs {', '.join(missing)}: pip install 'llcuda-net[bench]'")


def finish(
    found: dict[str, Any],
    lines: Sequence[str],
    page: Callable[[], str],
    args: argparse.Namespace,
    old: dict[str, Any] | None,
) -> int:
    """Print and write everything; returns the exit code: 1 if INVALID, or worse than the old run.

    Args:
        lines: the table for the terminal.
        page: makes the page, where it is asked for.

    Raises:
        ConfigError: a file cannot be written.
    """
    from llcuda_net.bench.report import document
    from llcuda_net.bench.statistics import compare

    out = sys.stderr if str(args.json) == "-" else sys.stdout
    changes: list[compare.Change] = []
    for line in lines:
        echo(line, file=out)
    if old is not None:
        changes = compare.compare(old, found)
        hindered = compare.obstacles(old, found)
        found["comparison"] = {
            "with": str(args.compare),
            "when": old["when"],
            "obstacles": hindered,
            "changes": [change.as_dict() for change in changes],
        }
        echo(f"\nagainst {args.compare} of {old['when']}:", file=out)
        for line in compare.lines(changes, hindered):
            colour = {"worse": "31", "better": "32"}.get(line.split("  ")[0].strip())
            line = paint(line, colour, out) if colour else line
            echo(f"  {line}", file=out, styled=True)
    for caution in found["cautions"]:
        echo(f"\n{paint('note:', '33', out)} {caution}", file=out, styled=True)
    for problem in found["problems"]:
        echo(f"\n{paint('INVALID:', '31', out)} {problem}", file=out, styled=True)
    if args.json is not None:
        document.write(args.json, found)
    if args.html is not None:
        from llcuda_net.bench.report.page import write

        write(Path(args.html), page())
    bad = found["problems"] or any(change.verdict == "worse" for change in changes)
    return Exit.REFUSED if bad else Exit.OK
