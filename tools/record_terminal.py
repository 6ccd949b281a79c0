#!/usr/bin/env python3
"""Records the terminal of the README: an answer goes on after its server was killed.

Everything in it is done: a real model (SmolLM2, pulled from PyPI) answers behind a real server, the
server is killed with SIGKILL in the middle and started again, and what the client prints is drawn
when it came. Only the pauses before a command are made: they are how long it takes to read one.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # so that the script runs from anywhere

from llcuda_net.cli.common import Parser, fail, run_command
from llcuda_net.util.terminal import echo
from tools.demo import plain_environment
from tools.recording.drawing import Shown, drawing

PROG = "record_terminal"
DOCS = ROOT / "docs/images/terminal.svg"
QUESTION = "Write five sentences about the sea."
#: Characters of the answer after which the server is killed.
KILL_AFTER = 110
#: Seconds: of a pause before a command, between two typed characters, and for anything to happen.
_PAUSE, _KEY, _PATIENCE = 0.8, 0.035, 180.0


class Screen:
    """What was shown so far, on a clock that stands still while nothing happens on it."""

    def __init__(self) -> None:
        self.shown: list[Shown] = []
        self.now = 0.0

    def add(self, text: str, style: str = "out", after: float = 0.0) -> None:
        """A text appears, some seconds after what was before."""
        self.now += after
        self.shown.append(Shown(self.now, text, style))

    def type(self, command: str) -> None:
        """A command is typed, letter by letter."""
        self.add("$ ", "prompt", _PAUSE)
        for letter in command:
            self.add(letter, "typed", _KEY)
        self.add("\n", after=_KEY)


class Server:
    """An llcuda-server that can be killed and started again, on one port and one data directory."""

    def __init__(self, model: str, folder: Path) -> None:
        self._command = [sys.executable, "-m", "llcuda_net.cli.main", "serve", "--model", model]
        self._environment = {
            **plain_environment(),
            "LLCUDA_DATA_DIR": str(folder),
            "LLCUDA_LOG_LEVEL": "error",
        }
        self._port = free_port()
        self._process: subprocess.Popen[str] | None = None
        self.address = self.said = ""

    def start(self) -> None:
        """Start it, and wait until it listens."""
        command = [*self._command, "--port", self._port]
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env=self._environment
        )
        assert self._process.stdout is not None
        self.said = self._process.stdout.readline()
        if not self.said.startswith("listening on "):
            fail("llcuda-server did not start")
        self.address = self.said.split()[-1]
        self._port = self.address.rpartition(":")[2]

    @property
    def pid(self) -> int:
        """Of the process that runs."""
        assert self._process is not None
        return self._process.pid

    def end(self, number: signal.Signals) -> None:
        """Send it a signal, and wait until it is gone."""
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None


def free_port() -> str:
    """Where a server listens by default, unless that is taken; then any."""
    with socket.socket() as probe:
        return "0" if probe.connect_ex(("127.0.0.1", 9000)) == 0 else "9000"


def record(server: Server, screen: Screen) -> None:
    """Ask, kill, start again, and read to the end."""
    screen.type(f'llcuda ask "{QUESTION}"')
    command = [sys.executable, "-u", "-m", "llcuda_net.cli.main", "ask", QUESTION, "-n", "120"]
    asked = [*command, "--server", server.address, "--temperature", "0"]
    client = subprocess.Popen(
        asked, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=plain_environment()
    )
    assert client.stdout is not None
    assert client.stderr is not None
    said, killed, column_0 = 0, False, True
    last = time.monotonic()
    with selectors.DefaultSelector() as ready:
        streams: dict[IO[bytes], str] = {client.stdout: "out", client.stderr: "note"}
        for stream, style in streams.items():
            ready.register(stream, selectors.EVENT_READ, style)
        while ready.get_map():
            if not (found := ready.select(_PATIENCE)):
                fail("the client says nothing any more")
            for key, _ in found:
                text = os.read(key.fd, 65_536).decode()
                if not text:
                    ready.unregister(key.fileobj)
                    continue
                took, last = time.monotonic() - last, time.monotonic()
                if key.data == "note" and not column_0:
                    text = f"\n{text}"
                column_0 = text.endswith("\n")
                screen.add(text, key.data, took)
                said += len(text) if key.data == "out" else 0
            if said > KILL_AFTER and not killed:
                killed = True
                screen.add(f"\n  (elsewhere) kill -9 {server.pid}    # the server\n", "act", 0.3)
                server.end(signal.SIGKILL)
                screen.add("  (elsewhere) llcuda serve --model smollm2\n", "act", 0.8)
                server.start()
                column_0, last = True, time.monotonic()
    if client.wait() or not killed:
        fail(f"the client ended with {client.returncode}, and the server was killed: {killed}")


def make(arguments: object) -> int:
    """Record and write; returns the exit code."""
    path: Path = arguments.output  # type: ignore[attr-defined]
    model: str = arguments.model  # type: ignore[attr-defined]
    screen = Screen()
    with tempfile.TemporaryDirectory(prefix="llcuda-recording-") as folder:
        server = Server(model, Path(folder))
        try:
            screen.type("llcuda serve --model smollm2 &")
            server.start()
            screen.add(server.said, after=0.6)
            record(server, screen)
            screen.add("$ ", "prompt", _PAUSE)
        finally:
            server.end(signal.SIGTERM)
    title = "llcuda ask prints an answer; its server is killed and started again, and it goes on"
    path.write_text(drawing(screen.shown, title), "utf-8")
    echo(f"{path.name}: {len(screen.shown)} texts in {screen.now:.0f} s")
    return 0


def main() -> int:
    """Run the command; returns its exit code."""
    parser = Parser(
        prog=PROG,
        description=(__doc__ or "").partition("\n\n")[0],
        epilog="example: python tools/record_terminal.py --output terminal.svg",
    )
    parser.add_argument("--output", type=Path, default=DOCS, help="default: that of the docs")
    parser.add_argument("--model", default="smollm2", help="a name or a file (smollm2)")
    arguments = parser.parse_args()
    return run_command(PROG, lambda: make(arguments))


if __name__ == "__main__":
    sys.exit(main())
