"""`llcuda store`: moves what is stored from one place to another.

Only the standard library is imported before there is something to do, so that --help is instant.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from llcuda_net.cli.common import (
    Exit,
    Parser,
    Terminated,
    VersionAction,
    end_on_sigterm,
    fail,
    run_command,
)
from llcuda_net.errors import StorageError
from llcuda_net.util.terminal import echo

PROG = "llcuda store"

_EPILOG = """\
examples:
  llcuda store migrate sqlite:~/.local/share/llcuda postgresql://llcuda@db.example/llcuda
  llcuda store migrate postgresql://llcuda@db.example/llcuda sqlite:backup
  llcuda store migrate sqlite:/var/lib/llcuda processes:/var/lib/llcuda

exit codes:
  0  done                                  130  interrupted (Ctrl-C)
  1  damaged, or it failed                 143  terminated
  2  wrong usage, or nothing to open
"""
_MIGRATE = """\
FROM and TO are each one of:
  sqlite:DIR        the data directory of a server
  postgresql://…    a database, as llcuda-server --store has it; its password is best in ~/.pgpass
  processes:DIR     the database that llcuda-server --processes has made in its data directory

Nothing is deleted in FROM. What TO has is left as it is, so after an interruption the same command
goes on. Each result is read in TO and compared.

Stop the servers of both first.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    arguments = make_parser().parse_args(argv)
    return run_command(f"{PROG} {arguments.command}", lambda: _run(arguments))


def make_parser() -> Parser:
    """The command line."""
    parser = Parser(prog=PROG, description="Where everything is stored.", epilog=_EPILOG)
    parser.add_argument("--version", action=VersionAction)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    migrate = commands.add_parser(
        "migrate",
        help="copy all from one store into another, and compare",
        description="Copy all that is in one store into another one, and compare.",
        epilog=_MIGRATE,
    )
    migrate.add_argument("source", metavar="FROM", help="the store that has it")
    migrate.add_argument("target", metavar="TO", help="the store that is to have it, too")
    migrate.add_argument("--json", action="store_true", help="one JSON object")
    return parser


def _run(arguments: argparse.Namespace) -> int:
    if sys.stdout is None:
        fail("standard output is closed: there is nowhere to print to")
    end_on_sigterm()
    try:
        from llcuda_net.cli.store.migrate import migrate

        return migrate(arguments.source, arguments.target, as_json=arguments.json)
    except StorageError as error:
        _say_how_far(error)
        usage = error.code in (StorageError.INVALID, StorageError.REFUSED)
        fail(error.message, Exit.USAGE if usage else Exit.REFUSED)
    except (KeyboardInterrupt, Terminated) as error:
        _say_how_far(error)
        raise


def _say_how_far(error: BaseException) -> None:
    """Say that what was interrupted can be gone on with, where it had begun."""
    notes = getattr(error, "__notes__", [])
    if notes or not isinstance(error, StorageError):
        how = ": ".join(["ended early", *notes])
        echo(f"{how}; the same command goes on", file=sys.stderr)
