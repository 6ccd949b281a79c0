"""`llcuda results`: what was generated: list, show, search, export, verify, delete, prune, stats.

The arguments are here; each subcommand is in a module beside this one. Only the standard library is
imported before there is something to do, so that --help is instant.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from llcuda_net.cli.common import Exit, Parser, VersionAction, end_on_sigterm, fail, run_command
from llcuda_net.cli.units import moment, size
from llcuda_net.errors import NewerFormat, StorageError

if TYPE_CHECKING:
    from llcuda_net.storage.results.interface import Query, Store

PROG = "llcuda results"
STATES = ("done", "failed", "cancelled", "interrupted")

_EPILOG = """\
examples:
  llcuda results list --since 2h --state failed
  llcuda results show 0192f3a4-b5c6
  llcuda results resample 0192f3a4-b5c6 --temperature 0.2
  llcuda results search 'credit "slow reader" wind*'
  llcuda results search --semantic "how do I stop the server"
  llcuda results export --output answers.parquet
  llcuda results prune --older-than 30d

It reads the store itself, and may do so while llcuda-server runs. An ID may be given by
its beginning, and `last` is the newest. A TIME is an age (45s, 30m, 2h, 3d, 1w), a date
(2026-11-01, 2026-11-01 14:30), a day (today, yesterday, monday) or a time of it (yesterday 9:30).

environment:
  LLCUDA_DATA_DIR  the data directory      NO_COLOR      when set, no colours
  LLCUDA_STORE     the store               LLCUDA_TOKEN  for --semantic: the server's token

exit codes:
  0  done                                  130  interrupted (Ctrl-C)
  1  not found, damaged, or it failed      141  nobody reads the output
  2  wrong usage, or nothing to open       143  terminated
Where nothing matches the code is 0, and a line on stderr says so.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    arguments = make_parser().parse_args(argv)
    return run_command(f"{PROG} {arguments.command}", lambda: _run(arguments))


def make_parser() -> Parser:
    """The command line."""
    parser = Parser(prog=PROG, description="What was generated, and what became of it.")
    parser.epilog = _EPILOG
    parser.add_argument("--version", action=VersionAction)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, text: str, example: str) -> Parser:
        made: Parser = commands.add_parser(
            name, help=text, description=f"{text[0].upper()}{text[1:]}.", epilog=example
        )
        made.add_argument(
            "--data-dir",
            metavar="DIR",
            help="where everything is kept; default: LLCUDA_DATA_DIR, or the user's data directory",
        )
        made.add_argument(
            "--store",
            metavar="STORE",
            help="as llcuda-server's: sqlite (in the data directory), processes (the database "
            "there of llcuda-server --processes), or the URL of a database; default: LLCUDA_STORE, "
            "or what the data directory has",
        )
        return made

    one = command(
        "list",
        "list results, newest first",
        "example: llcuda results list --model demo --since 3d --text 'slow reader'",
    )
    _add_filters(one)
    one.add_argument("--text", metavar="WORDS", help="with these words, as `search` finds them")
    _add_limit(one, 50)
    _add_json(one, "one JSON object per line")

    one = command(
        "show",
        "show everything that is known of a result",
        "example: llcuda results show 0192f3a4-b5c6 --tokens",
    )
    one.add_argument("id", metavar="ID", help="the result's id, how it begins, or last")
    how = one.add_mutually_exclusive_group()
    how.add_argument("--text", action="store_true", help="print what was generated, and no more")
    how.add_argument("--tokens", action="store_true", help="a table of the tokens, too")
    _add_json(how, "one JSON object")

    one = command(
        "resample",
        "draw a result's tokens anew, from the candidates kept beside them",
        "example: llcuda results resample 0192f3a4-b5c6 --temperature 0.2\n\n"
        "Each token is drawn as if all before it were those of the answer, from the candidates\n"
        "that were asked for with it (--n-probs N). The order is llama.cpp's: top-k, top-p,\n"
        "min-p, temperature. A seed gives the same tokens on every machine.",
    )
    one.add_argument("id", metavar="ID", help="the result's id, how it begins, or last")
    one.add_argument(
        "--temperature", metavar="T", type=_number, required=True, help="0 takes the best"
    )
    one.add_argument(
        "--seed", metavar="N", type=_count, help="default: the result's own seed, or 0"
    )
    one.add_argument(
        "--top-k", metavar="N", type=_rank, default=40, help="of the N best (default: 40)"
    )
    one.add_argument(
        "--top-p",
        metavar="P",
        type=_share,
        default=0.95,
        help="of the fewest that hold P of their probability (default: 0.95)",
    )
    one.add_argument(
        "--min-p",
        metavar="P",
        type=_share,
        default=0.05,
        help="of those at least P as probable as the best (default: 0.05)",
    )
    _add_json(one, "one JSON object")

    one = command(
        "search",
        "find results by words in prompt or text, or by meaning, best first",
        "examples:\n"
        "  llcuda results search 'credit \"slow reader\" wind* OR slot'\n"
        '  llcuda results search --semantic "how do I stop the server"\n\n'
        'All words must be there; "a phrase" is found as a whole, word* is a beginning, and OR\n'
        "between words finds either.\n\n"
        "--semantic compares the embedding of the text with those of all results that were\n"
        "analysed. It asks the server of the data directory, or, where none runs, starts the\n"
        "built-in engine with the model that the embeddings are of.",
    )
    one.add_argument("words", metavar="WORD", nargs="+", help="what to look for")
    one.add_argument("--semantic", action="store_true", help="by meaning, not by words")
    _add_server(one)
    _add_filters(one)
    _add_limit(one, 20)
    _add_json(one, "one JSON object per line")

    one = command(
        "export",
        "write results whole, oldest first, as JSON lines, CSV or Parquet",
        "example: llcuda results export --since 2026-11-01 --output november.parquet",
    )
    _add_filters(one)
    _add_limit(one, 0)
    one.add_argument(
        "-o", "--output", metavar="FILE", help="write there when all is well; default: stdout"
    )
    one.add_argument(
        "--format",
        choices=("jsonl", "csv", "parquet"),
        help="default: what the FILE's name ends in, or else jsonl",
    )
    one.add_argument(
        "--raw-cells",
        action="store_true",
        help="in CSV, leave texts as they are that begin with = + - @ or a tab; default: put an ' "
        "in front of them, since a spreadsheet would run them as formulas",
    )
    _add_json(one, "the same as --format jsonl")

    one = command(
        "verify",
        "compute every content hash again, and name what differs",
        "example: llcuda results verify && echo all is well",
    )
    _add_json(one, "one JSON object")

    one = command(
        "delete",
        "delete one result; without --yes only say which",
        "example: llcuda results delete 0192f3a4-b5c6 --yes",
    )
    one.add_argument("id", metavar="ID", help="the result's id, how it begins, or last")
    one.add_argument("--yes", action="store_true", help="delete")
    _add_json(one, "one JSON object")

    one = command(
        "prune",
        "delete old results; without --yes only say what would go",
        "examples:\n"
        "  llcuda results prune --older-than 30d          what would go\n"
        "  llcuda results prune --max-size 2GB --yes      delete the oldest until 2 GB are left",
    )
    one.add_argument("--older-than", metavar="TIME", type=moment, help="delete what is older")
    one.add_argument(
        "--max-size", metavar="SIZE", type=size, help="then the oldest, until the rest fits (2GB)"
    )
    one.add_argument("--yes", action="store_true", help="delete")
    _add_json(one, "one JSON object")

    one = command(
        "stats",
        "print figures of what is stored",
        "example: llcuda results stats --json | jq .models",
    )
    _add_json(one, "one JSON object")
    return parser


def _add_filters(parser: Parser) -> None:
    parser.add_argument("--model", metavar="NAME", help="of this model")
    parser.add_argument("--since", metavar="TIME", type=moment, help="begun then or later")
    parser.add_argument("--until", metavar="TIME", type=moment, help="begun before then")
    parser.add_argument(
        "--state",
        metavar="STATE",
        dest="states",
        action="append",
        choices=STATES,
        help=f"{', '.join(STATES[:-1])} or {STATES[-1]}; may be repeated",
    )


def _add_server(parser: Parser) -> None:
    group = parser.add_argument_group("with --semantic, the server of the data directory")
    group.add_argument(
        "--server", metavar="HOST:PORT[,…]", help="default: where it says it listens"
    )
    group.add_argument("--tls", action="store_true", help="connect with TLS")
    group.add_argument("--tls-ca", metavar="FILE", help="trust this PEM file (implies --tls)")
    group.add_argument("--token-file", metavar="FILE", help="a file that holds the token")


def _add_limit(parser: Parser, default: int) -> None:
    parser.add_argument(
        "--limit",
        metavar="N",
        type=_count,
        default=default,
        help=f"at most so many; 0: all (default: {default or 'all'})",
    )


def _add_json(parser: argparse._ActionsContainer, text: str) -> None:
    parser.add_argument("--json", action="store_true", help=text)


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise argparse.ArgumentTypeError(f"must be a whole number, not {text!r}")
    return int(text)


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number from 0 on, not {text!r}")
    return value


def _share(text: str) -> float:
    value = _number(text)
    if value > 1:
        raise argparse.ArgumentTypeError(f"must be from 0 to 1, not {text!r}")
    return value


def _rank(text: str) -> int:
    if not 1 <= _count(text) <= 1024:
        raise argparse.ArgumentTypeError(f"must be from 1 to 1024, not {text!r}")
    return int(text)


# -- running ----------------------------------------------------------------------------------

#: The module of each subcommand; the function in it has the subcommand's name.
_MODULES = {
    "list": "find",
    "search": "find",
    "semantic": "semantic",
    "show": "show",
    "resample": "resample",
    "export": "export",
    "verify": "maintain",
    "delete": "maintain",
    "prune": "maintain",
    "stats": "maintain",
}


def _run(arguments: argparse.Namespace) -> int:
    if sys.stdout is None:
        fail("standard output is closed: there is nowhere to print to")
    for given in vars(arguments).values():
        for text in given if isinstance(given, list) else [given]:
            if isinstance(text, str) and not text.isprintable():
                _refuse_other_than_text(text)
    _check(arguments)
    end_on_sigterm()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    command: Callable[[argparse.Namespace, Store], int]
    name = "semantic" if getattr(arguments, "semantic", False) else arguments.command
    command = getattr(import_module(f"llcuda_net.cli.results.{_MODULES[name]}"), f"{name}_results")

    from llcuda_net.storage.results.connection import errors

    try:
        with closing(open_store(arguments)) as store, errors("the store cannot be read"):
            return command(arguments, store)
    except StorageError as error:
        fail(error.message, Exit.USAGE if error.code == StorageError.INVALID else Exit.REFUSED)


def _check(arguments: argparse.Namespace) -> None:
    """Refuse options that cannot have an effect.

    Raises:
        CommandError: for the first that was found.
    """
    given = vars(arguments)
    for name in ("server", "tls", "tls_ca", "token_file"):
        if given.get(name) and not given["semantic"]:
            fail(f"--{name.replace('_', '-')} is of --semantic: words are found without a server")
    since, until = given.get("since"), given.get("until")
    if since is not None and until is not None and since >= until:
        fail("--since is not before --until: nothing can match")


def _refuse_other_than_text(argument: str) -> None:
    try:
        argument.encode()
    except UnicodeEncodeError:
        fail("an argument is not UTF-8 text")


def open_store(arguments: argparse.Namespace, *, write: bool = False) -> Store:
    """The store that is meant: in the data directory, or in PostgreSQL.

    Raises:
        CommandError: there is none, or it cannot be opened.
    """
    from llcuda_net.storage.postgres.opening import SCHEMES, open_postgres
    from llcuda_net.storage.results.sqlite import RESULTS, SqliteStore
    from llcuda_net.util import logs

    logs.configure("warning")  # to stderr: what a store logs is no part of the output
    folder = data_directory(arguments)
    named = named_store(arguments)
    try:
        if named.startswith(SCHEMES):
            return open_postgres(named, write)
        if arguments.store not in (None, "sqlite", "processes"):
            fail(
                "--store must be sqlite, processes or the URL of a database "
                "(postgresql://user@host/name)"
            )
        only = not (folder / RESULTS).exists() and (folder / "postgres").exists()
        if arguments.store == "processes" or (arguments.store is None and only):
            from llcuda_net.server.processes.database import reach

            return open_postgres(reach(folder), write)
        return SqliteStore(folder, write=write)
    except StorageError as error:
        fail(error.message, Exit.REFUSED if isinstance(error, NewerFormat) else Exit.USAGE)
    except OSError as error:
        fail(f"cannot open the data directory {folder}: {error.strerror or error}")


def named_store(arguments: argparse.Namespace) -> str:
    """The store as it is named: the URL of a database, or another word."""
    return arguments.store or os.environ.get("LLCUDA_STORE") or "sqlite"


def data_directory(arguments: argparse.Namespace) -> Path:
    """The data directory that is meant."""
    from llcuda_net.storage.data_dir import default_directory

    named = arguments.data_dir or os.environ.get("LLCUDA_DATA_DIR")
    return Path(named) if named else default_directory()


def query_of(arguments: argparse.Namespace) -> Query:
    """Which results the filters name."""
    from llcuda_net.storage.results.interface import Query

    return Query(
        model=arguments.model,
        since=arguments.since,
        until=arguments.until,
        states=tuple(arguments.states or ()),
        limit=arguments.limit or None,
    )


if __name__ == "__main__":
    sys.exit(main())
