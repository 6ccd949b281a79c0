"""What a user uses and still may: how many at once, how many waiting, how many tokens a minute."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from llcuda_net.config.users import User

#: A minute's tokens may be used at once.
_MINUTE = 60.0
#: How many tokens an answer has, as long as nobody had one.
_GUESS = 256.0
#: Over how many answers the mean moves.
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


class Mean:
    """A moving mean of the lengths of answers."""

    def __init__(self) -> None:
        self._count = 0
        self._mean = 0.0

    def add(self, tokens: int) -> None:
        """One more answer."""
        self._count = min(self._count + 1, _ANSWERS)
        self._mean += (tokens - self._mean) / self._count

    def value(self) -> float | None:
        """The mean, or None before the first answer."""
        return self._mean if self._count else None


class UserQuota:
    """One user's account.

    The bucket of tokens is kept as the time at which it will be full again, so that it needs no
    upkeep. It is emptied by what was really used, and may go below nothing.

    Attributes:
        user: as the last request described them.
        running: what they run, and the tokens that it has used so far.
        queued: how many of their requests wait.
        returned: how many of these had a slot before.
        served: tokens read and made for them since the start, by what is over.
    """

    def __init__(self, user: User, everybody: Mean) -> None:
        self.user = user
        self.running: dict[object, Callable[[], int]] = {}
        self.queued = 0
        self.returned = 0
        self.served = 0
        self._metered: dict[object, int] = {}
        self._full_at = self._looked_at = float("-inf")
        self._lengths = Mean()
        self._everybody = everybody

    def begin(self, work: object, used: Callable[[], int], now: float) -> None:
        """Something runs from now on."""
        self._meter(now)
        self.running[work] = used
        self._metered[work] = 0

    def end(self, work: object, now: float) -> int:
        """It does not run any more; how many tokens it has used."""
        self._meter(now)
        del self.running[work]
        used = self._metered.pop(work)
        self.served += used
        return used

    def answered(self, tokens: int) -> None:
        """An answer of so many tokens came to its end."""
        if tokens:  # one that failed, or gives vectors, tells nothing
            self._lengths.add(tokens)
            self._everybody.add(tokens)

    def expected(self, most: int | None) -> float:
        """How many tokens their next answer will have, of at most so many."""
        mean = self._lengths.value()
        if mean is None:
            mean = self._everybody.value()
        if mean is None:
            mean = _GUESS
        return mean if most is None else min(mean, most)

    def may_begin(self, now: float, *, rated: bool = True) -> bool:
        """Whether they may have one more slot.

        Args:
            rated: whether it must keep within their tokens a minute.
        """
        most = self.user.max_running
        if most is not None and len(self.running) >= most:
            return False
        return not rated or self.user.tokens_per_minute is None or now >= self.refilled(now)

    def refilled(self, now: float) -> float:
        """When they may use tokens again: in the past where they may."""
        if self.user.tokens_per_minute is None:
            return float("-inf")
        self._meter(now)
        return self._full_at - _MINUTE

    def why(self, now: float, *, rated: bool = True) -> str:
        """The limit for which they may not begin another, for a person; "" where they may."""
        user = self.user
        if user.max_running is not None and len(self.running) >= user.max_running:
            return f"your limit of {user.max_running} at once"
        if rated and user.tokens_per_minute is not None and now < self.refilled(now):
            return f"your limit of {user.tokens_per_minute:g} tokens a minute"
        return ""

    def load(self) -> UserLoad:
        """What they have now."""
        user = self.user
        served = self.served + sum(used() for used in self.running.values())
        return UserLoad(user.name, user.weight, len(self.running), self.queued, served)

    def _meter(self, now: float) -> None:
        """Take from the bucket what was used since it was last looked at.

        As if it had all been used at once then: what came in since is not lost because it was full.
        """
        tokens = 0
        for work, used in self.running.items():
            total = used()
            tokens += total - self._metered[work]
            self._metered[work] = total
        rate = self.user.tokens_per_minute
        if rate is not None and tokens:
            self._full_at = max(self._full_at, self._looked_at) + tokens * _MINUTE / rate
        self._looked_at = now
