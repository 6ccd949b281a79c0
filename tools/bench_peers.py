#!/usr/bin/env python3
"""llcuda bench, GuideLLM and AIPerf on servers of known truth, one beside the other.

Each tool asks the same servers, of which the true figures follow by formula, at the same rate, for
the same time and the same number of tokens; what it says is put beside the truth, and beside what
the server recorded of the very requests that this tool sent.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), *(str(ROOT / part) for part in ("protocol", "kernels"))]

from llcuda_net.bench.report.document import machine
from llcuda_net.cli.common import Parser
from llcuda_net.util.terminal import echo, is_clever, status_line
from tools.peers import install, report
from tools.peers.adapters import PROGRAMS, USUAL
from tools.peers.cases import CASES, Case
from tools.peers.runs import Bench

EXAMPLE = """\
example:
  python tools/bench_peers.py --install --json peers.json      (installs, then a quarter of an hour)
  python tools/bench_peers.py --tools llcuda,aiperf --servers mm1-80
  python tools/bench_peers.py --show peers.json > peers.md

--install puts GuideLLM (with PyTorch, 6 GB) and AIPerf (1 GB) into .venv-guidellm and .venv-aiperf,
by pip, in the versions that this tool knows how to read; where --tools names vllm, that, too
(10 GB). Nothing is fetched from Hugging Face.

"says" is what a tool says, with its relative error beside the truth, and beside what its own
requests took by the server's record ("took"): the first holds the luck of the draw, the second does
not. "dispersion" is of the arrivals: variance by mean of their numbers in windows of ten; Poisson
arrivals have 1. Latency counts from the moment a request was meant to be sent (llcuda bench), or
was sent (the others).

Servers:
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    rows = "\n".join(f"  {case.name:10} {case.title} ({' '.join(case.options)})" for case in CASES)
    out = Parser(
        description=__doc__.splitlines()[0] if __doc__ else None,
        epilog=EXAMPLE + rows + "\n\nexit codes: 0 measured, 1 a tool gave no figures, 2 usage",
    )
    out.add_argument("--install", action="store_true", help="what is not installed yet")
    servers = tuple(case.name for case in CASES)
    out.add_argument(
        "--tools",
        type=_some_of(tuple(PROGRAMS)),
        default=USUAL,
        metavar="TOOL,…",
        help=f"of {', '.join(PROGRAMS)} ({', '.join(USUAL)})",
    )
    out.add_argument(
        "--servers",
        type=_some_of(servers),
        default=servers,
        metavar="SERVER,…",
        help="of those below (all)",
    )
    out.add_argument("--times", type=_above_0, default=1.0, help="as long (1)")
    out.add_argument("--seed", type=int, default=1, help="of the servers and of the tools")
    out.add_argument("--json", type=Path, metavar="FILE", help="write everything there")
    out.add_argument(
        "--resume", action="store_true", help="the runs that this FILE has are not made again"
    )
    out.add_argument("--show", type=Path, metavar="FILE", help="what --json wrote; measure nothing")
    return out


def _some_of(names: Sequence[str]) -> Any:
    def parse(text: str) -> tuple[str, ...]:
        found = tuple(text.split(","))
        if not set(found) <= set(names):
            raise argparse.ArgumentTypeError(f"must be of {', '.join(names)}")
        return found

    return parse


def _above_0(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError("must be above 0")
    return value


@dataclass(frozen=True, slots=True)
class _UsageError(Exception):
    message: str


def _ready(args: argparse.Namespace) -> dict[str, Path]:
    """The program of each tool."""
    found = {}
    for name in args.tools:
        program = PROGRAMS[name]
        try:
            if args.install:
                _now(f"installing {program.requirement}")
                install.install(program)
            found[name] = install.installed(program)
        except install.NotInstalledError as error:
            raise _UsageError(f"{error} (or leave it out by --tools)") from None
    return found


def _measured(args: argparse.Namespace, cases: Sequence[Case]) -> dict[str, Any]:
    bench = Bench(args.seed, _ready(args))
    versions = {"llcuda-net": version("llcuda-net")}
    for name in args.tools:
        if requirement := PROGRAMS[name].requirement:
            versions[PROGRAMS[name].title] = requirement.partition("==")[2]
    document: dict[str, Any] = {
        "format": "llcuda-peers",
        "version": 1,
        "machine": machine(),
        "versions": versions,
        "seed": args.seed,
        "seconds": {case.name: case.seconds for case in cases},
        "runs": [],
    }
    if args.resume:
        _resume(document, _shown(args.json))
    _keep(args.json, document)
    made = {(row["case"], row["program"]) for row in document["runs"]}
    for case in cases:
        for name in args.tools:
            if (case.name, name) in made:
                continue
            _now(f"{PROGRAMS[name].title} on {case.name}, {case.seconds:g} s")
            document["runs"].append(bench.run(case, PROGRAMS[name]).as_dict())
            _keep(args.json, document)  # what is finished, whatever comes
    _now("")
    return document


def _resume(document: dict[str, Any], old: dict[str, Any]) -> None:
    """Take what was measured before, but for what failed."""
    versions, seconds = document["versions"], document["seconds"]
    same = all(
        old[key].get(name, value) == value
        for key, now in (("versions", versions), ("seconds", seconds))
        for name, value in now.items()
    )
    if not same or old["seed"] != document["seed"]:
        raise _UsageError("--resume: the file is of other versions, times or another seed")
    document["versions"] = {**old["versions"], **versions}
    document["seconds"] = {**old["seconds"], **seconds}
    document["runs"] = [row for row in old["runs"] if not row["failed"]]


def _keep(path: Path | None, document: dict[str, Any]) -> None:
    if path is not None:
        try:
            path.write_text(json.dumps(document, indent=1) + "\n", "utf-8")
        except OSError as error:
            raise _UsageError(f"{path}: {error.strerror}") from None


def _shown(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise _UsageError(f"{path}: {error.strerror}") from None
    except ValueError:
        document = None
    if not isinstance(document, dict) or document.get("format") != "llcuda-peers":
        raise _UsageError(f"{path} is not what --json wrote")
    return document


def _now(text: str) -> None:
    """What is being done, on a terminal."""
    if is_clever(sys.stderr):
        status_line(text, sys.stderr)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, and print the tables as Markdown."""
    out = parser()
    args = out.parse_args(argv)
    if args.resume and args.json is None:
        out.error("--resume needs --json")
    cases = [case.shortened(args.times) for case in CASES if case.name in args.servers]
    try:
        if args.show:
            document = _shown(args.show)
            if not document["runs"]:
                raise _UsageError(f"{args.show} has no runs yet")
            seconds = document["seconds"]
            cases = [
                case.shortened(seconds[case.name] / case.seconds)
                for case in CASES
                if case.name in seconds
            ]
        else:
            document = _measured(args, cases)
    except _UsageError as error:
        echo(f"bench_peers.py: error: {error.message}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        echo("bench_peers.py: interrupted", file=sys.stderr)
        return 130
    echo(report.markdown(document, cases))
    return 1 if any(row["failed"] for row in document["runs"]) else 0


if __name__ == "__main__":
    sys.exit(main())
