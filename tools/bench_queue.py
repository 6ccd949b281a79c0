#!/usr/bin/env python3
"""Whether those who wait are felt by those whose answers flow: thousands queued beside streams.

A synthetic upstream with few slots answers some long requests. Thousands more are queued by another
process; some slots are left to them, so that the queue moves all the time.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "protocol")]  # runs from anywhere, without being installed

import msgspec

from llcuda_net.cli.common import Parser
from llcuda_net.util.quantile import quantile
from llcuda_net.util.terminal import echo
from llcuda_protocol import Accepted
from tools.load.loop import LoadLoop
from tools.load.streams import LlcudaConnection, Recorder, Request
from tools.overhead.processes import Child, synthetic_upstream
from tools.overhead.usage import Usage

EXAMPLE = """\
examples:
  python tools/bench_queue.py --waiting 5000
  python tools/bench_queue.py --waiting 5000 --users 5000 --against ../older/.venv/bin/llcuda-server
  python tools/bench_queue.py --waiting 1000 --http

"alone": before anything is queued; "joining": while the others come; "queued": with all of them.
Delays are from a token's emission by the upstream to its arrival, of the streams that flow.

exit codes: 0 measured, 1 tokens were lost, 2 usage
"""
#: Tokens of a request that waits, once it runs.
_SHORT = 5
#: Most streams of one connection.
_MOST_STREAMS = 1000


def parser() -> argparse.ArgumentParser:
    """The command line."""
    out = Parser(description=__doc__.splitlines()[0] if __doc__ else None, epilog=EXAMPLE)
    out.add_argument("--waiting", type=int, default=5000, help="requests queued (%(default)s)")
    out.add_argument("--users", type=int, default=1, help="who ask them (%(default)s)")
    out.add_argument("--http", action="store_true", help="the queued ones over HTTP")
    out.add_argument("--flowing", type=int, default=8, help="streams that flow (%(default)s)")
    out.add_argument("--moving", type=int, default=2, help="slots left to others (%(default)s)")
    out.add_argument("--rate", type=float, default=50.0, help="tokens/s a stream (%(default)s)")
    out.add_argument("--seconds", type=float, default=8.0, help="of a window (%(default)s)")
    out.add_argument("--repeats", type=int, default=1)
    beside = str(Path(sys.executable).with_name("llcuda-server"))
    out.add_argument("--server", default=beside, metavar="COMMAND")
    out.add_argument("--against", metavar="COMMAND", help="another llcuda-server, in turn with it")
    out.add_argument("--json", type=Path, metavar="FILE")
    out.add_argument("--crowd", action="store_true", help=argparse.SUPPRESS)
    return out


# -- those who wait, in a process of their own ----------------------------------------------------


class _Crowd(LlcudaConnection):
    """Queues requests, and reads whatever comes.

    Attributes:
        accepted: how many are queued.
    """

    accepted = 0

    def _feed(self, data: bytes, now: int) -> None:
        self._protocol.receive_data(data)
        while (event := self._protocol.next_event()) is not None:
            self.accepted += type(event) is Accepted


class _HttpCrowd:
    """The same over HTTP, where a connection has one request.

    Attributes:
        accepted: whether it is queued: then a comment says so.
    """

    def __init__(self, address: tuple[str, int], token: str | None, number: int) -> None:
        self.sock = socket.create_connection(address)
        body = msgspec.json.encode(
            {
                "messages": [{"role": "user", "content": f"wait {number}"}],
                "max_tokens": _SHORT,
                "stream": True,
            }
        )
        keys = f"Authorization: Bearer {token}\r\n" if token else ""
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: {address[0]}:{address[1]}\r\n{keys}"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self.sock.sendall(head.encode() + body)
        self.sock.setblocking(False)
        self.accepted = 0

    def ready(self) -> None:
        """Read and forget."""
        self.sock.recv(65_536)
        self.accepted = 1

    def close(self) -> None:
        """Close it."""
        self.sock.close()


def crowd(plan: dict[str, Any]) -> None:
    """Queue requests, say so, and read until stdin is closed."""
    address = (plan["host"], plan["port"])
    tokens: list[str | None] = plan["tokens"] or [None]
    waiting = plan["waiting"]
    loop = LoadLoop()
    count = max(len(tokens), -(-waiting // _MOST_STREAMS))
    connections: list[_Crowd | _HttpCrowd] = []
    for number in range(waiting):
        token = tokens[number % len(tokens)]
        if plan["http"]:
            connections.append(_HttpCrowd(address, token, number))
            loop.add(connections[-1])  # type: ignore[arg-type]
            continue
        if number < count:
            connections.append(_Crowd(address, Recorder(), False, token))
            loop.add(connections[-1])  # type: ignore[arg-type]
        one = connections[number % count]
        assert isinstance(one, _Crowd)
        one.begin(Request(f"wait {number}", _SHORT))
        if number % 10 == 9:
            loop.run(0.001)
    while sum(one.accepted for one in connections) < waiting:
        loop.run(0.1)
    echo(f"queued {waiting}")
    sys.stdout.flush()
    loop.run(1e6)


# -- those that flow ------------------------------------------------------------------------------


def window(loop: LoadLoop, recorder: Recorder, server: Child, seconds: float) -> dict[str, float]:
    """Read for some seconds; delays in milliseconds, CPU in seconds per second."""
    del recorder.delays_ns[:]
    recorder.recording = True
    before, began = server.usage(), time.monotonic()
    loop.run(seconds)
    return _figures(recorder, before, server.usage(), time.monotonic() - began)


def _figures(recorder: Recorder, before: Usage, after: Usage, took: float) -> dict[str, float]:
    recorder.recording = False
    delays = [ns / 1e6 for ns in recorder.delays_ns]
    return {
        "p50": quantile(delays, 0.5) or float("nan"),
        "p99": quantile(delays, 0.99) or float("nan"),
        "max": max(delays),
        "tokens": len(delays),
        "seconds": took,
        "cpu": (after.cpu - before.cpu) / took,
        "memory": after.peak_bytes,
    }


def measure(command: str, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """One server's figures, by phase."""
    rows: dict[str, dict[str, float]] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        tokens = [secrets.token_hex(16) for _ in range(options.users)] if options.users > 1 else []
        flow = secrets.token_hex(16) if tokens else None
        upstream = stack.enter_context(
            synthetic_upstream(
                "--stamp",
                *("--rate", str(options.rate), "--ctx", "1000000"),
                *("--slots", str(options.flowing + options.moving)),
            )
        )
        most = str(options.waiting + options.users + 100)
        arguments = [
            *(command, "--port", "0", "--upstream", "http://{}:{}".format(*upstream.address)),
            *("--data-dir", "{folder}/data", "--no-analysis", "--max-queue", most),
            *("--max-streams", most, "--max-connections", most),
        ]
        if tokens:
            path = folder / "tokens"
            lines = [f"{flow} name=flow weight=1000000"]
            lines += [f"{token} name=user{number}" for number, token in enumerate(tokens)]
            path.write_text("\n".join(lines) + "\n", encoding="utf-8")
            path.chmod(0o600)
            arguments += ["--auth-token-file", str(path)]
        server = stack.enter_context(Child("llcuda-server", arguments))
        recorder, loop = Recorder(), LoadLoop()
        for number in range(options.flowing):
            connection = LlcudaConnection(server.address, recorder, True, flow)
            stack.callback(connection.close)
            loop.add(connection)
            connection.ask(f"flow {number}", 1_000_000)
        loop.run(1.0)
        rows["alone"] = window(loop, recorder, server, options.seconds)
        plan = {
            "host": server.address[0],
            "port": server.address[1],
            "tokens": tokens,
            "waiting": options.waiting,
            "http": options.http,
        }
        before, began = server.usage(), time.monotonic()
        del recorder.delays_ns[:]
        recorder.recording = True
        others = subprocess.Popen(
            [sys.executable, __file__, "--crowd"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        stack.callback(others.wait)
        stack.callback(others.kill)
        assert others.stdin is not None
        assert others.stdout is not None
        others.stdin.write(json.dumps(plan).encode() + b"\n")
        others.stdin.flush()
        descriptor = others.stdout.fileno()
        os.set_blocking(descriptor, False)
        while not others.stdout.read(100):
            if others.poll() is not None:
                raise SystemExit("the others could not be queued")
            loop.run(0.05)
        took = time.monotonic() - began
        rows["joining"] = _figures(recorder, before, server.usage(), took)
        loop.run(1.0)
        rows["queued"] = window(loop, recorder, server, options.seconds)
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; returns the exit code."""
    options = parser().parse_args(arguments)
    if options.crowd:
        crowd(json.loads(sys.stdin.readline()))
        return 0
    found: list[dict[str, Any]] = []
    servers = [options.server, *([options.against] if options.against else [])]
    echo(f"{'server':8} {'phase':8} {'p50 ms':>8} {'p99 ms':>8} {'max ms':>8} {'CPU':>6} {'s':>6}")
    for _ in range(options.repeats):
        for command, name in zip(servers, ("this", "against"), strict=False):
            rows = measure(command, options)
            found.append({"server": name, **rows})
            for phase, row in rows.items():
                echo(
                    f"{name:8} {phase:8} {row['p50']:8.2f} {row['p99']:8.2f} {row['max']:8.2f} "
                    f"{row['cpu']:6.2f} {row['seconds']:6.1f}"
                )
    if options.json:
        options.json.write_text(json.dumps(found, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
