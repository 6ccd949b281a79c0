"""The options that `llcuda-mpi` and `llcuda batch` share, and the job that they describe."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llcuda_net.cli.common import Exit, Parser, fail, print_error
from llcuda_net.errors import ConfigError
from llcuda_net.util.terminal import echo

if TYPE_CHECKING:
    from llcuda_net.batch.distributor import WorkQueue
    from llcuda_net.batch.input import Input
    from llcuda_net.batch.job import Done
    from llcuda_net.batch.mpi import Communicator
    from llcuda_net.batch.rank import Rank
    from llcuda_net.batch.targets.interface import Target

    Open = Callable[[], AbstractAsyncContextManager[Target]]

#: Rounds of --cuda-post.
_ITERATIONS = 1000
#: What both commands say of their files.
FILES = """\
Each line of the input is a JSON string, or an object with one of "prompt" (through the model's chat
template; or token ids), "raw" and "messages", and optionally "system", "id" and sampling
parameters. The input may be a pipe; "-" is standard input. Each line of the output has the line's
number and id, text, reason, usage, timings; or an error. Started again, the same command goes on
where it was stopped or killed; lines that failed in a way that may pass are tried again.
"""
CODES = """\
exit codes: 0 every line has its answer, 1 some lines failed (the output says which and why),
2 usage, or an input without any line, 3 a server could not be reached, 130 or 143 stopped
"""


def add(parser: Parser) -> None:
    """What to ask, and how."""
    group = parser.add_argument_group("what to ask")
    group.add_argument(
        *("--n-predict", "--max-tokens", "--n_predict"),
        dest="n_predict",
        type=int,
        default=256,
        metavar="N",
        help="tokens of each answer at most (256)",
    )
    group.add_argument("--temperature", type=float, metavar="T")
    group.add_argument("--seed", type=int, metavar="N", help="of every line's sampling")
    group.add_argument(
        "--param",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="any other sampling parameter by llama-server's name; VALUE is JSON, or text",
    )
    group = parser.add_argument_group("how")
    group.add_argument(
        "--inflight", type=int, default=4, metavar="N", help="requests at once, of each rank (4)"
    )
    group.add_argument(
        "--order",
        choices=("input", "done"),
        default="input",
        help="write results in the input's order (the default), or as they come",
    )
    group.add_argument("--retries", type=int, default=3, help="of a line that failed (3)")
    group.add_argument(
        "--patience",
        type=float,
        default=30.0,
        metavar="SECONDS",
        help="how long to try a server that was lost (30)",
    )
    group.add_argument(
        "--job", default="", metavar="WORD", help="other keys: ask again what another job has asked"
    )
    group.add_argument(
        "--cuda-post",
        action="store_true",
        help="run llcuda_kernels' post-processing load on each result, one GPU per rank",
    )
    group.add_argument(
        "--cuda-iters", type=int, metavar="N", help=f"with --cuda-post: its rounds ({_ITERATIONS})"
    )
    group.add_argument("--json", action="store_true", help="print the report as JSON on stdout")
    group.add_argument(
        "--base",
        metavar="FILE",
        help="also give the speedup against this report of --json, such as of one rank",
    )


def check(arguments: argparse.Namespace) -> dict[str, Any]:
    """The sampling parameters of the command.

    Raises:
        CommandError: an option makes no sense.
    """
    if arguments.cuda_iters is None:
        arguments.cuda_iters = _ITERATIONS
    elif not arguments.cuda_post:
        fail("--cuda-iters is of --cuda-post: give that, too")
    for name, least in (("n_predict", 1), ("inflight", 1), ("retries", 0), ("cuda_iters", 1)):
        if getattr(arguments, name) < least:
            fail(f"--{name.replace('_', '-')} must be at least {least}")
    if not arguments.patience >= 0:
        fail("--patience must not be negative")
    _check_files(arguments)
    params: dict[str, Any] = {"n_predict": arguments.n_predict}
    for name in ("temperature", "seed"):
        if getattr(arguments, name) is not None:
            params[name] = getattr(arguments, name)
    for text in arguments.param:
        name, equals, value = text.partition("=")
        if not name or not equals:
            fail(f"--param must be NAME=VALUE, not {text!r}")
        try:
            params[name] = json.loads(value)
        except (ValueError, RecursionError):
            params[name] = value
    return params


def _check_files(arguments: argparse.Namespace) -> None:
    output = Path(arguments.output)
    if str(output) == "-":
        fail("results are read again when a job goes on, so give a file, not standard output")
    with suppress(OSError):  # one is not there, or not on this rank's host
        given = os.fstat(0) if arguments.input == "-" else Path(arguments.input).stat()
        for name in ("", ".waiting"):
            there = output.resolve().with_name(output.resolve().name + name)
            if there.exists() and os.path.samestat(given, there.stat()):
                fail("the input and the output are the same file")
    with suppress(OSError):
        if arguments.json and os.path.samestat(os.fstat(1), output.stat()):
            fail("--json prints the report on standard output, which is the output file")


def run(
    prog: str,
    arguments: argparse.Namespace,
    communicator: Communicator,
    server: str,
    open_target: Open,
    params: dict[str, Any],
) -> int:
    """Run this rank's part of the job; returns its exit code.

    Raises:
        ConfigError: on rank 0: the input has no line, or it or the output cannot be used; once the
            job runs, after the other ranks have been let go.
    """
    from llcuda_net.batch import job, report
    from llcuda_net.batch.distributor import WorkQueue
    from llcuda_net.batch.output import Output
    from llcuda_net.batch.rank import Rank
    from llcuda_net.cli.run_async import run_async

    after = None
    if arguments.cuda_post:
        from llcuda_net.batch import post_process

        post_process.choose_gpu(communicator.local_rank)
        after, _ = post_process.prepare(None, arguments.cuda_iters, posting=True)
    rank = Rank(
        communicator,
        server,
        open_target,
        inflight=arguments.inflight,
        patience=arguments.patience,
        after=after,
    )
    if communicator.rank:
        run_async(job.run, communicator, rank, arguments.inflight, None, _quiet, _quiet)
        return Exit.OK
    base = None if arguments.base is None else report.read_base(Path(arguments.base))
    with closing(run_async(_read, arguments.input)) as given:
        if not given.count:
            raise ConfigError(f"{given.name} holds no prompt: there is nothing to do")
        with closing(Output(Path(arguments.output), ordered=arguments.order == "input")) as output:
            queue = WorkQueue(given, output, params, arguments.job, retries=arguments.retries)
            done = _work(prog, communicator, rank, arguments.inflight, queue, given.count)
    settings = {"inflight": arguments.inflight, "params": params, "cuda_post": arguments.cuda_post}
    found = report.document(queue, done, communicator.size, output.errors, given, settings, base)
    for line in report.lines(found):
        echo(line, file=sys.stderr)
    if arguments.json:
        echo(json.dumps(found))
    if done.stranded:
        left = given.count - queue.done - queue.skipped
        print_error(prog, f"no server is left for {left:,} lines: the same command goes on")
        return Exit.CONNECT
    if done.without:
        return Exit.CONNECT
    return Exit.REFUSED if queue.failed or output.errors else Exit.OK


async def _read(path: str) -> Input:
    """The input; in a thread, since a signal must end the wait for whoever writes a pipe."""
    import tempfile

    import trio

    from llcuda_net.batch.input import Input

    tempfile.gettempdir()  # it tries the folder with a file, which a thread left behind might leave
    return await trio.to_thread.run_sync(Input, path, abandon_on_cancel=True)


def _work(
    prog: str, communicator: Communicator, rank: Rank, inflight: int, queue: WorkQueue, total: int
) -> Done:
    """Rank 0's part of the work, with its progress on the terminal."""
    from llcuda_net.batch import job
    from llcuda_net.cli.progress import Ticker
    from llcuda_net.cli.run_async import run_async

    ticker = Ticker()

    def progress(state: WorkQueue) -> None:
        ticker.say(f"{state.done + state.skipped:,} of {total:,} lines, {state.out} under way")

    def note(text: str) -> None:
        ticker.erase()
        echo(f"{prog}: {text}", file=sys.stderr, flush=True)

    try:
        done = run_async(job.run, communicator, rank, inflight, queue, progress, note)
    finally:
        ticker.erase()
    assert done is not None  # on rank 0
    return done


def _quiet(what: object) -> None:
    """Only rank 0 reports."""
