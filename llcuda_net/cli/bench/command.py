"""`llcuda bench`: which measurement."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from llcuda_net.cli.common import Exit, Parser
from llcuda_net.cli.completion import completer

PROG = "llcuda bench"
_COMMANDS = {
    "latency": "what a user waits for: first token, each next one, the whole answer",
    "throughput": "how much a server does, and from where on requests only wait",
    "scaling": "what more load processes, or more servers, bring (MPI)",
    "show": "what records say: the table again, a line of Markdown, a badge",
    "compare": "records with another: better, worse, or cannot tell",
    "verify": "whether records are whole, and whether two agree",
    "workloads": "the workloads with names: lengths, turns, think times, and their sources",
}
_EPILOG = """\
commands:
{commands}

examples:
  llcuda bench latency --start demo --rate 4 --html latency.html
  llcuda bench latency --target http://127.0.0.1:11434/v1 --model llama3.2
  llcuda bench throughput --target 127.0.0.1:9000 --json new.json
  llcuda bench scaling --sweep 1,2,4 --start demo
  llcuda bench latency --start demo --workload chat --rate 1
  llcuda bench compare old.json new.json
  llcuda bench latency --help

It needs the extra: pip install 'llcuda-net[bench]'.
"""


def make_parser() -> Parser:
    """What answers --help, and whatever is no command."""
    commands = "\n".join(f"  {name:<10} {text}" for name, text in _COMMANDS.items())
    parser = Parser(
        prog=PROG,
        usage="%(prog)s [--help] COMMAND ...",
        description="Measure any server with an OpenAI-compatible API, a llama-server, or an"
        " llcuda-server.",
        epilog=_EPILOG.format(commands=commands),
    )
    parser.add_argument(
        "command", metavar="COMMAND", choices=list(_COMMANDS), help=", ".join(_COMMANDS)
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] not in _COMMANDS:
        make_parser().parse_args(arguments)  # exits, whatever they are
        return Exit.USAGE
    completer.enter()
    command: Any = import_module(f"llcuda_net.cli.bench.{arguments[0]}")
    return int(command.main(arguments[1:]))


if __name__ == "__main__":
    sys.exit(main())
