#!/usr/bin/env python3
"""Tokens/s of a real llama-server, asked directly and through llcuda-server, by streams."""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shlex
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any
from zlib import crc32

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "protocol")]  # runs from anywhere, without being installed

from llcuda_net.cli.common import Parser
from llcuda_net.config.upstreams import BaseUrl
from llcuda_net.util.terminal import echo, is_clever, status_line
from tools.load.streams import LoadError
from tools.overhead.processes import Child, StartError, llcuda_server
from tools.slots.report import summary, table
from tools.slots.runs import Address, Run, ask, measure, settle
from tools.slots.workload import KINDS, Sizes, words

EXAMPLE = """\
example:
  python tools/random_model.py --shape 8b --output 8b.gguf
  python tools/bench_slots.py --budget 300 --json slots.json \\
      --llama "llama-server -m 8b.gguf -ngl 99 --parallel 32 -c 65536 --no-kv-unified"
  python tools/bench_slots.py --upstream http://127.0.0.1:8080 --streams 8 --workload distinct

Each repeat takes every way in turn, and begins with another one. Streams are always full: each asks
again as soon as it is answered. "distinct": no two prompts have anything in common; "one": all ask
the same; "conversations": all begin with the same instructions, and each stream goes on with two
of them in turn, so that twice as many are held as are at work.
The ratio is that of tokens/s in the same repeat: geometric mean and 95 % interval (Student's, of
the logarithms). What counts as 97 % has its lower end at 0.95 or above.

exit codes: 0 measured, 1 an answer went wrong or nothing started, 2 usage
"""
#: Seconds for a llama-server to load its model.
LOADING = 300.0
#: Seconds that a run takes beside its warm-up and window, roughly: it begins, and slots settle.
BESIDE = 0.3
STREAMS = (1, 4, 8, 16, 24, 32)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    out = Parser(description=__doc__, epilog=EXAMPLE)
    beside = str(Path(sys.executable).with_name("llcuda-server"))
    of = out.add_mutually_exclusive_group(required=True)
    of.add_argument(
        "--llama", metavar="COMMAND", help="starts a llama-server; host and port are added"
    )
    of.add_argument("--upstream", metavar="URL", help="one that runs")
    out.add_argument("--server", default=beside, metavar="COMMAND", help="default: %(default)s")
    out.add_argument("--against", metavar="COMMAND", help="another llcuda-server, in turn with it")
    out.add_argument(
        "--durability", choices=("memory", "process", "disk", "strict"), default="disk"
    )
    out.add_argument("--streams", type=_numbers, default=STREAMS, help="default: 1,4,8,16,24,32")
    out.add_argument(
        "--workload", action="append", choices=KINDS, dest="kinds", help="default: all three"
    )
    out.add_argument("--repeats", type=int, help="of each way (default 3)")
    out.add_argument("--seconds", type=float, help="of each window (default 3)")
    out.add_argument("--warmup", type=float, help="seconds before it (default 0.5)")
    out.add_argument(
        "--budget", type=float, help="seconds for all: windows are as long as it allows"
    )
    out.add_argument("--answer", type=int, default=64, help="tokens, in the mean (default 64)")
    out.add_argument("--prompt", type=int, default=40, help="words of a prompt (default 40)")
    out.add_argument(
        "--system", type=int, default=300, help="words all conversations share (default 300)"
    )
    out.add_argument(
        "--context", type=int, default=2048, help="tokens of a slot at most (default 2048)"
    )
    out.add_argument("--seed", type=int, default=1)
    out.add_argument("--quick", action="store_true", help="1 and 8 streams, 2 repeats of 1 s")
    out.add_argument("--json", type=Path, metavar="FILE", help="write everything there")
    return out


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


class Bench:
    """All runs. `runs` fills while it goes on, so that one that is interrupted can still report."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.kinds: Sequence[str] = args.kinds or KINDS
        self.streams: Sequence[int] = (1, 8) if args.quick else args.streams
        self.repeats: int = args.repeats or (2 if args.quick else 3)
        self.warmup: float = args.warmup if args.warmup is not None else 0.5
        self.seconds: float = args.seconds or (1.0 if args.quick else 3.0)
        ways = 2 + (args.against is not None)
        self.total = len(self.kinds) * len(self.streams) * self.repeats * ways
        if args.budget:
            left = args.budget / self.total - self.warmup - BESIDE
            self.seconds = max(0.5, left)
        self.runs: list[Run] = []
        self.properties: dict[str, Any] = {}

    def all(self) -> None:
        """Start what must be started, and measure.

        Raises:
            LoadError, StartError: something went wrong.
        """
        args = self.args
        with ExitStack() as stack:
            upstream = self._upstream(stack)
            self.properties = ask(upstream, "/props")
            sizes = self._sizes(upstream)
            ways = {"direct": upstream}
            commands = {"llcuda": args.server, "against": args.against}
            for way, command in commands.items():
                if command is not None:
                    server = llcuda_server(command, upstream, args.durability)
                    ways[way] = stack.enter_context(server).address
            for way, address in ways.items():  # clocks, caches, connections
                measure(way, address, "distinct", 4, sizes, args.seed, -1, 1.0, 0.0)
                settle(upstream)
            self._measure(upstream, ways, sizes)

    def _measure(self, upstream: Address, ways: dict[str, Address], sizes: Sizes) -> None:
        names = list(ways)
        clever = is_clever(sys.stderr)
        for kind, count, repeat in product(self.kinds, self.streams, range(self.repeats)):
            # Other prompts in each repeat, so that nothing that is held helps a later one.
            seed = crc32(f"{self.args.seed} {kind} {count} {repeat}".encode())
            at = repeat % len(names)
            for way in names[at:] + names[:at]:
                if clever:
                    where = f"{len(self.runs)}/{self.total} {kind} {count} {way}"
                    status_line(where, sys.stderr)
                address, seconds, warmup = ways[way], self.seconds, self.warmup
                run = measure(way, address, kind, count, sizes, seed, repeat, seconds, warmup)
                self.runs.append(run)
                settle(upstream)
        if clever:
            status_line("", sys.stderr)

    def _upstream(self, stack: ExitStack) -> Address:
        if self.args.upstream is not None:
            url = BaseUrl.parse(self.args.upstream)
            return url.host, url.port
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port: int = probe.getsockname()[1]
        command = [*shlex.split(self.args.llama), "--host", "127.0.0.1", "--port", str(port)]
        child = stack.enter_context(Child("llama-server", command, port, patience=LOADING))
        deadline = time.monotonic() + LOADING
        while True:
            try:
                ask(child.address, "/health")
                return child.address
            except LoadError:
                if time.monotonic() > deadline:
                    raise StartError(f"llama-server did not load: {child.said()}") from None
                time.sleep(0.2)

    def _sizes(self, upstream: Address) -> Sizes:
        """Requests that fit into a slot, by how many characters a token has."""
        args, text = self.args, words(random.Random(0), 200)
        tokens = len(ask(upstream, "/tokenize", {"content": text})["tokens"])
        # Where the cache is unified this is the size of all of it.
        context = int(self.properties["default_generation_settings"]["n_ctx"])
        context = min(context, args.context)
        room = context - 2 * args.answer - 16
        longest = int((room - args.prompt * tokens / 200 - 8) * len(text) / tokens)
        system = min(args.system, int(longest / 2 / 7))
        return Sizes(min(args.prompt, system), system, args.answer, longest)

    def report(self) -> dict[str, Any]:
        """Everything, for JSON."""
        return {
            "schema": 1,
            "when": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": {"platform": platform.platform(), "cores": os.cpu_count()},
            "command": shlex.join(sys.argv),
            "settings": {k: str(v) for k, v in vars(self.args).items()},
            "slots": self.properties.get("total_slots"),
            "build": self.properties.get("build_info"),
            "model": self.properties.get("model_path"),
            "seconds": self.seconds,
            "summary": summary(self.runs),
            "runs": [run.as_dict() for run in self.runs],
        }


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool; returns its exit code."""
    args = parser().parse_args(argv)
    bench, failure, began = Bench(args), "", time.monotonic()
    try:
        bench.all()
    except (LoadError, StartError) as error:
        failure = str(error)
    except KeyboardInterrupt:
        failure = "interrupted"
    if bench.runs:
        echo(table(summary(bench.runs)))
        took = time.monotonic() - began
        echo(
            f"{len(bench.runs)} of {bench.total} runs of {bench.seconds:.1f} s, {took:.0f} s in all"
        )
    if args.json is not None:
        args.json.write_text(json.dumps(bench.report(), indent=1) + "\n", "utf-8")
    if failure:
        echo(f"bench_slots: {failure}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
