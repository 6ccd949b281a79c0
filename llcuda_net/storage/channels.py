"""The channels of an answer: where its log changes between text, reasoning and tool calls.

A log is one list of pieces, in the order in which they were made. Switches say from which piece on
it is of which channel; before the first one it is text. An answer of text alone has none, and costs
nothing more.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from operator import attrgetter
from typing import NamedTuple

TEXT, REASONING, TOOL_CALL = "text", "reasoning", "tool_call"


class Switch(NamedTuple):
    """From entry `position` of a log on, up to the next switch, it is of this channel.

    Entries before the first one are text. The entry at `position` is always there, empty where a
    tool call has no arguments yet.

    Attributes:
        kind, index, id, name: as in upstream.interface.Channel.
    """

    position: int
    kind: str
    index: int = 0  # type: ignore[assignment]  # not the method of tuples
    id: str = ""
    name: str = ""


#: What a log begins as.
BEGINNING = Switch(0, TEXT)
_position = attrgetter("position")


class Part(NamedTuple):
    """Entries `first` up to `behind` of a log, which are of one channel."""

    first: int
    behind: int
    channel: Switch


def channel_at(switches: Sequence[Switch], position: int) -> Switch:
    """Of which channel the entry at `position` is: the last switch up to it."""
    place = bisect_right(switches, position, key=_position)
    return switches[place - 1] if place else BEGINNING


def parts(switches: Sequence[Switch], count: int, first: int = 0) -> Iterator[Part]:
    """A log of `count` entries, from `first` on, cut at its switches; no part is empty."""
    place = bisect_right(switches, first, key=_position)
    channel = switches[place - 1] if place else BEGINNING
    while first < count:
        behind = count
        if place < len(switches):
            behind = min(count, switches[place].position)
        if behind > first:
            yield Part(first, behind, channel)
        if place == len(switches):
            return
        first, channel = behind, switches[place]
        place += 1


def text_pieces(pieces: Sequence[str], switches: Sequence[Switch]) -> Iterable[str]:
    """The pieces that are text, neither reasoning nor a tool call."""
    if not switches:
        return pieces
    return (
        piece
        for part in parts(switches, len(pieces))
        if part.channel.kind == TEXT
        for piece in pieces[part.first : part.behind]
    )


class Content(NamedTuple):
    """All of one channel: of a tool call, its arguments."""

    channel: Switch
    text: str


def contents(pieces: Sequence[str], switches: Sequence[Switch]) -> list[Content]:
    """What an answer consists of: each channel once, in the order in which they began."""
    found: dict[tuple[str, int], tuple[Switch, list[str]]] = {}
    for first, behind, channel in parts(switches, len(pieces)):
        _, texts = found.setdefault((channel.kind, channel.index), (channel, []))
        texts += pieces[first:behind]
    return [Content(channel, "".join(texts)) for channel, texts in found.values()]
