"""`llcuda batch`: every prompt of a file, straight to a llama-server or the built-in engine."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from llcuda_net.cli.batch import options, upstream_options
from llcuda_net.cli.common import Parser, run_command

PROG = "llcuda batch"

_DESCRIPTION = """\
Answer every prompt of a file, without llcuda-server and without MPI. Nothing is kept but the
output; over several machines, or with everything kept, use llcuda-mpi. With --api, an
llcuda-server answers a file of requests, and keeps all of it: see llcuda batch --api --help.
"""

_EPILOG = f"""\
examples:
  llcuda batch prompts.jsonl -o results.jsonl
  llcuda batch prompts.jsonl -o results.jsonl --model path.gguf --inflight 8
  llcuda batch prompts.jsonl -o results.jsonl --upstream http://127.0.0.1:8080
  llcuda batch --api http://127.0.0.1:9000 requests.jsonl -o answers.jsonl

{options.FILES}
{options.CODES}"""


def make_parser() -> Parser:
    """The command's options."""
    parser = Parser(
        prog=PROG,
        usage="%(prog)s INPUT -o OUTPUT [options]",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    parser.add_argument("input", metavar="INPUT", help="prompts, JSON lines; -: standard input")
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help="results, JSON lines")
    upstream_options.add(parser)
    options.add(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    given = sys.argv[1:] if argv is None else argv
    if any(word == "--api" or word.startswith("--api=") for word in given):
        from llcuda_net.cli.batch import api

        return api.main(given)
    return run_command(PROG, lambda: _run(make_parser().parse_args(argv)))


def _run(arguments: argparse.Namespace) -> int:
    params = options.check(arguments)
    name, connect = upstream_options.opener(arguments, arguments.inflight)

    from llcuda_net.batch.mpi import Communicator
    from llcuda_net.util import logs

    logs.configure("error")
    return options.run(PROG, arguments, Communicator(), name, connect, params)


if __name__ == "__main__":
    sys.exit(main())
