"""`llcuda completion`: what a shell needs to complete the commands."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from llcuda_net.cli.common import Exit, Parser, run_command
from llcuda_net.cli.completion.completer import SHELLS, code
from llcuda_net.util.terminal import echo

PROG = "llcuda completion"
_EPILOG = """\
examples, once for each shell:
  llcuda completion bash > ~/.local/share/bash-completion/completions/llcuda
  llcuda completion zsh > "${fpath[1]}/_llcuda"
  llcuda completion fish > ~/.config/fish/completions/llcuda.fish
or in the shell that runs now:
  eval "$(llcuda completion bash)"

It completes llcuda, llcuda-server, llcuda-client and llcuda-mpi.
"""


def make_parser() -> Parser:
    """The command line."""
    parser = Parser(
        prog=PROG,
        description="Print what a shell must read to complete commands, options and files.",
        epilog=_EPILOG,
    )
    parser.add_argument("shell", choices=SHELLS, metavar="SHELL", help=", ".join(SHELLS))
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return run_command(PROG, lambda: _run(make_parser().parse_args(argv)))


def _run(arguments: argparse.Namespace) -> int:
    echo(code(arguments.shell))
    return Exit.OK


if __name__ == "__main__":
    sys.exit(main())
