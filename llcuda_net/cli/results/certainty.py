"""How certain the model was, for people: figures, and the least certain words marked."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from llcuda_net.analysis.certainty import least_certain, shown_stats, span_text
from llcuda_net.storage.records import Logprobs
from llcuda_net.storage.results.interface import CertaintyStats
from llcuda_net.util.terminal import harmless, wants_colour

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


def figures_of_text(
    pieces: Sequence[str], logprobs: Logprobs, figures: CertaintyStats
) -> list[tuple[str, str]]:
    """The figures with their names, and the least certain span with its text."""
    pairs = shown_stats(figures)
    if figures.span_surprisal is not None:
        first, behind = figures.least_certain
        where = f"tokens {first} to {behind - 1}, {figures.span_surprisal:.3g} nats each"
        span = span_text(pieces, logprobs, figures.least_certain)
        pairs.append(("least certain", f"{span.strip()!r} ({where})"))
    return pairs
