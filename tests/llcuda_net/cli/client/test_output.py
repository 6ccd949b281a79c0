"""What the command line draws on a terminal from two threads."""

from __future__ import annotations

import io
import threading

import pytest

from llcuda_net.cli.client import output
from llcuda_net.client.events import Queued


class Screen(io.StringIO):
    """A terminal that notes whether another thread could write between two writes."""

    def __init__(self) -> None:
        super().__init__()
        self.guarded: list[bool] = []

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        def free() -> None:
            got = output.writing.acquire(blocking=False)
            if got:
                output.writing.release()
            self.guarded.append(not got)

        other = threading.Thread(target=free)
        other.start()
        other.join()
        return super().write(text)


def test_a_waiting_line_and_a_note_never_share_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Notes come from the client's own thread: each has the terminal to itself."""
    screen = Screen()
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    waiting = output.Waiting()
    waiting.show(Queued(0, None, ""))
    output.print_note("prog", "connection lost")
    waiting.erase()
    assert screen.guarded
    assert all(screen.guarded)
    assert screen.getvalue() == "\r\x1b[Kwaiting...\r\x1b[Kprog: connection lost\n\r\x1b[K"
