"""Measures decode steps between two changes of which slots are active.

A stretch begins with a change and ends with the next one. In between the same slots work, so each
active one makes a token a step. While a prompt is read steps take longer: what counts begins with
the last first token of those that were reading when the stretch began, and a stretch in which one
reads to its end gives nothing. All is read from what the streams count anyway: no token costs
anything here.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

from llcuda_net.upstream.slots.choice import runs_of
from llcuda_net.upstream.slots.step_time import Sample

#: Steps from which on a stretch is measured: fewer are lost in the noise of their arrival.
FEWEST = 3


class Stream(Protocol):
    """A stream of tokens of one slot, as far as it has come."""

    @property
    def tokens(self) -> int:
        """Tokens so far."""

    @property
    def first(self) -> float | None:
        """When the first one came, on trio's clock; None: it has not, or that is not known."""

    @property
    def last(self) -> float:
        """When the last one came, on trio's clock."""


class StepSamples:
    """Finds stretches of steps that can be measured: `begin` after each change, `end` before it."""

    def __init__(self) -> None:
        self._slots: Sequence[int] = ()
        self._since = 0.0
        self._witness: Stream | None = None
        self._tokens = 0
        self._last = 0.0

    def __repr__(self) -> str:
        return f"<StepSamples: {len(self._slots)} active since {self._since:.3f}>"

    def begin(self, slots: Sequence[int], streams: Collection[Stream], now: float) -> None:
        """A stretch begins.

        Args:
            slots: the numbers of those that are active, in order.
            streams: those of ours.
            now: on trio's clock.
        """
        self._slots, self._since = slots, now
        self._witness = next((one for one in streams if one.first is not None), None)
        if self._witness is not None:
            self._tokens, self._last = self._witness.tokens, self._witness.last

    def end(self, slots: Sequence[int], streams: Collection[Stream]) -> Sample | None:
        """A stretch ends; its steps, if they could be measured.

        Args:
            slots: as of `begin`; others than then: something has changed unseen.
            streams: those of ours that were there all the time.
        """
        if slots != self._slots or not streams:
            return None
        newest: Stream | None = None
        begun = self._since
        for stream in streams:
            first = stream.first
            if first is None:
                return None
            if first > begun:
                newest, begun = stream, first
        if newest is not None:
            steps, seconds = newest.tokens - 1, newest.last - begun
        elif self._witness is not None:
            steps = self._witness.tokens - self._tokens
            seconds = self._witness.last - self._last
        else:
            return None
        if steps < FEWEST or seconds <= 0:
            return None
        return Sample(seconds * 1e3 / steps, len(slots), runs_of(slots), steps)
