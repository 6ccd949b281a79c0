"""`llcuda`: the command that gathers the tools around the server.

Each group of subcommands has a module of its own with `main(argv)`, imported only when it runs.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from llcuda_net.cli.common import Exit, Parser, VersionAction, called
from llcuda_net.cli.completion import completer

PROG = "llcuda"


@dataclass(frozen=True, slots=True)
class Command:
    """A command of `llcuda`.

    Attributes:
        module: has `main(arguments)`.
        help: one line.
        first: arguments that come before its own.
    """

    module: str
    help: str
    first: tuple[str, ...] = ()


COMMANDS = {
    "serve": Command("llcuda_net.cli.server", "serve models: what llcuda-server does"),
    "ask": Command("llcuda_net.cli.client.command", "ask something: what llcuda-client does"),
    "chat": Command(
        "llcuda_net.cli.client.command", "talk on this terminal, until Ctrl-D", ("--chat",)
    ),
    "batch": Command(
        "llcuda_net.cli.batch.batch", "answer every prompt of a file, without llcuda-server"
    ),
    "infer": Command("llcuda_net.cli.batch.infer", "answer one prompt, without llcuda-server"),
    "results": Command(
        "llcuda_net.cli.results.command", "list, search and export what was generated"
    ),
    "models": Command(
        "llcuda_net.cli.models.command", "the models of this machine, and getting more"
    ),
    "bench": Command("llcuda_net.cli.bench.command", "measure latency, throughput and scaling"),
    "top": Command(
        "llcuda_net.cli.top.command", "the state of a server, live: slots, queue, upstreams"
    ),
    "setup": Command(
        "llcuda_net.cli.setup.command", "set up a server here: settings, folders, systemd"
    ),
    "store": Command("llcuda_net.cli.store.command", "back up, restore, or move what is stored"),
    "doctor": Command(
        "llcuda_net.cli.doctor", "what this machine has, and whether the kernels are right"
    ),
    "completion": Command(
        "llcuda_net.cli.completion.command", "complete these commands in bash, zsh or fish"
    ),
}

_EPILOG = """\
commands:
{commands}

examples:
  llcuda serve --model smollm2
  llcuda ask "What is a slot?"
  llcuda chat
  llcuda top
  llcuda results list
  llcuda results --help
  llcuda batch prompts.jsonl -o results.jsonl

`llcuda serve` and `llcuda ask` are llcuda-server and llcuda-client by another name.
"""


def make_parser() -> Parser:
    """The command line, for --help and for what is no command."""
    commands = "\n".join(f"  {name:<11} {one.help}" for name, one in COMMANDS.items())
    parser = Parser(
        prog=PROG,
        usage="%(prog)s [--help] [--version] COMMAND ...",
        description="Run language models on your own machines, and lose nothing.",
        epilog=_EPILOG.format(commands=commands),
    )
    parser.add_argument("--version", action=VersionAction)
    parser.add_argument(
        "command", metavar="COMMAND", choices=list(COMMANDS), help=", ".join(COMMANDS)
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    completing = argv is None and completer.asked()
    arguments = completer.words() if completing else list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] not in COMMANDS:
        make_parser().parse_args(arguments)  # exits, whatever they are
        return Exit.USAGE
    completer.enter()
    command = COMMANDS[arguments[0]]
    module: Any = import_module(command.module)
    with called(f"{PROG} {arguments[0]}"):
        return int(module.main([*command.first, *arguments[1:]]))


if __name__ == "__main__":
    sys.exit(main())
