"""`llcuda`: the command that gathers the tools around the server.

Each group of subcommands has a module of its own with `main(argv)`, imported only when it runs.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from llcuda_net.cli.common import Exit, Parser, VersionAction

PROG = "llcuda"
#: The groups: module and one line of help.
_GROUPS = {
    "doctor": ("llcuda_net.cli.doctor", "what this machine has, and whether the kernels are right"),
    "batch": ("llcuda_net.cli.batch.batch", "answer every prompt of a file, without llcuda-server"),
    "infer": ("llcuda_net.cli.batch.infer", "answer one prompt, without llcuda-server"),
    "bench": ("llcuda_net.cli.bench.command", "measure latency, throughput and scaling"),
    "top": ("llcuda_net.cli.top.command", "the state of a server, live: slots, queue, upstreams"),
    "models": ("llcuda_net.cli.models.command", "the models of this machine, and getting more"),
    "results": (
        "llcuda_net.cli.results.command",
        "list, search and export what was generated",
    ),
    "store": ("llcuda_net.cli.store.command", "move what is stored to another store"),
}

_EPILOG = """\
commands:
{commands}

examples:
  llcuda doctor
  llcuda models pull smollm2
  llcuda top
  llcuda results list
  llcuda results --help
  llcuda infer "What is a slot?"
  llcuda batch prompts.jsonl -o results.jsonl

The server is llcuda-server; to ask it something, use llcuda-client.
"""


def make_parser() -> Parser:
    """The command line, for --help and for what is no command."""
    commands = "\n".join(f"  {name:<10} {text}" for name, (_, text) in _GROUPS.items())
    parser = Parser(
        prog=PROG,
        usage="%(prog)s [--help] [--version] COMMAND ...",
        description="Tools around llcuda-server.",
        epilog=_EPILOG.format(commands=commands),
    )
    parser.add_argument("--version", action=VersionAction)
    parser.add_argument(
        "command", metavar="COMMAND", choices=list(_GROUPS), help=", ".join(_GROUPS)
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] not in _GROUPS:
        make_parser().parse_args(arguments)  # exits, whatever they are
        return Exit.USAGE
    group: Any = import_module(_GROUPS[arguments[0]][0])
    return int(group.main(arguments[1:]))


if __name__ == "__main__":
    sys.exit(main())
