"""How much memory a model needs, and how much there is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Need:
    """Memory, in bytes: what a model needs, or a sum of it.

    Attributes:
        host: of the machine.
        gpu: of its GPUs, all of them together.
    """

    host: int = 0
    gpu: int = 0

    def __add__(self, other: Need) -> Need:
        return Need(self.host + other.host, self.gpu + other.gpu)

    def __sub__(self, other: Need) -> Need:
        return Need(self.host - other.host, self.gpu - other.gpu)

    def within(self, room: Need) -> bool:
        """Whether it fits into a room; what it does not need at all may be exceeded already."""
        return (self.host <= 0 or self.host <= room.host) and (
            self.gpu <= 0 or self.gpu <= room.gpu
        )


#: What stands for memory without a bound.
_UNBOUNDED = 1 << 62


@dataclass(frozen=True, slots=True)
class Budget:
    """The memory that all local models may use together, in bytes; None: not bounded."""

    host: int | None = None
    gpu: int | None = None

    @property
    def room(self) -> Need:
        """All of it."""
        return Need(
            _UNBOUNDED if self.host is None else self.host,
            _UNBOUNDED if self.gpu is None else self.gpu,
        )
