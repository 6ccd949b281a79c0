"""llcuda-client: ask a model behind an llcuda-server, from a shell.

Only the standard library is imported before there is something to do, so that --help is instant.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from llcuda_net.cli.common import (
    Exit,
    Parser,
    VersionAction,
    check_text,
    decode,
    end_on_sigterm,
    fail,
    read_text,
    read_token,
    run_command,
)
from llcuda_net.errors import ConnectError, RequestError

if TYPE_CHECKING:
    from llcuda_net import sync

PROG = "llcuda-client"
_DEFAULT_SERVER = "127.0.0.1:9000"
_EPILOG = """\
examples:
  llcuda-client "Why is the sky blue?"
  llcuda-client --raw "Once upon a time" -n 64 --temperature 0.8
  git diff | llcuda-client - --system "Write a commit message for this diff."
  llcuda-client --chat --server gpu-box:9000

environment:
  LLCUDA_SERVER  the server's HOST:PORT          LLCUDA_TOKEN  the token itself
  NO_COLOR       when set, no colours

exit codes:
  0  done                       3    no connection, or it was lost
  1  the server said no, or     130  interrupted (Ctrl-C)
     writing the answer failed  141  nobody reads the output
  2  wrong usage                143  terminated
"""


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return run_command(PROG, lambda: _run(build_parser().parse_args(argv)))


def build_parser() -> Parser:
    """The command line."""
    parser = Parser(
        prog=PROG,
        description="Send a prompt to an llcuda-server and print the answer as it comes.",
        epilog=_EPILOG,
    )
    parser.add_argument("--version", action=VersionAction)
    what = parser.add_argument_group("what to send")
    what.add_argument("prompt", nargs="*", help="the prompt, in quotes; - reads standard input")
    what.add_argument("--file", metavar="FILE", help="read the prompt from a file")
    what.add_argument("--raw", action="store_true", help="send the text as it is, with no template")
    what.add_argument("--system", metavar="TEXT", help="a system message to go before the prompt")
    what.add_argument("--chat", action="store_true", help="hold a conversation; Ctrl-D ends it")
    _add_sampling(parser.add_argument_group("how to answer"))
    show = parser.add_argument_group("what to print")
    show.add_argument("--json", action="store_true", help="one JSON object a line for each event")
    show.add_argument("--no-stream", action="store_true", help="print only when all has come")
    show.add_argument("--stats", action="store_true", help="print times and speed on stderr")
    where = parser.add_argument_group("where to connect")
    where.add_argument("--server", metavar="HOST:PORT", help=f"default: {_DEFAULT_SERVER}")
    where.add_argument("--tls", action="store_true", help="connect with TLS")
    where.add_argument("--tls-ca", metavar="FILE", help="trust this PEM file (implies --tls)")
    where.add_argument("--token-file", metavar="FILE", help="a file that holds the token")
    return parser


def _add_sampling(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "-n",
        "--max-tokens",
        metavar="N",
        dest="n_predict",
        type=_number(int, 1, 2**31 - 1),
        help="most tokens to make; default: the server's",
    )
    for flag, kind, low, high, text in (
        ("--temperature", float, 0, 100, "0: always the likeliest token"),
        ("--top-k", int, 0, 2**20, "choose among the K likeliest; 0: all"),
        ("--top-p", float, 0, 1, "choose among the likeliest that make up P"),
        ("--min-p", float, 0, 1, "choose among those at least P times as likely as the first"),
        ("--repeat-penalty", float, 0, 100, "above 1: repeat less"),
        ("--seed", int, -1, 2**32 - 1, "the same seed, the same answer; -1: random"),
        ("--n-probs", int, 0, 1000, "with --json: log-probabilities of the N likeliest"),
    ):
        letter = flag.rpartition("-")[2][0].upper()
        group.add_argument(flag, metavar=letter, type=_number(kind, low, high), help=text)
    group.add_argument(
        "--stop", metavar="TEXT", action="append", help="end before this text; may be repeated"
    )
    group.add_argument("--grammar", metavar="FILE", help="a GBNF grammar that the answer follows")
    group.add_argument("--json-schema", metavar="FILE", help="a schema that the answer follows")
    group.add_argument(
        "--param",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        type=_parameter,
        help="any parameter of llama-server, its value as JSON; may be repeated",
    )
    group.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=_number(float, 0.001, 1e9),
        help="give up after this long; default: the server's",
    )


def _number(kind: type, low: float, high: float) -> Callable[[str], Any]:
    """A type for argparse: a number within bounds, with an error that names them."""
    noun = "a whole number" if kind is int else "a number"

    def convert(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"must be {noun}, not {text!r}") from None
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"must be {low:.10g} to {high:.10g}, not {text}")
        return value

    return convert


def _parameter(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"must be NAME=VALUE, not {text!r}")
    try:
        return name, json.loads(value)
    except (ValueError, RecursionError):
        return name, value


def _run(arguments: argparse.Namespace) -> int:
    if sys.stdout is None:
        fail("standard output is closed: there is nowhere to print the answer")
    _check(arguments)
    text = _prompt(arguments)
    request = {"timeout": arguments.timeout, **_parameters(arguments)}
    token = read_token(arguments.token_file)
    end_on_sigterm()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")

    from llcuda_net import sync

    def connect() -> sync.Client:
        server = arguments.server or os.environ.get("LLCUDA_SERVER") or _DEFAULT_SERVER
        return sync.connect(server, tls=arguments.tls, tls_ca=arguments.tls_ca, token=token)

    if arguments.chat:
        from llcuda_net.cli.chat import Chat

        chat = Chat(
            PROG,
            connect,
            request,
            system=arguments.system,
            at_once=arguments.no_stream,
            stats=arguments.stats,
        )
        return chat.run(text)
    assert text is not None
    if arguments.raw:
        request["raw"] = text
    else:
        request |= {"prompt": text, "system": arguments.system}
    return _answer(connect, request, arguments)


def _answer(
    connect: Callable[[], sync.Client], request: dict[str, Any], arguments: argparse.Namespace
) -> int:
    from llcuda_net.cli.render import JsonOutput, TextOutput, print_stats, show

    if arguments.json:
        output = JsonOutput(at_once=arguments.no_stream)
        try:
            with connect() as client, client.generate(tokens=True, **request) as stream:
                result = show(stream, output)
        except (RequestError, ConnectError) as error:
            output.error(error)
            raise
    else:
        with connect() as client, client.generate(**request) as stream:
            result = show(stream, TextOutput(at_once=arguments.no_stream))
    if arguments.stats:
        print_stats(result)
    return Exit.OK


def _check(arguments: argparse.Namespace) -> None:
    """Refuse combinations that mean nothing."""
    if len(arguments.prompt) > 1:
        fail(f"{len(arguments.prompt)} prompts were given: put the prompt in quotes")
    if arguments.file is not None and arguments.prompt:
        fail("give a prompt or --file, not both")
    if arguments.raw and arguments.system is not None:
        fail("--system goes with a chat template, which --raw leaves out")
    for flag, texts in (("system", [arguments.system or ""]), ("stop", arguments.stop or [])):
        for text in texts:
            check_text(text, f"the text of --{flag}")
    for flag in ("raw", "json"):
        if arguments.chat and getattr(arguments, flag):
            fail(f"--chat and --{flag} do not go together")
    if arguments.chat and arguments.prompt == ["-"]:
        fail("--chat reads its questions from standard input: - is not needed")


def _prompt(arguments: argparse.Namespace) -> str | None:
    """The text to send; None where a chat begins without one."""
    if arguments.file is not None:
        text = read_text(arguments.file, "file")
        source = f"file {arguments.file}"
    elif arguments.prompt == ["-"]:
        if sys.stdin is None:
            fail("standard input is closed")
        text = decode(sys.stdin.buffer.read(), "standard input")
        source = "standard input"
    elif arguments.prompt:
        text = check_text(arguments.prompt[0], "the prompt")
        source = "prompt"
    elif arguments.chat:
        return None
    else:
        fail(f"nothing to send: give a prompt, -, --file or --chat (see {PROG} --help)")
    if not text.strip():
        fail(f"the {source} is empty: there is nothing to send")
    return text


def _parameters(arguments: argparse.Namespace) -> dict[str, Any]:
    """The sampling parameters that were given, by llama-server's names."""
    names = ("n_predict", "temperature", "top_k", "top_p", "min_p", "repeat_penalty", "seed")
    given = {name: getattr(arguments, name) for name in (*names, "n_probs", "stop")}
    if arguments.grammar is not None:
        given["grammar"] = read_text(arguments.grammar, "grammar")
    if arguments.json_schema is not None:
        try:
            given["json_schema"] = json.loads(read_text(arguments.json_schema, "JSON schema"))
        except (ValueError, RecursionError) as error:
            fail(f"JSON schema {arguments.json_schema} is not JSON: {error}")
    reserved = {"self", "prompt", "raw", "messages", "system", "timeout", "tokens"}
    for name, value in arguments.param:
        if name in reserved:
            fail(f"--param cannot set {name}")
        given[name] = value
    return {name: value for name, value in given.items() if value is not None}


if __name__ == "__main__":
    sys.exit(main())
