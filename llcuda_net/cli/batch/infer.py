"""`llcuda infer`: one prompt, straight to a llama-server or the built-in engine."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

from llcuda_net.cli.batch import upstream_options
from llcuda_net.cli.common import (
    DEFAULT_TOKENS,
    TOKEN_LIMIT_HELP,
    UNLIMITED,
    Exit,
    Parser,
    check_text,
    cut_line,
    fail,
    run_command,
    token_limit,
)
from llcuda_net.util.terminal import echo, echo_data
from llcuda_net.util.text_files import decode

PROG = "llcuda infer"

_EPILOG = """\
examples:
  llcuda infer "What is a slot?"
  llcuda infer --model path.gguf --temperature 0 "Name three rivers."
  git diff | llcuda infer --upstream http://127.0.0.1:8080 --system "Write a commit message." -

Text goes to stdout as it comes. Nothing is kept: for that, and for streams that survive a lost
connection, start llcuda-server and use llcuda-client.

exit codes: 0 answered, 1 refused or failed, 2 usage, 3 no connection, 130 Ctrl-C
"""


def make_parser() -> Parser:
    """The command's options."""
    parser = Parser(
        prog=PROG,
        usage="%(prog)s [options] PROMPT",
        description="Answer one prompt, without llcuda-server.",
        epilog=_EPILOG,
    )
    parser.add_argument("prompt", metavar="PROMPT", help="text, or - for standard input")
    upstream_options.add(parser)
    group = parser.add_argument_group("how to answer")
    group.add_argument("--system", metavar="TEXT", help="system message")
    group.add_argument("--raw", action="store_true", help="no chat template: continue the text")
    group.add_argument(
        *("--n-predict", "--max-tokens", "--n_predict"),
        dest="n_predict",
        type=token_limit,
        metavar="N",
        help=TOKEN_LIMIT_HELP,
    )
    group.add_argument("--temperature", type=float, metavar="T")
    group.add_argument("--seed", type=int, metavar="N")
    group.add_argument("--stats", action="store_true", help="times and counts on stderr")
    group.add_argument("--json", action="store_true", help="the whole answer as one JSON object")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return run_command(PROG, lambda: _run(make_parser().parse_args(argv)))


def _run(arguments: argparse.Namespace) -> int:
    if arguments.prompt == "-":
        text = decode(sys.stdin.buffer.read(), "standard input")
    else:
        text = check_text(arguments.prompt, "the prompt")
    if not text.strip():
        fail("the prompt is empty: there is nothing to send")
    if arguments.raw and arguments.system is not None:
        fail("--system goes with a chat template, which --raw leaves out")
    _, connect = upstream_options.opener(arguments, 1)

    import trio

    from llcuda_net.batch.record import Record
    from llcuda_net.cli.run_async import run_async
    from llcuda_net.errors import RequestError
    from llcuda_net.util import logs
    from llcuda_net.util.repetition import RepetitionDetector, notice
    from llcuda_protocol import ErrorCode

    logs.configure("error")
    names = ("n_predict", "temperature", "seed")
    params = {n: getattr(arguments, n) for n in names if getattr(arguments, n) is not None}
    if params.setdefault("n_predict", DEFAULT_TOKENS) == UNLIMITED:
        del params["n_predict"]
    record = Record(0, 0.0)
    detector: RepetitionDetector | None = RepetitionDetector()

    def show(piece: str) -> None:
        nonlocal detector
        echo_data(piece)
        if detector and (block := detector.add(piece)) is not None:
            detector = None
            note(f"{notice(block)}. Ctrl-C stops it")

    def note(text: str) -> None:
        echo(f"{PROG}: {text}", file=sys.stderr, flush=True)

    async def ask() -> Any:
        more: dict[str, Any] = {} if arguments.json else {"on_text": show}
        if not arguments.raw:
            system = [{"role": "system", "content": arguments.system}] if arguments.system else []
            more["messages"] = [*system, {"role": "user", "content": text}]
        async with connect() as target:
            answer = await target.ask(text, params, record, trio.current_time, **more)
            record.ended = trio.current_time()
            return answer

    try:
        answer = run_async(ask)
    except RequestError as error:
        if error.code == ErrorCode.UPSTREAM_UNAVAILABLE:
            fail(error.message, Exit.CONNECT)
        raise
    usage = {"prompt_tokens": record.prompt_tokens, "completion_tokens": record.tokens}
    if arguments.json:
        found = {"text": answer.text, "reason": answer.reason, "model": answer.model}
        echo(json.dumps({**found, "usage": usage}, ensure_ascii=False))
    elif not answer.text.endswith("\n"):
        echo()
    if answer.reason == "length":
        cut = cut_line(arguments.n_predict, record.tokens, "for more, ask again with")
        if cut is not None:
            note(cut)
    if arguments.stats:
        ttft = record.service_ttft
        first = "" if ttft is None else f"first token {ttft * 1e3:.1f} ms, "
        echo(
            f"{first}in all {record.service * 1e3:.1f} ms; {record.prompt_tokens} prompt tokens,"
            f" {record.tokens} tokens; ended by {answer.reason}",
            file=sys.stderr,
        )
    return Exit.OK


if __name__ == "__main__":
    sys.exit(main())
