"""A command on a terminal that is drawn: what is read is what somebody sees."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Mapping, Sequence

import pyte

from tests.support import processes

#: A bound for hangs, not a measurement.
PATIENCE = 120.0
#: Rows that are remembered above the screen.
_SCROLLBACK = 2000


class Screen:
    """A process on a pseudo-terminal, and the screen that it draws.

    Attributes:
        raw: all that it has written.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        *,
        columns: int = 80,
        rows: int = 24,
    ) -> None:
        self._screen = pyte.HistoryScreen(columns, rows, history=_SCROLLBACK, ratio=0.5)
        self._stream = pyte.ByteStream(self._screen)
        self.raw = b""
        self._master, slave = pty.openpty()
        _resize(slave, columns, rows)
        left_out = ("COLUMNS", "LINES", "NO_COLOR", "EDITOR", "VISUAL")
        self.process = subprocess.Popen(
            command,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            env={
                **{name: one for name, one in os.environ.items() if name not in left_out},
                "TERM": "xterm-256color",
                **environment,
            },
            preexec_fn=_own_terminal,
        )
        os.close(slave)

    def type(self, text: str) -> None:
        """As from a keyboard: `\\r` is Enter, `\\x1b\\r` Alt+Enter."""
        os.write(self._master, text.encode())

    def paste(self, text: str) -> None:
        """As a terminal pastes where that was asked for."""
        self.type(f"\x1b[200~{text}\x1b[201~")

    def resize(self, columns: int, rows: int) -> None:
        """Make the terminal another size."""
        self._screen.resize(rows, columns)
        _resize(self._master, columns, rows)
        self.process.send_signal(signal.SIGWINCH)

    @property
    def lines(self) -> list[str]:
        """The rows with something on them, those that have scrolled away, too."""
        above = [
            "".join(row[column].data for column in range(self._screen.columns))
            for row in self._screen.history.top
        ]
        return [line.rstrip() for line in (*above, *self._screen.display) if line.strip()]

    def until(self, seen: Callable[[list[str]], bool] | str) -> list[str]:
        """Read until there is a row with this text, or this is true of the rows; gives them."""
        is_seen = seen if callable(seen) else lambda rows: any(seen in row for row in rows)
        end = time.monotonic() + PATIENCE
        while not is_seen(self.lines):
            assert time.monotonic() < end, "\n".join(self.lines)
            if select.select([self._master], [], [], 0.2)[0]:
                try:
                    data = os.read(self._master, 65_536)
                except OSError:
                    raise AssertionError("it ended:\n" + "\n".join(self.lines)) from None
                self.raw += data
                self._stream.feed(data)
        return self.lines

    def prompt(self) -> None:
        """Read until it waits for a question."""
        self.until(lambda rows: bool(rows) and rows[-1] == ">")

    def end(self) -> int:
        """Read to its end; gives the exit code."""
        end = time.monotonic() + PATIENCE
        while True:
            assert time.monotonic() < end, "it does not end:\n" + "\n".join(self.lines)
            if not select.select([self._master], [], [], 0.2)[0]:
                continue
            try:
                data = os.read(self._master, 65_536)
            except OSError:  # how Linux reports the end
                break
            self.raw += data
            self._stream.feed(data)
        os.close(self._master)
        return self.process.wait(processes.PATIENCE)

    def close(self) -> None:
        """End it, whatever it does."""
        if self.process.poll() is None:
            self.process.kill()
            self.end()


def _resize(terminal: int, columns: int, rows: int) -> None:
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def _own_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
