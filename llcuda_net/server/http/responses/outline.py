"""The items of a response, as its log has them, and the numbers of its events.

An item begins wherever the log changes to another channel. All numbers follow from the positions of
these changes, so every reader finds the same ones, at any time:

    created, in_progress          of a background response: created, queued, in_progress
    events that open item 0       for a message and for reasoning: the item, its part
    a delta per piece
    events that close item 0, events that open item 1
    a delta per piece ...
    events that close the last item, and the end

Where another run of the server goes on with the response (see Generation.epoch), more than a
million numbers are left out: so one that was read of a run that is lost is never taken for one of
the run that came after it. How many are left out depends on the epoch, since there may have been
another run from the same position, which is lost, too. The events of a piece, which are those
behind the events of the piece before it up to its own delta, are of one run.

A log may come back to a tool call that it had left: then nothing opens it again, and it is closed
once more, with all of its arguments.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import NamedTuple

from llcuda_net.storage.channels import BEGINNING, REASONING, TEXT, TOOL_CALL, Switch

#: Events that open and close an item of each kind.
OPENING = {TEXT: 2, REASONING: 2, TOOL_CALL: 1}
CLOSING = {TEXT: 3, REASONING: 3, TOOL_CALL: 2}

#: The fewest numbers that are left out where another run begins; a run has fewer events.
GAP = 1 << 20
#: How many more there are at most. Numbers stay below 2 ** 31 for two hundred runs or so: some
#: clients have no more bits for them.
_MORE = 1 << 24

_first = attrgetter("first")


class Run(NamedTuple):
    """What one run of the server has made of a response.

    Attributes:
        first: the position of its first piece.
        added: what is added to the places of its events among all events: their numbers.
    """

    first: int
    added: int


def runs(splices: Iterable[tuple[int, int]]) -> list[Run]:
    """All runs of a generation, by where others went on with it; see Generation.splices."""
    found, last = [Run(0, 0)], 0
    for position, epoch in splices:
        if epoch != last:
            found.append(Run(position, found[-1].added + GAP + epoch % _MORE))
            last = epoch
    return found


class Stretch(NamedTuple):
    """Pieces that follow each other in one item.

    Attributes:
        first: the position of the first one.
        channel: of them all.
        item: the number of the item in the output.
        base: the delta of the piece at position p has the place base + p among all events.
        opening: how many events open the item; 0: it was open before.
    """

    first: int
    channel: Switch
    item: int
    base: int
    opening: int

    @property
    def closing(self) -> int:
        """How many events close the item."""
        return CLOSING[self.channel.kind]


class Outline:
    """The stretches of a log, in their order; it grows with the log.

    Args:
        switches: of the log.
        before: events before those that open the first item.
    """

    def __init__(self, switches: Sequence[Switch], before: int) -> None:
        self._before = before
        self._seen = 0
        self.stretches: list[Stretch] = []
        self._calls: dict[int, int] = {}  # items of tool calls, by their indices
        self._items = 0
        self.grow(switches)

    def __repr__(self) -> str:
        return f"<Outline of {self._items} items>"

    def grow(self, switches: Sequence[Switch]) -> None:
        """Take in what the log has gained."""
        if not self.stretches and not (switches and switches[0].position == 0):
            self._add(BEGINNING)
        for switch in switches[self._seen :]:
            self._add(switch)
        self._seen = len(switches)

    def _add(self, switch: Switch) -> None:
        stretches = self.stretches
        if stretches and stretches[-1].first == switch.position:
            replaced = stretches.pop()  # it has no piece
            if replaced.opening:
                self._items -= 1
                if replaced.channel.kind == TOOL_CALL:
                    del self._calls[replaced.channel.index]
        item, opening = self._items, OPENING[switch.kind]
        if switch.kind == TOOL_CALL:
            known = self._calls.get(switch.index)
            if known is not None:
                item, opening = known, 0
            self._calls.setdefault(switch.index, item)
        if opening:
            self._items += 1
        before = self._before
        if stretches:
            before = stretches[-1].base + stretches[-1].closing
        stretches.append(Stretch(switch.position, switch, item, before + opening, opening))

    def find(self, position: int) -> int:
        """The number of the stretch that the piece at a position is in."""
        return bisect_right(self.stretches, position, key=_first) - 1

    def behind(self, number: int) -> int:
        """The position of the first piece whose events are not all up to this number."""
        for place, stretch in enumerate(self.stretches):
            later = self.stretches[place + 1 :]
            end = later[0].first if later else None
            position = max(stretch.first, number + 1 - stretch.base)
            if end is None or position < end:
                return position
        raise AssertionError("the last stretch has no end")
