"""How long to wait for more tokens before those that have come are handled. No I/O, no clock.

What is handled together shares the cost of a batch: a wake-up, a write to the journal, a system
call per connection. Two kinds of arrivals are worth a wait:

- The streams of one upstream deliver once per decode step, within a fraction of a millisecond. Of
  each upstream its `Cadence` knows how many streams delivered in the last step and how quickly one
  came after another. While some are missing, and come quickly, those that have come are read and
  parsed; what came meanwhile is next. Where nothing did, a wait for the rest costs a turn of its
  own, but may save several: both are counted, and what takes fewer turns per step is done.
- Where many streams deliver each at its own time, so often that each token would be a wake-up of
  its own, they are looked at only once per `PACE`.

A stream that is alone never waits. A wait in which nothing came is not repeated for some steps.
"""

from __future__ import annotations

from collections.abc import Sequence

#: Seconds that the rest of a step is waited for, at most; timers are up to 0.1 ms late.
MOST = 0.0002
#: And at least: less is not worth a system call.
LEAST = 0.00002
#: Seconds from one stream's token to the next one's, at most: what comes slower is not waited for.
QUICK = 0.0001
#: Steps without a wait after one, two, … waits in vain: twice as many each time, up to this.
MOST_REST = 64
#: Steps from one time that waiting is tried where it is not done, or the other way round, to the
#: next; and how many steps it is tried.
TRIAL, TRIED = 512, 6
#: Seconds from one look to the next, where tokens are spread. Trio's timers round up to 1 ms.
PACE = 0.0006
#: Streams below which they are never paced.
MANY = 8
#: Looks after which it is decided anew whether they are paced. Of those that are not, only one is
#: counted in each half of a millisecond: the tokens of a step are no flow.
WINDOW, APART = 32, 0.0005
#: Seconds that so many looks take at most where a pace is worth it: about 2,000 tokens per second.
FLOWING = 0.032
#: Tokens per look, and looks without any, below and above which it is not any more.
FEW, EMPTY = 1.5, WINDOW // 4


class Cadence:
    """How one upstream's streams deliver.

    Attributes:
        step: number of the current decode step: it ends when a stream delivers for a second time.
        came: streams that have delivered in it.
        expected: streams that did in the step before, and are still there.
        gap: seconds from one stream's token to the next one's within a step, as far as is known.
        last: when the last of those came.
        patient: in this step, what is missing is waited for.
    """

    __slots__ = (
        "_began",
        "_cost",
        "_rest",
        "_short",
        "_trial",
        "_turns",
        "_vain",
        "_waits",
        "came",
        "expected",
        "gap",
        "last",
        "patient",
        "step",
    )

    def __init__(self) -> None:
        self.step = 0
        self.came = 0
        self.expected = 0
        self.gap = 10 * QUICK
        self._began = self.last = 0.0
        self._vain = 0  # waits in vain, one after another
        self._rest = 0  # steps without a wait that are left
        self._waits = 0  # in this step
        self._short = False  # the last one of them ended before all had come
        self.patient = False
        self._turns = 0  # batches and waits in this step
        self._cost = [0.0, 0.0]  # turns per step without waits, and with them
        self._trial = TRIED  # steps until the other is tried; below 0: it is

    def __repr__(self) -> str:
        return f"<Cadence step {self.step}: {self.came} of {self.expected}, gap={self.gap:.6f}>"

    def leave(self, member: Member) -> None:
        """A stream has ended: it is expected no more."""
        self.expected = max(0, self.expected - 1)
        if member.step == self.step:
            self.came -= 1

    def soon(self) -> bool:
        """Whether some of the step are missing, and should come quickly."""
        return self.came < self.expected and self.gap <= QUICK

    def missing(self) -> float:
        """Seconds for which the rest of the step is worth a wait; 0: none."""
        if not self.patient or self._rest or not self.soon():
            return 0.0
        return (self.expected - self.came) * self.gap + LEAST

    def batch(self) -> None:
        """One more batch has tokens of it."""
        self._turns += 1

    def waited(self, *, in_vain: bool) -> None:
        """The rest of the step was waited for."""
        self._waits += 1
        self._turns += 1
        self._short = self.came < self.expected
        self._vain = self._vain + 1 if in_vain else 0
        self._rest = min(MOST_REST, (1 << self._vain) - 1)

    def next_step(self, now: float) -> None:
        """A stream delivers that has delivered in this step: the next one has begun."""
        if self._waits:
            # When they came is not known: a wait that was too short grows, any other one shrinks.
            if not self._short:
                self.gap *= 0.95
            elif self.came >= self.expected:
                self.gap = min(QUICK, self.gap * 1.5)
        elif self.came > 1:
            gap = min(4 * QUICK, (self.last - self._began) / (self.came - 1))
            self.gap += (gap - self.gap) / 4
        if self.came > 1:
            self._choose()
        self.step += 1
        self._waits, self._short, self._turns = 0, False, 0
        self.expected, self.came = self.came, 0
        self._began = now
        self._rest = max(0, self._rest - 1)

    def _choose(self) -> None:
        """A step is over: whether the next one is waited for."""
        cost, patient = self._cost, self.patient
        known = cost[patient]  # 0: nothing yet
        cost[patient] += (self._turns - known) * (0.25 if known else 1.0)
        self._trial -= 1
        if self._trial == 0:
            self.patient = not patient
        elif self._trial < -TRIED or (self._trial > 0 and cost[True]):
            self.patient = cost[True] < cost[False]
            if self._trial < 0:
                self._trial = TRIAL


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
        self._since = self._last = 0.0  # when this window began, and its last look
        self._looks = self._tokens = self._empty = 0  # in it

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
            if cadence not in touched:
                touched.add(cadence)
                cadence.batch()
        self._in_batch += len(members)

    def more(self) -> bool:
        """Whether it is worth it to look at once for more."""
        return any(cadence.soon() for cadence in self._touched)

    def wait(self, now: float) -> float:
        """Seconds to wait now for the rest of a step, before the batch is handled; 0: none."""
        left = self._until - now
        if left <= 0:
            return 0.0
        most = 0.0
        for cadence in self._touched:
            most = max(most, cadence.missing())
        return min(left, most)

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
        tokens, self._in_batch = self._in_batch, 0
        if self._paced or now - self._last >= APART:
            self._last = now
            self._looks += 1
            self._empty += not tokens
        self._tokens += tokens
        if self._looks >= WINDOW:
            if self._paced:
                self._paced = self._tokens >= FEW * WINDOW and self._empty <= EMPTY
            else:
                self._paced = now - self._since < FLOWING
            self._looks = self._tokens = self._empty = 0
            self._since = now
        return PACE if self._paced and tokens and streams >= MANY else 0.0
