"""`llcuda top`: the state of a server, live, or once as text or JSON."""

from __future__ import annotations

import argparse
import io
import shutil
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from llcuda_net.cli import server_options
from llcuda_net.cli.common import Exit, Parser, end_on_sigterm, fail, run_command
from llcuda_net.util.terminal import echo, is_clever, is_terminal, wants_colour

if TYPE_CHECKING:
    from llcuda_net.cli.top.grid import Line
    from llcuda_net.sync import Client

PROG = "llcuda top"
_INTERVAL = 1.0
_LEAST, _MOST = 0.1, 3600.0

_DESCRIPTION = """\
Show the state of an llcuda-server: its upstreams and their slots, who waits, tokens per second,
the store, and what has gone wrong while it is watched.
"""

_EPILOG = """\
examples:
  llcuda top                                 the server on this machine
  llcuda top gpu-box:9000 --tls --token-file token
  llcuda top --once | grep down
  llcuda top --json | jq .requests.queued

In a bar each slot is busy (█, #), somebody else's (▓, x), not yet seen to be free again (▒, ~) or
free (░, .). A user sees only their own requests in it; an admin sees all. When the connection is
lost, it is made again.

environment:
  LLCUDA_SERVER  HOST:PORT, or several: A,B      LLCUDA_TOKEN  the token itself
  NO_COLOR       when set, no colours

exit codes: 0 done, 1 the server said no, 2 wrong usage, 3 no connection at the start,
130 interrupted (Ctrl-C), 141 nobody reads the output, 143 terminated
"""


def make_parser() -> Parser:
    """The command's options."""
    parser = Parser(
        prog=PROG,
        usage="%(prog)s [HOST:PORT] [options]",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    server_options.add(parser)
    group = parser.add_argument_group("what to show")
    group.add_argument(
        "--interval",
        type=_seconds,
        default=_INTERVAL,
        metavar="SECONDS",
        help=f"seconds between two reports ({_INTERVAL:g})",
    )
    group.add_argument(
        "--once", action="store_true", help="print it as text, and end; so if stdout is no terminal"
    )
    group.add_argument("--json", action="store_true", help="print the server's report, and end")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return run_command(PROG, lambda: _run(make_parser().parse_args(argv)))


def _run(arguments: argparse.Namespace) -> int:
    if sys.stdout is None:
        fail("standard output is closed: there is nowhere to print to")
    as_text = arguments.json or arguments.once or not is_clever(sys.stdout)
    if not as_text and find_spec("textual") is None:
        fail(f"live, {PROG} needs textual: pip install 'llcuda-net[top]'; or give --once")
    dial = server_options.Dialler(arguments)
    end_on_sigterm()
    client = dial()
    if as_text:
        with client:
            report = client.status()
        if arguments.json:
            _print_json(report)
        else:
            _print_once(report, dial.server)
        return Exit.OK
    return _live(dial, client, arguments.interval)


def _live(dial: server_options.Dialler, client: Client, interval: float) -> int:
    from llcuda_net.cli.top.app import Top
    from llcuda_net.cli.top.feed import Feed

    feed = Feed(dial, client, interval)
    app = Top(dial.server, feed, coloured=wants_colour(sys.stdout))
    try:
        code = app.run(mouse=False)
    finally:
        feed.stop()
    if app.failure is not None:
        raise app.failure
    return app.return_code or Exit.OK if code is None else code


def _print_json(report: dict[str, Any]) -> None:
    from llcuda_net.cli import json_documents

    echo(json_documents.line(report))


def _print_once(report: dict[str, Any], server: str) -> None:
    from llcuda_net.cli.top.grid import plain
    from llcuda_net.cli.top.sections import ASCII, BLOCKS, snapshot
    from llcuda_net.cli.top.view import read

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    terminal = is_terminal(sys.stdout)
    room = max(40, shutil.get_terminal_size().columns) if terminal else 1000
    line: Line
    for line in snapshot(read(report), server, room, BLOCKS if terminal else ASCII):
        echo(plain(line))


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a number, not {text!r}") from None
    if not _LEAST <= value <= _MOST:
        raise argparse.ArgumentTypeError(f"must be {_LEAST:g} to {_MOST:g}, not {text}")
    return value


if __name__ == "__main__":
    sys.exit(main())
