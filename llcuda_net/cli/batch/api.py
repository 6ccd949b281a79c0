"""`llcuda batch --api`: an llcuda-server asks every request of a file, and keeps all of it."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llcuda_net.cli.common import (
    CommandError,
    Exit,
    Parser,
    end_on_sigterm,
    fail,
    read_token,
    run_command,
)
from llcuda_net.util.terminal import echo, one_line

if TYPE_CHECKING:
    from llcuda_net.batch.api import BatchApi

PROG = "llcuda batch"
_DEFAULT = "http://127.0.0.1:9000"
_SERVER = re.compile(r"https?://\S+|[^\s/]*:[0-9]{1,5}")
#: Errors of an input that are printed.
_SHOWN = 10

_DESCRIPTION = """\
Have an llcuda-server answer every request of a file: at low priority, in the same queue as
everybody's requests, over its restarts. What it has answered it keeps.
"""
_EPILOG = """\
examples:
  llcuda batch --api http://127.0.0.1:9000 requests.jsonl -o answers.jsonl
  llcuda batch --api --resume batch_01a2 -o answers.jsonl
  llcuda batch --api --resume batch_01a2 -o answers.jsonl --cancel

Each line of the input is a request as OpenAI's batches have it:
  {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": {"messages": [...]}}
Each line of the output is its answer, in the same order; those that failed are in OUTPUT.errors.

Ctrl-C ends the command, not the batch: the server goes on, and --resume waits for its end.

environment:
  LLCUDA_SERVER  HOST:PORT, or several: A,B      LLCUDA_TOKEN  the token itself

exit codes: 0 every request was answered, 1 some failed, or the batch did (stderr says why),
2 usage, 3 the server could not be reached, 130 or 143 stopped
"""


def make_parser() -> Parser:
    """The command's options."""
    parser = Parser(
        prog=PROG,
        usage="%(prog)s --api [URL] (INPUT | --resume ID) -o OUTPUT [options]",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    parser.add_argument("input", nargs="?", metavar="INPUT", help="requests, JSON lines")
    parser.add_argument(
        "--api",
        nargs="?",
        const="",
        metavar="URL",
        help=f"the server, or several that share a database: A,B (LLCUDA_SERVER, {_DEFAULT})",
    )
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help="answers, JSON lines")
    parser.add_argument("--resume", metavar="ID", help="wait for a batch that was made before")
    parser.add_argument("--cancel", action="store_true", help="with --resume: end it first")
    parser.add_argument(
        "--window", default="24h", metavar="TIME", help="time for all of it, as 24h or 2d (24h)"
    )
    parser.add_argument("--token-file", metavar="FILE", help="a file that holds the token")
    parser.add_argument(
        "--patience",
        type=float,
        default=60.0,
        metavar="SECONDS",
        help="how long to try a server that was lost (60)",
    )
    parser.add_argument("--json", action="store_true", help="print the batch as JSON on stdout")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return run_command(PROG, lambda: _run(_checked(make_parser().parse_args(argv))))


def _checked(arguments: argparse.Namespace) -> argparse.Namespace:
    """The arguments, if they make sense together.

    Raises:
        CommandError: they do not.
    """
    if arguments.api and not _SERVER.fullmatch(arguments.api):
        if arguments.input is not None:
            fail(f"--api {arguments.api} is no URL such as {_DEFAULT}")
        arguments.api, arguments.input = "", arguments.api  # as in: --api INPUT -o OUTPUT
    if (arguments.input is None) == (arguments.resume is None):
        fail("give an INPUT, or --resume with the id of a batch, one of the two")
    if arguments.cancel and arguments.resume is None:
        fail("--cancel goes with --resume and the id of a batch")
    if not arguments.patience >= 0:
        fail("--patience must not be negative")
    if arguments.output == "-":
        fail("answers go to a file, not to standard output")
    if arguments.input == "-":
        fail("the input is uploaded, again where that fails, so give a file, not standard input")
    for path in (Path(arguments.output), _errors_of(Path(arguments.output))):
        if path.exists() and not path.is_file():
            fail(f"{path} is no regular file: it cannot be replaced by answers")
        with suppress(OSError):
            if arguments.input is not None and path.samefile(arguments.input):
                fail("the input and the output are the same file")
    server = arguments.api or os.environ.get("LLCUDA_SERVER") or _DEFAULT
    servers = [one.strip() for one in server.split(",")]
    if not all(servers):
        fail("the list of servers has an empty name")
    arguments.api = ",".join(one if "://" in one else f"http://{one}" for one in servers)
    return arguments


def _run(arguments: argparse.Namespace) -> int:
    from llcuda_net.batch.api import ApiError, BatchApi
    from llcuda_net.cli.progress import Ticker

    ticker = Ticker()

    def note(text: str) -> None:
        ticker.erase()
        echo(one_line(f"{PROG}: {text}"), file=sys.stderr, flush=True)

    def progress(batch: dict[str, Any]) -> None:
        counts = batch["request_counts"]
        over = counts["completed"] + counts["failed"]
        ticker.say(f"{batch['status']}: {over:,} of {counts['total']:,} requests")

    end_on_sigterm()
    token = read_token(arguments.token_file)
    with closing(BatchApi(arguments.api, token, patience=arguments.patience, note=note)) as api:
        id_ = arguments.resume or _begin(api, arguments)
        if arguments.resume is None:
            note(f"the batch is {id_}")
        elif arguments.cancel:
            api.cancel(id_)
        go_on = f"{PROG} --api {api.url} --resume {id_} -o {arguments.output}"
        try:
            batch = api.wait(id_, progress)
            ticker.erase()
            return _finish(api, batch, arguments)
        except BaseException as error:
            ticker.erase()
            if not isinstance(error, CommandError | ApiError):
                note(f"the batch goes on at the server: {go_on}")
            raise


def _begin(api: BatchApi, arguments: argparse.Namespace) -> str:
    """Upload the input and make the batch; its id."""
    from llcuda_net.batch.api import endpoint_of

    name = Path(arguments.input).name
    with Path(arguments.input).open("rb") as file:
        endpoint = endpoint_of(file, arguments.input)
        uploaded = api.upload(file, name)
    return str(api.create(uploaded, endpoint, arguments.window, name)["id"])


def _finish(api: BatchApi, batch: dict[str, Any], arguments: argparse.Namespace) -> int:
    """Fetch what there is of a batch that is over; the exit code."""
    output = Path(arguments.output)
    answered = failed = 0
    asked = batch["request_counts"]["total"] > 0
    if asked:  # else earlier answers stay
        answered = _fetch(api, batch["output_file_id"], output)
        failed = _fetch(api, batch["error_file_id"], _errors_of(output))
    if arguments.json:
        echo(json.dumps(batch))
    errors = (batch["errors"] or {}).get("data") or []
    for error in errors[:_SHOWN]:
        where = "" if error["line"] is None else f"line {error['line']}: "
        echo(one_line(f"{PROG}: {where}{error['message']}"), file=sys.stderr)
    if batch["status"] == "failed" and not asked:
        more = f", and {len(errors) - _SHOWN} more" if len(errors) > _SHOWN else ""
        fail(f"the input is wrong, and nothing was asked{more}", Exit.REFUSED)
    text = f"{batch['status']}: {answered:,} answered"
    if failed:
        text += f", {failed:,} not: see {_errors_of(output)}"
    echo(one_line(f"{PROG}: {text}"), file=sys.stderr)
    return Exit.REFUSED if failed or batch["status"] != "completed" else Exit.OK


def _fetch(api: BatchApi, id_: str | None, path: Path) -> int:
    """Have a file of the batch here, or none where it has none; how many lines it has."""
    if id_ is not None:
        return api.download(id_, path)
    path.unlink(missing_ok=True)  # of an earlier batch
    return 0


def _errors_of(output: Path) -> Path:
    return output.with_name(f"{output.name}.errors")
