"""The ids of streamed events, by which a reader that comes back is continued exactly.

An id is `GENERATION:SEQUENCE`, or `GENERATION:SEQUENCE:EPOCH` where a restart came before, and of
several choices one such part each, with commas between. SEQUENCE is how many events of the choice a
reader has with this one: one per piece of the log, then one with the reason for the end, then one
with the usage. EPOCH names the run of the server that made the piece (see Generation.epoch). All of
it follows from the log, so it is the same for every reader and after every restart; an id that the
log does not give any more names what a power cut has taken.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import NamedTuple

from llcuda_net.errors import Ahead, InvalidRequest
from llcuda_net.generation.generation import Generation
from llcuda_net.generation.state import State

#: Events behind those of the pieces: the reason for the end, and the usage.
FINISH, USAGE = 1, 2
#: Most choices, and most characters of one part of an id.
_MOST = 128
_LONGEST = 100
_NEVER = sys.maxsize


class Position(NamedTuple):
    """How far a reader has come in a generation.

    Attributes:
        sequence: events that it has.
        epoch: of the last one.
    """

    sequence: int = 0
    epoch: int = 0


def parse(text: str) -> dict[str, Position]:
    """How far a reader has come, by generation, in the order of the choices.

    Raises:
        InvalidRequest: it is no id of an event of ours.
    """
    found: dict[str, Position] = {}
    for part in text.split(",", _MOST):
        id_, *numbers = part.strip().split(":")
        right = len(part) <= _LONGEST and 1 <= len(numbers) <= 2 and id_ and id_ not in found
        if not right or not all(n.isascii() and n.isdigit() for n in numbers):
            raise InvalidRequest(f"Last-Event-ID {text[:60]!r} is no id of an event of this server")
        found[id_] = Position(*map(int, numbers))
    return found


def epoch_of(generation: Generation, sequence: int) -> tuple[int, int]:
    """The epoch of an event, and the first later event that may be of another one."""
    epoch = 0
    for position, of in generation.splices:
        if position >= sequence:
            return epoch, position + 1
        epoch = of
    return epoch, _NEVER


def check(generation: Generation, at: Position) -> int:
    """The events that a reader has, if they are as they were.

    Raises:
        Ahead: it has what was lost.
    """
    sequence, epoch = at
    have = generation.count
    if generation.ended and generation.state is State.DONE:
        have += USAGE
    if not sequence or (sequence <= have and epoch_of(generation, sequence)[0] == epoch):
        return sequence
    same = min(sequence, generation.same_since(epoch))
    raise Ahead(
        f"event {sequence} of generation {generation.id} was read before, and only the first "
        f"{same} are as they were: what came after them was lost with the server's power, or "
        "never was",
        durable=same,
    )


class Ids:
    """Writes the ids of one choice's events, fastest in their order."""

    __slots__ = ("_first", "_generation", "_splices", "_until", "prefix", "suffix")

    def __init__(self, generation: Generation) -> None:
        self._generation = generation
        self._first = self._until = 0  # the events that `suffix` is for
        self._splices = 0  # that there were then; more come where other servers go on with it
        self.prefix = f"{generation.id}:".encode()
        self.suffix = b""

    def at(self, sequence: int) -> bytes:
        """The part of an id that says that a reader has so many events of the choice."""
        splices = self._generation.splices
        if not self._first <= sequence < self._until or len(splices) != self._splices:
            self._splices = len(splices)
            epoch, until = epoch_of(self._generation, sequence)
            self._first, self._until = sequence, until
            self.suffix = b":%d" % epoch if epoch else b""
        return b"%b%d%b" % (self.prefix, sequence, self.suffix)


def joined(parts: Iterable[bytes]) -> bytes:
    """The id of an event, from the parts of all choices."""
    return b",".join(parts)
