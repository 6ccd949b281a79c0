"""A device that tells what it takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


class Meter(Protocol):
    """One device.

    Attributes:
        name: for people: "GPU 0, NVIDIA H200".
        kind: "gpu", "cpu" or "memory".
        method: how it tells: "energy counter", or "power, integrated".
        blocks: a reading may take milliseconds, and is for a thread.
    """

    name: str
    kind: str
    method: str
    blocks: bool

    def joules(self, now: float) -> float:
        """Joules since some moment before the first reading; never less than at the reading before.

        Args:
            now: seconds, of any clock that is the same for all readings.

        Raises:
            MeterError: it does not tell any longer.
        """
        ...


class MeterError(Exception):
    """A device that has told its energy does not any more: the line that says why."""


@dataclass(frozen=True, slots=True)
class Missing:
    """Devices that tell nothing.

    Attributes:
        kind: "gpu", "cpu", or "all" of them.
        why: for people, without a full stop.
    """

    kind: str
    why: str


def integrated(before: tuple[float, float], now: tuple[float, float]) -> float:
    """Joules between two samples of (seconds, watts), by the trapezoidal rule."""
    return (now[0] - before[0]) * (now[1] + before[1]) / 2
