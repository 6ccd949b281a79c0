"""An answer with its least certain words marked, for people."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from llcuda_net.certainty import least_certain
from llcuda_net.cli.tables import harmless
from llcuda_net.storage.records import Logprobs
from llcuda_net.terminal import wants_colour

#: What the marks mean.
MARKS = "the least certain words marked"


def marked_text(pieces: Sequence[str], logprobs: Logprobs, *, exact: bool = False) -> str:
    """The text for stdout: marked words in colour, or as [word?] where there is no colour.

    Args:
        exact: leave control characters as they are; else they are made harmless.
    """
    text = "".join(pieces)
    begin, end = ("\x1b[1;33m", "\x1b[0m") if wants_colour(sys.stdout) else ("[", "?]")
    clean = str if exact else harmless
    out, last = "", 0
    for first, behind in least_certain(pieces, logprobs):
        out += clean(text[last:first]) + begin + clean(text[first:behind]) + end
        last = behind
    return out + clean(text[last:])
