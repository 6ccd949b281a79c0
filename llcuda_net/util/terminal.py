"""What a stream can show: whether it is a terminal, and whether colour is wanted."""

from __future__ import annotations

import os
from typing import TextIO


def is_terminal(stream: TextIO | None) -> bool:
    """Whether the stream exists, is open and is a terminal."""
    return stream is not None and not stream.closed and stream.isatty()


def is_clever(stream: TextIO | None) -> bool:
    """Whether it is a terminal that can erase a line."""
    return is_terminal(stream) and os.environ.get("TERM") != "dumb"


def wants_colour(stream: TextIO | None) -> bool:
    """Whether it can erase a line, and NO_COLOR (https://no-color.org) is not set."""
    return is_clever(stream) and not os.environ.get("NO_COLOR")
