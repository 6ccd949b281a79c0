"""The command line of llcuda-client: its options, what goes with what, and the request they make.

Only the standard library is imported, so that --help is instant.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import Any

from llcuda_net.cli.common import (
    DEFAULT_TOKENS,
    TOKEN_LIMIT_HELP,
    Parser,
    VersionAction,
    program,
    token_limit,
)
from llcuda_net.cli.help_topics import by_topic
from llcuda_net.cli.server_options import DEFAULT_SERVER, SERVERS

_RECONNECT = 30.0
_MOST_SECONDS = 1e9
#: Generations that --list prints by default, and at most.
_LISTED = 20
_MOST_LISTED = 1000
_EPILOG = """\
examples:
  {call} "Why is the sky blue?"
  {call} --raw "Once upon a time" -n 64 --temperature 0.8
  git diff | {call} - --system "Write a commit message for this diff."
  {call} --certainty "Who wrote the first compiler?"
  {call} --chat --server gpu-box:9000
  {call} --continue last "And why red in the evening?"     # it remembers the question
  {call} --continue "$id" --chat      # the same with an answer of any age, line by line
  {call} --image cat.png "What is in this picture?"
  {call} --tools tools.json "How warm is it in Oslo?"

  {call} --models                     # which models there are, and how busy
  {call} --model qwen3-8b --priority high --deadline 10 "Say hello."
  {call} --list 5                     # your newest five, running ones included

  id=$({call} --background "Write a long story.")  # start it, and leave
  {call} --attach "$id"               # read it, live or finished, from any machine
  {call} --attach "$id" --from 100    # the same from token 100 on
  {call} --cancel "$id"               # stop it
  {call} --delete "$id"               # delete what is stored of it

An answer ends after {tokens:,} tokens where --max-tokens says nothing else. Notes on stderr
say when that cut it, and when it begins to repeat itself.

Tools are a JSON list of functions, each with name, description and parameters (a JSON schema). What
the model asks for is printed as NAME ARGUMENTS; with --chat the next line that you type is what the
tool has returned. What a model thinks first is not part of its answer: --think says whether to show
it, on stderr. --param sets tool_choice, reasoning_effort and chat_template_kwargs, too.

An ID may be given by its beginning, and `last` is your newest: for --cancel that runs, for
--delete that is over.

With --chat a paste is one message, Alt+Enter begins a line, and /help lists what else there is:
another model, another version of an answer, a file with it all. What was typed is kept for the next
chat in $XDG_STATE_HOME/llcuda/chat_history. The server keeps the conversation, where it keeps
results, and its page shows it.

--continue takes the id of an answer that is over, also one that was stopped: what was asked and
answered there, and before it, comes before the new prompt. The model, the system message and the
tools stay as they were unless they are given; --max-tokens, --temperature and the like do not.

A connection that is lost is made again, and the answer goes on where it stopped: notes on stderr
say so, and also where another upstream went on with it. Ctrl-C stops an answer on the server, too;
with --attach it only stops reading.

environment:
  LLCUDA_SERVER  HOST:PORT, or several: A,B      LLCUDA_TOKEN  the token itself
  NO_COLOR       when set, no colours

exit codes:
  0  done; with --cancel: it is    3    no connection, or it was lost for
     stopped, or was over               longer than --reconnect-seconds
  1  the server said no, or        130  interrupted (Ctrl-C)
     there is no such generation,  141  nobody reads the output
     or writing the answer failed  143  terminated
  2  wrong usage
"""


#: The options of the short --help, and the topics of the others.
_SHOWN = (
    *("--help", "--version", "--file", "--system", "--chat", "--continue", "--image", "--tools"),
    *("--max-tokens", "--temperature", "--json-schema", "--model", "--background", "--attach"),
    *("--cancel", "--models", "--list", "--json", "--stats", "--server", "--token-file"),
)
_TOPICS = {
    "what to send": "send",
    "how to answer": "answer",
    "where and when it runs": "run",
    "how it lives on the server": "durability",
    "leaving an answer, and coming back to it": "background",
    "asking the server": "ask",
    "what to print": "print",
    "where to connect": "connect",
}


def prog() -> str:
    """By which name the command was called."""
    return program("llcuda-client")


def to_type() -> list[str]:
    """The name in what a user may type next: `llcuda chat` is `llcuda ask --chat`."""
    return prog().replace(" chat", " ask").split()


def build_parser() -> Parser:
    """The command line."""
    parser = Parser(
        prog=prog(),
        description="Send a prompt to an llcuda-server and print the answer as it comes.",
        epilog=_EPILOG.format(call=" ".join(to_type()), tokens=DEFAULT_TOKENS),
    )
    parser.add_argument("--version", action=VersionAction)
    what = parser.add_argument_group("what to send")
    what.add_argument("prompt", nargs="*", help="the prompt, in quotes; - reads standard input")
    what.add_argument("--file", metavar="FILE", help="read the prompt from a file")
    what.add_argument("--raw", action="store_true", help="send the text as it is, with no template")
    what.add_argument("--system", metavar="TEXT", help="a system message to go before the prompt")
    what.add_argument("--chat", action="store_true", help="talk, question by question; Ctrl-D ends")
    what.add_argument(
        "--continue",
        metavar="ID",
        dest="previous",
        help="go on with the conversation of this answer, or, with last, of your newest one; with"
        " --chat also with a conversation by its id, as of the page",
    )
    for flag, kinds in (("--image", "a PNG, JPEG, WebP or GIF"), ("--audio", "a WAV or MP3")):
        what.add_argument(
            flag,
            metavar="FILE",
            action="append",
            default=[],
            help=f"send {kinds} with the prompt; may be repeated",
        )
    what.add_argument(
        "--tools", metavar="FILE", help="functions that the model may ask for, in JSON"
    )
    _add_sampling(parser.add_argument_group("how to answer"))
    _add_turn(parser.add_argument_group("where and when it runs"))
    _add_generations(parser)
    ask = parser.add_argument_group("asking the server")
    ask.add_argument("--models", action="store_true", help="print which models there are")
    ask.add_argument(
        "--list",
        metavar="N",
        nargs="?",
        const=_LISTED,
        type=_number(int, 1, _MOST_LISTED),
        help=f"print your newest answers, those that wait or run included; default: {_LISTED}",
    )
    show = parser.add_argument_group("what to print")
    show.add_argument("--json", action="store_true", help="one JSON object per line and event")
    show.add_argument("--no-stream", action="store_true", help="print only when all has come")
    show.add_argument(
        "--think",
        choices=["show", "hide"],
        help="whether to show on stderr what the model thinks before it answers; default: show, "
        "where all goes to a terminal",
    )
    show.add_argument("--stats", action="store_true", help="print times and speed on stderr")
    show.add_argument(
        "--certainty",
        action="store_true",
        help="mark the least certain words, and print on stderr how sure the model was; without "
        "--json it implies --no-stream",
    )
    where = parser.add_argument_group("where to connect")
    where.add_argument(
        "--server",
        metavar=SERVERS,
        help=f"one, or several that share a database: any of them will do ({DEFAULT_SERVER})",
    )
    where.add_argument("--tls", action="store_true", help="connect with TLS")
    where.add_argument("--tls-ca", metavar="FILE", help="trust this PEM file (implies --tls)")
    where.add_argument("--token-file", metavar="FILE", help="a file that holds the token")
    where.add_argument(
        "--reconnect-seconds",
        metavar="S",
        type=_number(float, 0, _MOST_SECONDS),
        default=_RECONNECT,
        help=f"try a lost connection again for S seconds, 0: never; default: {_RECONNECT:g}",
    )
    by_topic(parser, _SHOWN, _TOPICS)
    return parser


def _add_generations(parser: argparse.ArgumentParser) -> None:
    keep = parser.add_argument_group("how it lives on the server")
    keep.add_argument(
        "--on-disconnect",
        metavar="WHAT",
        type=_on_disconnect,
        help="when its last reader is gone: continue, cancel, or go on for so many SECONDS; "
        "default: the server's",
    )
    keep.add_argument(
        "--idempotency-key",
        metavar="KEY",
        help="the same key and request: the same answer, joined while it runs, read again later",
    )
    keep.add_argument(
        "--cache",
        action="store_true",
        help="an exact repeat (temperature 0 or a fixed seed) may be answered from the store",
    )
    keep.add_argument("--store", choices=["none"], help="none: store nothing about this request")
    keep.add_argument(
        "--durability",
        metavar="LEVEL",
        choices=["memory", "process", "disk", "strict", "cluster"],
        help="what it survives: memory, process, disk, strict or cluster; default: the server's",
    )
    later = parser.add_argument_group("leaving an answer, and coming back to it")
    for flag, text in (
        ("--background", "start it, print its id, and leave it running"),
        ("--detach", "the same as --background"),
    ):
        later.add_argument(flag, dest="detach", action="store_const", const=flag, help=text)
    later.add_argument("--attach", metavar="ID", help="read the answer of this id")
    later.add_argument(
        "--from",
        metavar="SEQ",
        dest="first",
        type=_number(int, 0, 2**53 - 1),
        help="with --attach: from this token on; the first is 0",
    )
    later.add_argument("--cancel", metavar="ID", help="stop the answer of this id")
    later.add_argument(
        "--delete", metavar="ID", help="delete what is stored of the answer of this id, for good"
    )


def _add_sampling(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "-n",
        "--max-tokens",
        metavar="N",
        dest="n_predict",
        type=token_limit,
        help=TOKEN_LIMIT_HELP,
    )
    for flag, kind, low, high, text in (
        ("--temperature", float, 0, 100, "0: always the likeliest token"),
        ("--top-k", int, 0, 2**20, "choose among the K likeliest; 0: all"),
        ("--top-p", float, 0, 1, "choose among the likeliest that make up P"),
        ("--min-p", float, 0, 1, "choose among those at least P times as likely as the first"),
        ("--repeat-penalty", float, 0, 100, "above 1: repeat less"),
        ("--seed", int, -1, 2**32 - 1, "the same seed, the same answer; -1: random"),
        ("--n-probs", int, 0, 1000, "with --json, --certainty: log-probabilities of the N best"),
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
        type=_number(float, 0.001, _MOST_SECONDS),
        help="give up after this long; default: the server's",
    )


def _add_turn(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--model", metavar="NAME", help="which of --models it runs on; default: the server's"
    )
    group.add_argument(
        "--priority",
        metavar="CLASS",
        choices=["high", "normal", "low"],
        help="high, normal or low: before which others it runs; default: normal",
    )
    group.add_argument(
        "--deadline",
        metavar="SECONDS",
        type=_number(float, 0, _MOST_SECONDS),
        help="fail if it has not begun to run by then; 0: unless it can begin at once; "
        "default: no matter when it begins",
    )


def _number(kind: type, low: float, high: float) -> Callable[[str], Any]:
    """A type for argparse: a number within bounds, with an error that names them."""
    noun = "a whole number" if kind is int else "a number"
    bounds = f"{low} to {high}" if kind is int else f"{low:.10g} to {high:.10g}"

    def convert(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"must be {noun}, not {text!r}") from None
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"must be {bounds}, not {text}")
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


def _on_disconnect(text: str) -> str | float:
    if text in ("continue", "cancel"):
        return text
    try:
        seconds: float = _number(float, 0, _MOST_SECONDS)(text)
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(
            f"must be continue, cancel or a number of seconds, not {text!r}"
        ) from None
    return seconds
