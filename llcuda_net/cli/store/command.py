"""`llcuda store`: copies what is stored: into another store, into a backup, and back.

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
from llcuda_net.errors import NewerFormat, StorageError
from llcuda_net.util.terminal import echo

PROG = "llcuda store"

_EPILOG = """\
examples:
  llcuda store backup /mnt/backups/llcuda-monday
  llcuda store restore /mnt/backups/llcuda-monday --data-dir /var/lib/llcuda
  llcuda store migrate sqlite:~/.local/share/llcuda postgresql://llcuda@db.example/llcuda
  llcuda store migrate postgresql://llcuda@db.example/llcuda sqlite:backup
  llcuda store migrate sqlite:/var/lib/llcuda processes:/var/lib/llcuda

exit codes:
  0  done                                  130  interrupted (Ctrl-C)
  1  damaged, newer, or it failed          143  terminated
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


_BACKUP = """\
examples:
  llcuda store backup /mnt/backups/llcuda-monday
  llcuda store backup --verify /mnt/backups/llcuda-monday

The server may run meanwhile, and need not be told: all is copied as it was at one moment. What was
being generated then goes on where the backup is restored.

DEST is a new folder, which appears when it is whole: nothing is ever overwritten. It holds what
people asked and were answered, and only its owner may read it. Models are not in it, nor requests
that are not to be stored.

Of a database (--store postgresql://...) the folder holds what lies beside it: run pg_dump after
this, as docs/operating.md says.
"""
_RESTORE = """\
example: llcuda store restore /mnt/backups/llcuda-monday --data-dir /var/lib/llcuda

Every checksum is compared first. Then start llcuda-server on the directory: it goes on with what
was under way.
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
    backup = commands.add_parser(
        "backup",
        help="copy a data directory, also while its server runs",
        description="Copy a data directory, also while its server runs.",
        epilog=_BACKUP,
    )
    backup.add_argument("target", metavar="DEST", help="a folder that does not exist yet")
    backup.add_argument(
        "--verify", action="store_true", help="make none: see that the backup DEST is whole"
    )
    restore = commands.add_parser(
        "restore",
        help="put a backup into an empty data directory",
        description="Put a backup into an empty data directory.",
        epilog=_RESTORE,
    )
    restore.add_argument("source", metavar="SRC", help="a folder that `backup` has made")
    for one in (backup, restore):
        one.add_argument(
            "--data-dir",
            metavar="DIR",
            help="where everything is kept; default: LLCUDA_DATA_DIR, or the user's data directory",
        )
        one.add_argument("--json", action="store_true", help="one JSON object")
    return parser


def _run(arguments: argparse.Namespace) -> int:
    if sys.stdout is None:
        fail("standard output is closed: there is nowhere to print to")
    end_on_sigterm()
    try:
        if arguments.command == "migrate":
            return _migrate(arguments)
        from llcuda_net.cli.store.backup import backup, restore_backup

        return (backup if arguments.command == "backup" else restore_backup)(arguments)
    except NewerFormat as error:
        fail(error.message, Exit.REFUSED)
    except StorageError as error:
        usage = error.code in (StorageError.INVALID, StorageError.REFUSED)
        fail(error.message, Exit.USAGE if usage else Exit.REFUSED)


def _migrate(arguments: argparse.Namespace) -> int:
    from llcuda_net.cli.store.migrate import migrate

    try:
        return migrate(arguments.source, arguments.target, as_json=arguments.json)
    except (StorageError, KeyboardInterrupt, Terminated) as error:
        _say_how_far(error)
        raise


def _say_how_far(error: BaseException) -> None:
    """Say that what was interrupted can be gone on with, where it had begun."""
    notes = getattr(error, "__notes__", [])
    if notes or not isinstance(error, StorageError):
        how = ": ".join(["ended early", *notes])
        echo(f"{how}; the same command goes on", file=sys.stderr)
