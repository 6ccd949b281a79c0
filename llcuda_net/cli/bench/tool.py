"""How a measurement runs as a command: its name, the extra that it needs, and its end."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from llcuda_net.cli.common import Exit, Parser, fail
from llcuda_net.cli.help_topics import by_topic
from llcuda_net.cli.tables import figures
from llcuda_net.util.terminal import echo, paint

if TYPE_CHECKING:
    from llcuda_net.bench.record.requests import Part
    from llcuda_net.bench.report.cells import Draw

#: What the extra `bench` brings, of which nothing works without.
_EXTRA = ("hdrh", "scipy", "matplotlib", "jinja2")


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


def drawing(args: argparse.Namespace) -> Draw:
    """What makes the tables: for standard error, where --json has the output."""
    return partial(figures, file=_out(args))


def _out(args: argparse.Namespace) -> TextIO:
    return sys.stderr if str(getattr(args, "json", None)) == "-" else sys.stdout


def finish(
    found: dict[str, Any],
    lines: Sequence[str],
    page: Callable[[], str],
    args: argparse.Namespace,
    old: dict[str, Any] | None,
    parts: Sequence[Part] = (),
) -> int:
    """Print and write everything; returns the exit code: 1 if INVALID, or worse than the old run.

    Args:
        lines: the table for the terminal.
        page: makes the page, where it is asked for.
        parts: the runs with every request, for --requests.

    Raises:
        ConfigError: a file cannot be written.
    """
    from llcuda_net.bench.record.differences import obstacles
    from llcuda_net.bench.statistics import compare

    out = _out(args)
    changes: list[compare.Change] = []
    for line in lines:
        echo(line, file=out, styled=True)
    if old is not None:
        hindered = obstacles(old, found)
        changes = compare.compare(old["repetitions"], found["repetitions"], hindered)
        found["comparison"] = {
            "with": args.compare.name,
            "when": old["when"],
            "obstacles": hindered,
            "changes": [change.as_dict() for change in changes],
        }
    tell(found, out)
    _write(found, page, args, parts)
    bad = found["problems"] or any(change.verdict == "worse" for change in changes)
    return Exit.REFUSED if bad else Exit.OK


def tell(found: dict[str, Any], out: TextIO | None = None) -> None:
    """Print what stands below the table: the comparison, and what its reader must know.

    Args:
        out: where; None: standard output.
    """
    from llcuda_net.bench.statistics import compare

    out = out or sys.stdout
    if "comparison" in found:
        told = found["comparison"]
        echo(f"\nagainst {told['with']} of {told['when']}:", file=out)
        changes = [compare.Change.from_dict(each) for each in told["changes"]]
        for line in compare.lines(changes, told["obstacles"]):
            verdict(line, out)
    for caution in found["cautions"]:
        echo(f"\n{paint('note:', '33', out)} {caution}", file=out, styled=True)
    for problem in found["problems"]:
        echo(f"\n{paint('INVALID:', '31', out)} {problem}", file=out, styled=True)


def verdict(line: str, out: TextIO | None = None) -> None:
    """Print a line of a comparison: worse in red, better in green.

    Args:
        out: where; None: standard output.
    """
    out = out or sys.stdout
    colour = {"worse": "31", "better": "32"}.get(line.split("  ")[0].strip())
    echo(f"  {paint(line, colour, out) if colour else line}", file=out, styled=True)


def _write(
    found: dict[str, Any],
    page: Callable[[], str],
    args: argparse.Namespace,
    parts: Sequence[Part],
) -> None:
    """Make the document a record, and write what is asked for."""
    if args.json is None and args.html is None and args.requests is None:
        return
    from dataclasses import asdict

    from llcuda_net.bench.record import requests, seal
    from llcuda_net.bench.record.privacy import Scrubber
    from llcuda_net.bench.report import document
    from llcuda_net.bench.workload.validity import Bounds

    found["bounds"] = asdict(Bounds(lag=args.max_lag))
    if args.note is not None:
        found["note"] = args.note
    if args.requests is not None:
        scrubber = Scrubber(seal.hosts(found))
        found["requests"] = requests.write(args.requests, parts, scrubber)
    seal.seal(found)
    if args.json is not None:
        document.write(args.json, found)
    if args.html is not None:
        from llcuda_net.bench.report.page import write

        write(Path(args.html), page())


#: The options of a measurement's short --help, and the topics of the others.
_SHOWN = (
    *("--help", "--target", "--api", "--model", "--start", "--token-file", "--direct", "--rate"),
    *("--concurrency", "--rates", "--sweep", "--over", "--inflight", "--seconds", "--repeats"),
    *("--rounds", "--slo", "--prompts", "--workload", "--max-tokens", "--work", "--json"),
    *("--html", "--compare"),
)
_TOPICS = {
    "which server to ask": "target",
    "a second way, pair by pair": "direct",
    "when to ask": "load",
    "how much to ask": "load",
    "how it grows": "scaling",
    "in place of what and when: a recorded trace": "trace",
    "what to ask": "prompts",
    "what to search, with --work search": "search",
    "work on each answer, by llcuda_kernels, shown apart": "kernels",
    "energy and cost, where the server is on this machine": "energy",
    "what comes out": "output",
}


def help_by_topic(parser: Parser) -> None:
    """Make --help of a measurement one by topic, once it has all its options."""
    by_topic(parser, _SHOWN, _TOPICS)
