"""The one way to print: text that comes from elsewhere cannot command the terminal.

Model names, messages of servers, paths, answers: any of them may hold escape sequences, which a
terminal obeys: they clear its screen, set its title, write to its clipboard. Everything that is
printed goes through this module, which shows what a terminal would obey as visible escapes
(`\\x1b`). Each character is judged by itself, so that it does not matter how a text was cut into
pieces. What we paint ourselves passes where a caller says so, and then only colours of `STYLES`.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

#: SGR codes with which our own text is painted; 0 ends them.
STYLES = ("0", "1", "2", "31", "32", "33", "1;33")

#: What a terminal obeys: C0 and DEL and C1, but for newline and tab; Unicode's own line breaks;
#: what turns the reading direction of what follows; and half characters, which no encoding has.
#: Marks of scripts that are written from the right, joiners and combining characters are text.
_CONTROLS = frozenset(
    {*range(32), *range(127, 160), *range(0x2028, 0x202F), *range(0x2066, 0x206A)}
    - {ord("\n"), ord("\t")}
) | frozenset(range(0xD800, 0xE000))
#: Above ASCII they are written as JSON does, so that JSON stays what it is.
_VISIBLE = {code: f"\\x{code:02x}" if code < 127 else f"\\u{code:04x}" for code in _CONTROLS}
_ONE_LINE = {**_VISIBLE, **dict.fromkeys(map(ord, "\t\n\v\f\r\x85\u2028\u2029"), " ")}
_FOUND = re.compile("[" + "".join(f"\\u{code:04x}" for code in sorted(_CONTROLS)) + "]")
_STYLE = re.compile("(\x1b\\[(?:" + "|".join(map(re.escape, STYLES)) + ")m)")
#: Any colour or style (SGR): of text that was harmless before it was painted.
_PAINT = re.compile(r"(\x1b\[[0-9;]*m)")
_ERASE = "\r\x1b[K"
#: Set by Open MPI's mpirun, which passes a rank's output on.
_RANK = "OMPI_COMM_WORLD_RANK"


def is_terminal(stream: TextIO | None) -> bool:
    """Whether the stream exists, is open and is a terminal."""
    return stream is not None and not stream.closed and stream.isatty()


def is_clever(stream: TextIO | None) -> bool:
    """Whether it is a terminal that can erase a line, and is this process's alone.

    Open MPI gives each rank a terminal of its own as stdout, whatever mpirun's output is: a pipe or
    a file, which no colour belongs in.
    """
    if _RANK in os.environ:
        return False
    return is_terminal(stream) and os.environ.get("TERM") != "dumb"


def wants_colour(stream: TextIO | None) -> bool:
    """Whether it can erase a line, and NO_COLOR (https://no-color.org) is not set."""
    return is_clever(stream) and not os.environ.get("NO_COLOR")


def harmless(text: str) -> str:
    """Text whose control characters are visible escapes, apart from newline and tab."""
    if not _FOUND.search(text):
        return text
    return text.replace("\r\n", "\n").translate(_VISIBLE)


def one_line(text: str) -> str:
    """Text on one line: line breaks and tabs are spaces, other control characters visible."""
    return text.translate(_ONE_LINE)


def paint(text: str, code: str, stream: TextIO) -> str:
    """Text in a colour of STYLES where the stream shows colours, else unchanged."""
    return f"\x1b[{code}m{text}\x1b[0m" if wants_colour(stream) else text


def echo(
    text: str = "",
    *,
    file: TextIO | None = None,
    end: str = "\n",
    flush: bool = False,
    styled: bool = False,
) -> None:
    """Print text for people, harmless wherever it goes.

    Args:
        file: stdout if None.
        styled: colours of `paint` stay, where the stream shows colours. Nothing else does.
    """
    stream = sys.stdout if file is None else file
    if stream is None:  # closed from the start
        return
    stream.write((_styled(text, stream, harmless) if styled else harmless(text)) + end)
    if flush:
        stream.flush()


def echo_data(text: str, *, exact: bool = False) -> None:
    """Write data to stdout at once: as it is, since a program reads it; harmless on a terminal.

    Args:
        exact: in UTF-8 whatever encoding the locale names, with "?" for half characters.
    """
    if is_terminal(sys.stdout):
        sys.stdout.write(harmless(text))
    elif exact:
        sys.stdout.flush()
        sys.stdout.buffer.write(text.encode("utf-8", "replace"))
    else:
        sys.stdout.write(text)
    sys.stdout.flush()


class StdoutFile:
    """Stdout as a binary file for data: as it is for a program; harmless UTF-8 on a terminal."""

    def write(self, data: bytes) -> int:
        """Write all of it; text is not cut within a character."""
        if is_terminal(sys.stdout):
            sys.stdout.write(harmless(data.decode("utf-8", "replace")))
        else:
            sys.stdout.buffer.write(data)
        return len(data)

    def flush(self) -> None:
        """Flush it."""
        sys.stdout.flush()


@contextmanager
def quiet_terminal() -> Iterator[None]:
    """What is typed within is not shown, and read afterwards: it would stand amid the output.

    Signals are sent as ever. Without a terminal on stdin nothing changes.
    """
    try:
        import termios

        descriptor = sys.stdin.fileno()
        before = termios.tcgetattr(descriptor)
    except (ImportError, AttributeError, OSError, ValueError, termios.error):
        yield
        return
    quiet = [*before]
    quiet[3] = before[3] & ~termios.ECHO
    termios.tcsetattr(descriptor, termios.TCSANOW, quiet)
    try:
        yield
    finally:
        with suppress(termios.error):  # it may be gone
            termios.tcsetattr(descriptor, termios.TCSANOW, before)


def status_line(text: str, file: TextIO) -> None:
    """Replace the line that a terminal's cursor is on; an empty text erases it.

    Only for terminals that can erase a line; the text, which may be painted, must fit on one.
    """
    file.write(_ERASE + _styled(text, file, one_line))
    file.flush()


def repaint(text: str, file: TextIO, *, up: int | None = None) -> None:
    """Write on from the cursor of a terminal; colours in the text stay, and nothing else does.

    Args:
        text: what has no colour of its own must have been made harmless before it was painted.
        up: first go up so many rows, to their beginning, and erase all from there on; None: stay.
    """
    lead = "" if up is None else "\r" + (f"\x1b[{up}A" if up else "") + "\x1b[J"
    parts = _PAINT.split(text)
    clean = "".join(part if place % 2 else harmless(part) for place, part in enumerate(parts))
    file.write(lead + clean)  # at once, so that no half of it is seen
    file.flush()


def _styled(text: str, stream: TextIO, clean: Callable[[str], str]) -> str:
    """The text made harmless, but for our own colours where the stream shows them."""
    if not wants_colour(stream):
        return clean(text)
    parts = _STYLE.split(text)  # at the odd places are colours
    return "".join(part if place % 2 else clean(part) for place, part in enumerate(parts))
