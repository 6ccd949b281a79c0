"""How llcuda-client shows an answer: text on stdout, progress and reasoning on stderr."""

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from llcuda_net.cli.client.options import prog
from llcuda_net.cli.tables import fit
from llcuda_net.client.stream import (
    Channel,
    Durable,
    Piece,
    Queued,
    Result,
    Spliced,
    ToolCall,
)
from llcuda_net.sync import Stream
from llcuda_net.util.repetition import RepetitionDetector, notice
from llcuda_net.util.terminal import (
    echo,
    echo_data,
    harmless,
    is_clever,
    is_terminal,
    one_line,
    paint,
    status_line,
    wants_colour,
)

#: Width of a terminal that does not report one.
_COLUMNS = 80


class Output(Protocol):
    """Takes the events of one answer, in this order; `close` comes last, whatever happens."""

    def accepted(self, stream: Stream) -> None:
        """The server has taken the request."""

    def queued(self, queued: Queued) -> None:
        """The queue has moved."""

    def piece(self, piece: Piece) -> None:
        """A piece has come, of the text or of another channel."""

    def durable(self, pieces: int) -> None:
        """So many pieces can no longer be lost."""

    def spliced(self, spliced: Spliced) -> None:
        """Another upstream generates the pieces from here on."""

    def done(self, result: Result) -> None:
        """The answer is complete."""

    def close(self) -> None:
        """No more will come: leave the terminal tidy."""


def show(stream: Stream, output: Output, *, stop: str = "Ctrl-C stops it") -> Result:
    """Show a stream to its end; a note says so where the answer repeats itself, once.

    Args:
        stop: how its reader stops the answer, for that note.

    Raises:
        what reading the stream raises; OSError if stdout cannot be written to.
    """
    detector: RepetitionDetector | None = RepetitionDetector()
    try:
        output.accepted(stream)
        for event in stream.events():
            if isinstance(event, Queued):
                output.queued(event)
            elif isinstance(event, Durable):
                output.durable(event.pieces)
            elif isinstance(event, Spliced):
                output.spliced(event)
            else:
                output.piece(event)
                if detector and (block := detector.add((event.id, event.text))) is not None:
                    detector = None
                    advice = f"{stop}; --repeat-penalty 1.1 makes it less likely"
                    print_note(prog(), f"{notice(block)}. {advice}")
        output.done(stream.result)
    finally:
        output.close()
    return stream.result


class Waiting:
    """One line on stderr while nothing has come yet; on terminals only.

    Written by hand, where `cli.progress` uses rich: importing rich would delay the first token.
    """

    def __init__(self) -> None:
        self._wanted = is_clever(sys.stderr)
        self._shown = False
        self._thinks = False

    def show(self, queued: Queued) -> None:
        """Show its place in the queue, the estimated wait, and the reason."""
        if self._wanted:
            # What is wider than the terminal would wrap into a second line, which is never erased.
            line = fit(one_line(waiting_line(queued)), _columns() - 1)
            self._write(line)

    def thinking(self) -> None:
        """Show that the model thinks, where what it thinks is not shown."""
        if self._wanted and not self._thinks:
            self._thinks = True
            self._write("thinking...")

    def erase(self) -> None:
        """Take the line away, if it is there."""
        if self._shown:
            with writing:
                status_line("", sys.stderr)
            self._shown = self._thinks = False

    def _write(self, line: str) -> None:
        with writing:
            status_line(paint(line, "2", sys.stderr), sys.stderr)
        self._shown = True


def waiting_line(queued: Queued) -> str:
    """The line for a person who waits."""
    if not queued.position:
        return "waiting..."
    wait = "" if queued.wait is None else f", {_about(queued.wait)}"
    reason = f": {queued.reason}" if queued.reason else ""
    return f"waiting... position {queued.position}{wait}{reason}"


def _columns() -> int:
    with suppress(OSError, ValueError):
        return os.get_terminal_size(sys.stderr.fileno()).columns or _COLUMNS
    return _COLUMNS


def _about(seconds: float) -> str:
    """An estimate, no more exact than it is."""
    if seconds < 99.5:
        return f"about {max(1, round(seconds))} s"
    if seconds < 99.5 * 60:
        return f"about {round(seconds / 60)} min"
    return f"about {round(seconds / 3600)} h"


@dataclass(slots=True)
class Cursor:
    """Where the terminal's cursor stands.

    Attributes:
        begun: behind an unfinished line of text.
    """

    begun: bool = False


#: Notes come from the client's own thread, so one lock guards the cursor and the terminal.
cursor = Cursor()
writing = threading.RLock()


def print_note(prog: str, text: str) -> None:
    """One line on stderr about the connection or the answer, on a terminal line of its own."""
    if sys.stderr is None:
        return
    with writing, suppress(OSError, ValueError):
        if cursor.begun and is_terminal(sys.stderr):
            echo(file=sys.stderr)
            cursor.begun = False
        elif is_clever(sys.stderr):
            status_line("", sys.stderr)
        line = paint(harmless(text), "2", sys.stderr)
        echo(f"{prog}: {line}", file=sys.stderr, flush=True, styled=True)


class TextOutput:
    """The text as it comes, or all at once at the end; it always ends with a newline.

    Tool calls are lines of their own, each once it is whole. Reasoning goes to stderr, dimmed.

    Args:
        at_once: write nothing before the answer is complete.
        think: write the reasoning.
    """

    def __init__(self, *, at_once: bool = False, think: bool = False) -> None:
        self._at_once = at_once
        self._think = think
        self._thought = ""  # its last character, while the reasoning goes on
        self._call: tuple[Channel, list[str]] | None = None  # that goes on
        self._waiting = Waiting()
        self._last = ""
        self._stopped = False  # in the middle of the text, and a note has said so

    def accepted(self, stream: Stream) -> None:
        """Show that it waits."""
        self._waiting.show(Queued(stream.position, stream.wait, stream.reason))

    def queued(self, queued: Queued) -> None:
        """Show where it waits; in the middle of the text a note does."""
        if not self._last:
            self._waiting.show(queued)
        elif queued.position and not self._stopped:
            self._stopped = True
            print_note(prog(), waiting_line(queued))

    def piece(self, piece: Piece) -> None:
        """Print it, unless it is of a tool call that goes on."""
        if self._at_once:
            return
        channel = piece.channel
        if self._call is not None and self._call[0] != channel:
            self._end_call()
        if channel.kind == "text":
            self._write(piece.text)
        elif channel.kind == "reasoning":
            self._write_thought(piece.text)
        elif channel.kind == "tool_call":
            if self._call is None:
                self._call = (channel, [])
            self._call[1].append(piece.text)

    def durable(self, pieces: int) -> None:
        """Not shown in text."""

    def spliced(self, spliced: Spliced) -> None:
        """Say where: it might have continued differently; where it did, only the server knows."""
        reason = f": {one_line(spliced.reason)}" if spliced.reason else ""
        print_note(prog(), f"continued at token {spliced.position} after a failure{reason}")

    def done(self, result: Result) -> None:
        """Print what is not printed yet."""
        if self._at_once:
            self._write_thought(result.reasoning)
            self._write(result.text)
            for call in result.tool_calls:
                self._write_call(call)
        self._end_call()
        self._end_thought()
        if self._last != "\n":
            self._write("\n")

    def close(self) -> None:
        """Erase the progress; end an unfinished line on a terminal."""
        self._waiting.erase()
        self._end_thought()
        if cursor.begun:
            self._write("\n")

    def _write_thought(self, text: str) -> None:
        if not self._think:
            if text and not self._last:
                self._waiting.thinking()
            return
        if not self._thought:
            text = text.lstrip("\n")
        if not text or sys.stderr is None:
            return
        with writing:
            self._waiting.erase()
            if not self._thought:
                if cursor.begun:  # within the text, on a terminal
                    echo(file=sys.stderr)
                if not wants_colour(sys.stderr):  # nothing else tells it from the answer
                    echo("thinking:", file=sys.stderr)
            self._thought = text[-1]
            cursor.begun = is_terminal(sys.stderr) and self._thought != "\n"
            line = paint(harmless(text), "2", sys.stderr)
            echo(line, end="", file=sys.stderr, flush=True, styled=True)

    def _end_thought(self) -> None:
        """Leave an empty line between the reasoning and the answer."""
        if self._thought:
            with writing:
                echo("" if self._thought == "\n" else "\n", file=sys.stderr, flush=True)
                self._thought = ""
                cursor.begun = False

    def _end_call(self) -> None:
        if self._call is not None:
            channel, arguments = self._call
            self._call = None
            self._write_call(ToolCall(channel.id, channel.name, "".join(arguments)))

    def _write_call(self, call: ToolCall) -> None:
        """A line with the tool's name and its arguments."""
        self._end_thought()
        if self._last not in ("", "\n"):
            self._write("\n")
        with writing:
            self._waiting.erase()
            name = paint(one_line(call.name), "1", sys.stdout)
            echo(f"{name} {one_line(call.arguments)}", flush=True, styled=True)
            self._last = "\n"

    def _write(self, text: str) -> None:
        if text:
            self._end_thought()
            with writing:
                self._waiting.erase()
                self._stopped = False
                self._last = text[-1]
                cursor.begun = is_terminal(sys.stdout) and self._last != "\n"
                echo_data(text)
