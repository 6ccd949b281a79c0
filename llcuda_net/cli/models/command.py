"""`llcuda models`: the models of this machine: list, show, pull, remove; those of a server: load.

Each subcommand is a module beside this one, with HELP, EPILOG, `add_options(parser)` and
`run(arguments)`; LOCAL is False where it asks a server, and the models folder is nothing to it. On
import it loads nothing heavy, so that --help is instant.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

from llcuda_net.cli.common import Parser, VersionAction, end_on_sigterm, run_command

PROG = "llcuda models"
#: The module of each subcommand.
_MODULES = {
    "list": "llcuda_net.cli.models.list",
    "show": "llcuda_net.cli.models.show",
    "pull": "llcuda_net.cli.models.pull",
    "rm": "llcuda_net.cli.models.rm",
    "load": "llcuda_net.cli.models.load",
    "unload": "llcuda_net.cli.models.unload",
    "status": "llcuda_net.cli.models.status",
}

_EPILOG = """\
examples:
  llcuda models list
  llcuda models show smollm2
  llcuda models pull smollm2
  llcuda models pull hf:ggml-org/Qwen3-0.6B-GGUF:Q4_0
  llcuda models load smollm2
  llcuda models status --server gpu1:9000

environment:
  LLCUDA_MODELS  the models folder         NO_COLOR  when set, no colours

exit codes:
  0  done                                  130  interrupted (Ctrl-C)
  1  not found, or it failed               141  nobody reads the output
  2  wrong usage                           143  terminated
  3  the server could not be reached
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    arguments = make_parser().parse_args(argv)
    return run_command(f"{PROG} {arguments.command}", lambda: _run(arguments))


def make_parser() -> Parser:
    """The command line."""
    parser = Parser(prog=PROG, description="The models of this machine.")
    parser.epilog = _EPILOG
    parser.add_argument("--version", action=VersionAction)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, module in _MODULES.items():
        module_ = import_module(module)
        made: Parser = commands.add_parser(
            name,
            help=module_.HELP,
            description=f"{module_.HELP[0].upper()}{module_.HELP[1:]}.",
            epilog=module_.EPILOG,
        )
        if getattr(module_, "LOCAL", True):
            made.add_argument(
                "--models",
                metavar="DIR",
                help="the models folder; default: LLCUDA_MODELS, or ~/.local/share/llcuda/models",
            )
        module_.add_options(made)
    return parser


def models_folder(arguments: argparse.Namespace) -> Path:
    """The models folder that is meant."""
    return Path(arguments.models).expanduser() if arguments.models else default_models_folder()


def default_models_folder() -> Path:
    """The one where none is given: that of LLCUDA_MODELS, or the user's."""
    from llcuda_net.models.files.folder import default_folder

    named = os.environ.get("LLCUDA_MODELS")
    return Path(named).expanduser() if named else default_folder()


def _run(arguments: argparse.Namespace) -> int:
    end_on_sigterm()
    run: Callable[[argparse.Namespace], int] = import_module(_MODULES[arguments.command]).run
    return run(arguments)


if __name__ == "__main__":
    sys.exit(main())
