"""What `make demo` runs: a server with the built-in model, a question, and the answer kept."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import FrameType
from typing import NoReturn

QUESTION = "What is llcuda?"
#: Seconds for the server to be ready: loading takes one, a first start on a slow disk more.
PATIENCE = 120.0


def main() -> int:
    """Run the demonstration; returns the exit code."""
    with tempfile.TemporaryDirectory(prefix="llcuda-demo-") as folder:
        # Not where the user keeps results of their own.
        return demonstrate({**plain_environment(), "LLCUDA_DATA_DIR": folder})


def demonstrate(environment: dict[str, str]) -> int:
    """Start a server, ask, show what was kept, stop the server; returns the exit code."""
    bin_ = Path(sys.executable).parent
    server_command = [str(bin_ / "llcuda-server"), "--port", "0", "--log-level", "warning"]
    say(f"$ {' '.join(['llcuda-server', *server_command[1:]])}")
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)
    # A group of its own, so that Ctrl-C reaches the server through us, once.
    server = subprocess.Popen(
        server_command,
        stdout=subprocess.PIPE,
        text=True,
        process_group=0,
        env=environment,
    )
    try:
        address = wait_for_address(server)
        client = ["llcuda-client", "--server", address, "--stats", "--temperature", "0", QUESTION]
        say(f'\n$ llcuda-client --server {address} --stats --temperature 0 "{QUESTION}"')
        code = subprocess.call([str(bin_ / client[0]), *client[1:]], env=environment)
        if code:
            fail(f"llcuda-client ended with exit code {code}")
        say("\n$ llcuda results list")
        code = subprocess.call([str(bin_ / "llcuda"), "results", "list"], env=environment)
        if code:
            fail(f"llcuda results ended with exit code {code}")
        say("\nstopping the server")
        server.send_signal(signal.SIGTERM)
        code = server.wait(60)
        if code:
            fail(f"llcuda-server ended with exit code {code}")
    except KeyboardInterrupt:
        return 130
    finally:
        if server.poll() is None:
            server.terminate()
            server.wait()
    say("done: a prompt went in over the protocol; a real model's answer came out, and was kept")
    return 0


def wait_for_address(server: subprocess.Popen[str]) -> str:
    """The address in the server's first line."""
    assert server.stdout is not None
    ready, _, _ = select.select([server.stdout], [], [], PATIENCE)
    line = server.stdout.readline().strip() if ready else ""
    if not line.startswith("listening on "):
        code = server.poll()
        fail(
            f"llcuda-server did not start within {PATIENCE:g} s"
            if code is None and not ready
            else f"llcuda-server did not start (exit code {server.wait(10)})"
        )
    say(line)
    return line.split()[-1]


def end(number: int, frame: FrameType | None) -> NoReturn:
    """End as signalled, but stop the server on the way."""
    sys.exit(128 + number)


def plain_environment() -> dict[str, str]:
    """The environment without the user's own settings of llcuda."""
    return {name: value for name, value in os.environ.items() if not name.startswith("LLCUDA_")}


def say(text: str) -> None:
    """Print at once, so that the order is right beside what the commands print."""
    print(text, flush=True)


def fail(text: str) -> NoReturn:
    """End with one line and exit code 1."""
    print(f"demo failed: {text}", file=sys.stderr)
    sys.exit(1)


if __name__ == "__main__":
    sys.exit(main())
