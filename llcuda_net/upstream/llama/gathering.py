"""How long to wait for more tokens before those that have come are handled. No I/O, no clock.

What is handled together shares the cost of a batch: a wake-up, a write to the journal, a system
call per connection. Two kinds of arrivals are worth a wait:

- The streams of one upstream deliver once per decode step, within a fraction of a millisecond. Of
  each upstream its `Cadence` knows how many streams delivered in the last step and how quickly one
  came after another. While some are missing, and come quickly, the rest of the step is waited for.
- Where many streams deliver each at its own time, so often that each token would be a wake-up of
  its own, they are looked at only once per `PACE`.

A stream that is alone never waits. A wait in which nothing came is not repeated for some steps.
"""

from __future__ import annotations

from collections.abc import Sequence

#: Seconds that the rest of a step is waited for, at most; timers are up to 0.1 ms late.
MOST = 0.0002
#: Seconds from one stream's token to the next one's, at most: what comes slower is not waited for.
QUICK = 0.0001
#: Steps without a wait after one, two, … waits in vain: twice as many each time, up to this.
MOST_REST = 64
#: Seconds from one look to the next, where tokens are spread. Trio's timers round up to 1 ms.
PACE = 0.0006
#: Streams below which they are never paced.
MANY = 8
#: Batches after which the pace is decided anew.
WINDOW = 32
#: Batches per second, each without a wait, from which on it is worth it; and tokens per look below
#: which it is not any more.
BUSY, FEW = 2000.0, 1.5


class Cadence:
    """How one upstream's streams deliver.

    Attributes:
        step: number of the current decode step: it ends when a stream delivers for a second time.
        came: streams that have delivered in it.
        expected: streams that did in the step before, and are still there.
        gap: seconds from one stream's token to the next one's within a step, smoothed.
        last: when the last of those came.
    """

    __slots__ = ("_began", "_rest", "_vain", "came", "expected", "gap", "last", "step")

    def __init__(self) -> None:
        self.step = 0
        self.came = 0
        self.expected = 0
        self.gap = 10 * QUICK
        self._began = self.last = 0.0
        self._vain = 0  # waits in vain, one after another
        self._rest = 0  # steps without a wait that are left

    def __repr__(self) -> str:
        return f"<Cadence step {self.step}: {self.came} of {self.expected}, gap={self.gap:.6f}>"

    def leave(self, member: Member) -> None:
        """A stream has ended: it is expected no more."""
        self.expected = max(0, self.expected - 1)
        if member.step == self.step:
            self.came -= 1

    def missing(self) -> float:
        """Seconds within which the rest of the step should come; 0: nothing, or not soon."""
        left = self.expected - self.came
        if left <= 0 or self.gap > QUICK or self._rest:
            return 0.0
        return left * self.gap

    def waited(self, *, in_vain: bool) -> None:
        """The rest of the step was waited for."""
        self._vain = self._vain + 1 if in_vain else 0
        self._rest = min(MOST_REST, (1 << self._vain) - 1)

    def next_step(self, now: float) -> None:
        """A stream delivers that has delivered in this step: the next one has begun."""
        if self.came > 1:
            gap = min(4 * QUICK, (self.last - self._began) / (self.came - 1))
            self.gap += (gap - self.gap) / 4
        self.step += 1
        self.expected, self.came = self.came, 0
        self._began = now
        self._rest = max(0, self._rest - 1)


class Member:
    """What gathering knows of one stream.

    Attributes:
        cadence: of its upstream.
        step: the last one in which it delivered.
    """

    __slots__ = ("cadence", "step")

    def __init__(self, cadence: Cadence) -> None:
        self.cadence = cadence
        self.step = -1


class Gathering:
    """Says how long to wait; its user says what came, and when, on any clock in seconds."""

    def __init__(self) -> None:
        self._touched: set[Cadence] = set()  # with tokens in this batch
        self._until = 0.0  # when this batch is handled at the latest
        self._in_batch = 0
        self._paced = False
        self._batches = 0  # in this window
        self._tokens = 0
        self._since = 0.0

    def __repr__(self) -> str:
        return f"<Gathering {'paced' if self._paced else 'at once'}>"

    def took(self, members: Sequence[Member], now: float) -> None:
        """These streams were read, for the batch that is being gathered."""
        touched = self._touched
        if not self._in_batch:
            self._until = now + MOST
        for member in members:
            cadence = member.cadence
            if member.step == cadence.step:
                cadence.next_step(now)
            member.step = cadence.step
            cadence.came += 1
            cadence.last = now
            touched.add(cadence)
        self._in_batch += len(members)

    def wait(self, now: float) -> float:
        """Seconds for which the rest of a step should be waited for now, before the batch is
        handled; 0: it should not."""
        left = self._until - now
        if left <= 0:
            return 0.0
        missing = max((cadence.missing() for cadence in self._touched), default=0.0)
        return min(left, missing)

    def waited(self, came: int) -> None:
        """`wait` was obeyed, and so many streams delivered."""
        for cadence in self._touched:
            if cadence.expected > cadence.came or came:
                cadence.waited(in_vain=not came)

    def pace(self, streams: int, now: float) -> float:
        """The batch is over.

        Args:
            streams: that may deliver.

        Returns:
            Seconds until the next look at what has come; 0: when something comes.
        """
        self._touched.clear()
        self._batches += 1
        self._tokens += self._in_batch
        nothing, self._in_batch = not self._in_batch, 0
        if self._batches >= WINDOW:
            if self._paced:
                self._paced = self._tokens >= FEW * WINDOW
            else:
                self._paced = now - self._since < WINDOW / BUSY
            self._batches = self._tokens = 0
            self._since = now
        return PACE if self._paced and not nothing and streams >= MANY else 0.0
