"""What a user uses and still may: how many run at once, how many wait, how many tokens per minute.

Tokens per minute are a bucket that holds one minute's tokens. It is stored as the time at which it
will be full again, so that it needs no upkeep. What is taken from it is what was really used, at
each look; it may go below zero, and then nothing starts until it is at zero again.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from llcuda_net.config.users import User

#: One minute's tokens may be used at once.
_MINUTE = 60.0
#: Tokens of an answer, before any answer is known.
_DEFAULT_LENGTH = 256.0
#: How many answers the moving mean covers.
_ANSWERS = 16


@dataclass(frozen=True, slots=True)
class UserLoad:
    """What a user has, at one moment.

    Attributes:
        served: tokens read and made for them since the start.
    """

    name: str
    weight: float
    running: int
    queued: int
    served: int


class MovingMean:
    """A moving mean of the lengths of answers."""

    def __init__(self) -> None:
        self._count = 0
        self._mean = 0.0

    def add(self, tokens: int) -> None:
        """Add one answer's length."""
        self._count = min(self._count + 1, _ANSWERS)
        self._mean += (tokens - self._mean) / self._count

    def value(self) -> float | None:
        """The mean, or None before the first answer."""
        return self._mean if self._count else None


class UserQuota:
    """One user's limits, and what they use of them.

    Args:
        all_lengths: the mean over all users' answers, for users who had none yet.

    Attributes:
        user: with the limits in force.
        running: what they run; each returns the tokens that it has used so far.
        queued: how many of their requests wait.
        requeued: how many of these had a slot before.
        served: tokens read and made for them since the start, by what runs no more.
        elsewhere: how many of their requests run at other servers of the cluster.
    """

    def __init__(self, user: User, all_lengths: MovingMean) -> None:
        self.user = user
        self.running: dict[object, Callable[[], int]] = {}
        self.queued = 0
        self.requeued = 0
        self.served = 0
        self.elsewhere = 0
        self._charged: dict[object, int] = {}
        self._full_at = self._charged_at = -math.inf
        self._limited = False  # at the last look
        self._lengths = MovingMean()
        self._all_lengths = all_lengths

    def __repr__(self) -> str:
        return (
            f"<UserQuota {self.user.name!r}: {len(self.running)} running, {self.queued} queued, "
            f"{self.served} tokens served>"
        )

    def start(self, work: object, used: Callable[[], int], now: float) -> None:
        """Count something that runs from now on."""
        self._charge(now)
        self.running[work] = used
        self._charged[work] = 0

    def finish(self, work: object, now: float) -> int:
        """Count it no more; returns the tokens that it has used."""
        self._charge(now)
        used = self.running.pop(work)()
        del self._charged[work]
        self.served += used
        return used

    def add_answer(self, tokens: int) -> None:
        """Learn the length of an answer that has ended."""
        if tokens:  # one that failed, or was an embedding, says nothing
            self._lengths.add(tokens)
            self._all_lengths.add(tokens)

    def expected_tokens(self, most: int | None) -> float:
        """The expected length of their next answer, at most `most` tokens."""
        mean = self._lengths.value()
        if mean is None:
            mean = self._all_lengths.value()
        if mean is None:
            mean = _DEFAULT_LENGTH
        return mean if most is None else min(mean, most)

    def may_start(self, now: float, *, rated: bool = True) -> bool:
        """Whether they may have one more slot.

        Args:
            rated: whether it must keep within their tokens per minute.
        """
        most = self.user.max_running
        if most is not None and len(self.running) + self.elsewhere >= most:
            return False
        return not rated or self.user.tokens_per_minute is None or now >= self.refilled_at(now)

    def refilled_at(self, now: float) -> float:
        """When they may use tokens again: not after `now` where they may already."""
        if self.user.tokens_per_minute is None:
            return -math.inf
        self._charge(now)
        return self._full_at - _MINUTE

    def limit_reached(self, now: float, *, rated: bool = True) -> str:
        """The limit that keeps them from one more slot, for a person; "" where none does."""
        user = self.user
        running = len(self.running) + self.elsewhere
        if user.max_running is not None and running >= user.max_running:
            return f"your limit of {user.max_running} at once"
        if rated and user.tokens_per_minute is not None and now < self.refilled_at(now):
            return f"your limit of {user.tokens_per_minute:g} tokens a minute"
        return ""

    def load(self) -> UserLoad:
        """What they have now."""
        user = self.user
        served = self.served + sum(used() for used in self.running.values())
        return UserLoad(user.name, user.weight, len(self.running), self.queued, served)

    def charge_elsewhere(self, tokens: float, now: float) -> None:
        """Take from the bucket what other servers have served, as if it had been used now."""
        self._charge(now)
        rate = self.user.tokens_per_minute
        if rate is not None:
            self._full_at = max(self._full_at, now) + tokens * _MINUTE / rate

    def _charge(self, now: float) -> None:
        """Take from the bucket what was used since the last time.

        As if all of it had been used at that time: nothing that flowed in since is lost because
        the bucket was full.
        """
        rate = self.user.tokens_per_minute
        if rate is None:
            self._limited = False
            return
        if not self._limited:  # what was used before there was a limit is not charged
            self._limited = True
            self._charged = {work: used() for work, used in self.running.items()}
        tokens = 0
        for work, used in self.running.items():
            total = used()
            tokens += total - self._charged[work]
            self._charged[work] = total
        if tokens:
            self._full_at = max(self._full_at, self._charged_at) + tokens * _MINUTE / rate
        self._charged_at = now
