"""How a chat shows an answer on a terminal: Markdown, drawn as it comes."""

from __future__ import annotations

import shutil
import sys
import threading
import time

from llcuda_net.cli.chat.screen.painter import Painter
from llcuda_net.cli.client import output
from llcuda_net.client.events import ToolCall
from llcuda_net.util.terminal import wants_colour

#: Seconds between two drawings, at least; and how much longer than a drawing they are apart.
_PAUSE, _SHARE = 0.04, 4


class TerminalOutput(output.TextOutput):
    """The text as Markdown, its words wrapped at the terminal's width; plain with NO_COLOR.

    A thread draws, since a piece is not worth a drawing of its own. It holds the lock of all that
    writes to the terminal.
    """

    def __init__(self, *, think: bool = False) -> None:
        super().__init__(think=think)
        self._painter = Painter(sys.stdout, _size, colours=wants_colour(sys.stdout))
        self._news = threading.Event()
        self._over = threading.Event()
        self._broken: OSError | None = None
        self._drawer: threading.Thread | None = None

    def close(self) -> None:
        """Draw what is not drawn yet."""
        self._over.set()
        self._news.set()
        if self._drawer is not None:
            self._drawer.join()
        super().close()

    def _write(self, text: str) -> None:
        if not text:
            return
        if self._broken is not None:
            raise self._broken
        self._end_thought()
        with output.writing:
            self._waiting.erase()
            self._stopped = False
            self._last = text[-1]
            self._painter.add(text)
        if self._drawer is None:
            self._drawer = threading.Thread(target=self._run, name="llcuda-draw", daemon=True)
            self._drawer.start()
        self._news.set()

    def _write_thought(self, text: str) -> None:
        if text and self._last:
            self._draw(last=True)
        super()._write_thought(text)

    def _write_call(self, call: ToolCall) -> None:
        self._draw(last=True)
        super()._write_call(call)

    def _run(self) -> None:
        while not self._over.is_set():
            self._news.wait()
            self._news.clear()
            started = time.monotonic()
            self._draw()
            self._over.wait(max(_PAUSE, _SHARE * (time.monotonic() - started)))
        self._draw(last=True)

    def _draw(self, *, last: bool = False) -> None:
        with output.writing:
            if self._painter.is_within and not output.cursor.begun:  # a note came between
                self._painter.interrupted()
            try:
                if last:
                    self._painter.finish()
                else:
                    self._painter.draw()
            except OSError as error:
                self._broken = error
                self._over.set()
            output.cursor.begun = self._painter.is_within


def _size() -> tuple[int, int]:
    found = shutil.get_terminal_size()
    return found.columns, found.lines
