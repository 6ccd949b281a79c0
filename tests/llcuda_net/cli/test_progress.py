"""The progress of a long work: one line on terminals, which goes when it is done."""

from __future__ import annotations

import io
import sys

import pytest

from llcuda_net.cli import progress


class Screen(io.StringIO):
    """Standard error, a terminal or not."""

    def __init__(self, *, terminal: bool) -> None:
        super().__init__()
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(progress, "_PAUSE", 0)


def counted(monkeypatch: pytest.MonkeyPatch, *, terminal: bool, alone: bool = True) -> str:
    screen = Screen(terminal=terminal)
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(sys, "stdout", Screen(terminal=terminal))
    with progress.Progress("verified", alone=alone) as shown:
        shown.add(1200)
        shown.erase()
        shown.add(3)
    assert shown.count == 1203
    return screen.getvalue()


def test_progress_is_for_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    assert counted(monkeypatch, terminal=False) == ""
    # Beside the command's own output on the same terminal there is no room for it.
    assert counted(monkeypatch, terminal=True, alone=False) == ""
    monkeypatch.setenv("TERM", "dumb")
    assert counted(monkeypatch, terminal=True) == ""


def test_progress_is_replaced_and_taken_away(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = counted(monkeypatch, terminal=True)
    rest = shown.partition("verified: 1,200")[2]
    assert "verified: 1,203" in rest
    assert shown.endswith("\x1b[2K")  # the line is erased
    assert shown.count("\x1b[?25h") == shown.count("\x1b[?25l") == 2  # the cursor is back
    assert "\x1b[2m" not in shown  # NO_COLOR
    monkeypatch.delenv("NO_COLOR")
    assert "\x1b[2mverified: 1,200" in counted(monkeypatch, terminal=True)


def test_what_is_wider_than_the_terminal_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen(terminal=True)
    monkeypatch.setattr(sys, "stderr", screen)
    with progress.StatusLine() as line:
        line.show("x" * 100)
    assert "x" * 39 + "…" in screen.getvalue()
    assert "x" * 40 not in screen.getvalue()
