"""Commands as real processes: on pipes, and on a terminal of their own."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time
from collections.abc import Sequence
from typing import Any

from tests.support import processes

#: A bound for hangs, not a measurement.
PATIENCE = processes.PATIENCE


def spawn_client(*arguments: str, **options: Any) -> subprocess.Popen[bytes]:
    """llcuda-client on pipes."""
    # Buffered as for users, whatever the tests run under: a broken pipe then shows up late.
    environment = {**os.environ, **options.pop("env", {})}
    environment.pop("PYTHONUNBUFFERED", None)
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options, "env": environment}
    return subprocess.Popen(processes.command("client", *arguments), **options)


class Terminal:
    """llcuda-client on a terminal of its own."""

    def __init__(self, *arguments: str, **environment: str) -> None:
        self.master, slave = pty.openpty()
        self.process = spawn_client(
            *arguments,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            env={"TERM": "xterm", **environment},
            preexec_fn=_own_terminal,
        )
        os.close(slave)
        self.seen = ""

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def until(self, wanted: str, again: str = "") -> str:
        """Read until this shows up, typing `again` meanwhile; gives what came, and with it this."""
        deadline = time.monotonic() + PATIENCE
        while wanted not in self.seen:
            assert time.monotonic() < deadline, self.seen
            if select.select([self.master], [], [], 0.5)[0]:
                try:
                    self.seen += os.read(self.master, 4096).decode()
                except OSError:
                    raise AssertionError(f"it ended: {self.seen!r}") from None
            elif again:
                self.type(again)
        found, _, self.seen = self.seen.partition(wanted)
        return found + wanted

    def end(self) -> int:
        code = self.process.wait(PATIENCE)
        os.close(self.master)
        return code


def _own_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def on_a_terminal(command: Sequence[str], columns: int) -> str:
    """What a terminal of this width shows of a command that ends well."""
    master, slave = pty.openpty()
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    # The environment may name another size, which would count for more than the terminal's.
    environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES")}
    process = subprocess.Popen(
        command, stdin=slave, stdout=slave, stderr=slave, env={**environment, "TERM": "xterm"}
    )
    os.close(slave)
    seen = b""
    try:
        while data := os.read(master, 65_536):
            seen += data
    except OSError:  # how Linux reports the end
        pass
    os.close(master)
    assert process.wait(PATIENCE) == 0, seen
    return seen.decode().replace("\r\n", "\n")
