"""The credit and the sequence number of an open stream. Both ends count alike."""

from __future__ import annotations

from dataclasses import dataclass

from . import events as ev
from .states import StreamState


@dataclass(slots=True)
class Stream:
    """An open stream.

    Attributes:
        credit: bytes of tokens frames still allowed; below 0 after one frame that was larger.
        sequence: number of the next piece or vector.
    """

    state: StreamState
    credit: int = 0
    sequence: int = 0

    def fits(self, event: ev.Tokens, size: int) -> bool:
        """The credit rule: any credit lets one piece through, several pieces must fit in it."""
        return self.credit > 0 and (len(event.pieces) == 1 or size <= self.credit)

    def advance(self, event: ev.Tokens | ev.Vectors, size: int) -> None:
        """Count a frame of this size, its length field included."""
        if isinstance(event, ev.Tokens):
            self.credit -= size
            self.sequence += len(event.pieces)
        else:
            self.sequence += len(event.vectors)


def gap(event: ev.Tokens | ev.Vectors, expected: int) -> str:
    """The message for a frame that does not continue where the last one stopped."""
    name = event.KIND.name.lower()
    return f"{name} from {event.first} on stream {event.stream}, not from {expected}"
