"""`llcuda-mpi`: batches over MPI ranks, or over one rank without mpirun."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from functools import partial

from llcuda_net.cli.batch import options
from llcuda_net.cli.common import (
    Exit,
    Parser,
    VersionAction,
    fail,
    print_error,
    read_secret,
    read_token,
    run_command,
)

PROG = "llcuda-mpi"
_DEFAULT_SERVER = "127.0.0.1:9000"

_DESCRIPTION = """\
Answer every prompt of a file, over as many ranks as mpirun starts: rank 0 distributes the lines to
ranks as they come free, and writes the results.
"""

_EPILOG = f"""\
examples:
  mpirun -n 4 llcuda-mpi --input prompts.jsonl --output results.jsonl
  mpirun -n 4 llcuda-mpi --input in.jsonl --output out.jsonl --server hostA:9000,hostB:9000
  llcuda-mpi --input in.jsonl --output out.jsonl --server http://127.0.0.1:8080   (one rank)

what ranks bring, measured:
  llcuda-mpi --input in.jsonl --output one.jsonl --job one --json > one.json
  mpirun -n 4 llcuda-mpi --input in.jsonl --output four.jsonl --job four --base one.json

{options.FILES}
A server is an llcuda-server (HOST:PORT) or a llama-server (http://…); a list is shared out over the
ranks in turn. Only an llcuda-server knows the lines' keys, and never makes the same answer twice.
Open MPI as root, or with more ranks than cores, needs variables that docs/mpi.md lists.

{options.CODES}"""


def make_parser() -> Parser:
    """The command's options."""
    parser = Parser(
        prog=PROG,
        usage="[mpirun -n N] %(prog)s --input FILE --output FILE [options]",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    parser.add_argument(
        "--input", required=True, metavar="FILE", help="prompts, JSON lines; -: standard input"
    )
    parser.add_argument("--output", required=True, metavar="FILE", help="results, JSON lines")
    parser.add_argument(
        "--server", metavar="A,B,…", help=f"(default: LLCUDA_SERVER, or {_DEFAULT_SERVER})"
    )
    parser.add_argument("--token-file", metavar="FILE", help="the token for llcuda-server")
    parser.add_argument("--tls", action="store_true", help="speak TLS to llcuda-server")
    parser.add_argument("--tls-ca", metavar="FILE", help="certificates to trust; implies --tls")
    parser.add_argument("--api-key-file", metavar="FILE", help="the key for a llama-server")
    options.add(parser)
    parser.add_argument("--version", action=VersionAction)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run this rank of the command; returns its exit code."""
    return run_command(PROG, lambda: _run(make_parser().parse_args(argv)))


def _run(arguments: argparse.Namespace) -> int:
    params = options.check(arguments)
    token = read_token(arguments.token_file)
    key = None
    if arguments.api_key_file is not None:
        key = read_secret(arguments.api_key_file, "API key file").strip()
    servers = (arguments.server or os.environ.get("LLCUDA_SERVER") or _DEFAULT_SERVER).split(",")
    if not all(server.strip() for server in servers):
        fail("--server has an empty name in its list")
    _check_targets(arguments, servers)

    from llcuda_net.util import logs  # first: see there

    from llcuda_net.batch.mpi import open_communicator  # isort: skip
    from llcuda_net.batch.targets.opening import open_target  # isort: skip
    from llcuda_net.errors import ConfigError  # isort: skip

    logs.configure("error")
    with open_communicator() as communicator:
        server = servers[communicator.rank % len(servers)].strip()
        connect = partial(
            open_target,
            server,
            token=token,
            tls=arguments.tls,
            tls_ca=arguments.tls_ca,
            api_key=key,
        )
        try:
            return options.run(PROG, arguments, communicator, server, connect, params)
        except ConfigError as error:
            # In one line, and no rank may wait for this one.
            print_error(PROG, str(error))
            communicator.abort(Exit.USAGE)
            return Exit.USAGE


def _check_targets(arguments: argparse.Namespace, servers: list[str]) -> None:
    """Refuse an option that is of a kind of server of which the list has none.

    Raises:
        CommandError: for the first that was found.
    """
    urls = [server.strip().startswith(("http://", "https://")) for server in servers]
    for name in ("tls", "tls_ca", "token_file"):
        if getattr(arguments, name) and all(urls):
            fail(f"--{name.replace('_', '-')} is for llcuda-server (HOST:PORT), and none is named")
    if arguments.api_key_file is not None and not any(urls):
        fail("--api-key-file is for a llama-server (http://…), and none is named")


if __name__ == "__main__":
    sys.exit(main())
