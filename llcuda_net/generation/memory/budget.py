"""How much memory a server's generations may take: in all, per user and each.

The bounds follow from the server's limit and never exceed the constants here: a server with much
memory has no reason to give it to one client. Requests are admitted by their cost: what they take
now, or, where each token is dear (`n_probs`), what they may come to take. So a request that asks
for probabilities either is refused at once or runs to its end. Text is counted as it comes.
"""

from __future__ import annotations

import contextlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from llcuda_net.errors import InvalidRequest, Overloaded
from llcuda_net.generation.generation import Generation
from llcuda_net.generation.memory import sizes

#: Bytes that a server may take where nothing says otherwise.
DEFAULT = 1 << 30
#: Seconds after which a refused request may be worth another try.
_RETRY_AFTER = 2.0


@dataclass(frozen=True, slots=True)
class Bounds:
    """What may take how many bytes.

    Attributes:
        limit: the whole process.
        running: requests and logs of what waits or runs, of all users.
        user: the same of one user.
        generation: the log of one generation that has log-probabilities.
        finished: logs of generations that are over.
        unsent: what waits in write buffers, beyond a little for each connection.
        incoming: frames that have not come whole.
        reply: one reply to a list request.
    """

    limit: int
    running: int
    user: int
    generation: int
    finished: int
    unsent: int
    incoming: int
    reply: int

    @classmethod
    def of(cls, limit: int) -> Bounds:
        """The bounds of a server that may take so many bytes."""
        return cls(
            limit,
            running=limit // 4,
            user=min(64 << 20, limit // 8),
            generation=min(16 << 20, limit // 32),
            finished=min(32 << 20, limit // 32),
            unsent=min(32 << 20, limit // 32),
            incoming=min(32 << 20, limit // 32),
            reply=1 << 20,
        )

    def most_of_log(self, params: Mapping[str, Any]) -> int:
        """Bytes that the log of a request with these parameters may take; text may take more."""
        return self.generation if params.get("n_probs") else self.user


_SIZE = attrgetter("size")


class MemoryBudget:
    """Admits generations, and names those that must end.

    Args:
        running: the generations that wait or run.

    Attributes:
        pressed: the process is near its limit: nothing more is admitted.
        refused, ended: requests that were refused, and generations that were ended, so far.
    """

    def __init__(self, bounds: Bounds, running: Iterable[Generation]) -> None:
        self.bounds = bounds
        self.pressed = False
        self.refused = 0
        self.ended = 0
        self._running = running
        self._held: Counter[str] = Counter()  # by other requests, by their users

    def __repr__(self) -> str:
        return f"<MemoryBudget {self.running:,} of {self.bounds.running:,} bytes>"

    @property
    def running(self) -> int:
        """Bytes that generations which wait or run, and other requests, take now."""
        return sum(generation.size for generation in self._running) + self._held.total()

    def check_streams(self, streams: int) -> None:
        """Refuse one more stream to read, where so many are open.

        Raises:
            Overloaded: they are too many.
        """
        most = self.bounds.running // sizes.GENERATION
        if self.pressed or streams > most:
            self.refused += 1
            raise _overloaded(f"at most {most:,} streams may be open on all connections")

    @contextlib.contextmanager
    def holding(self, owner: str, size: int, *, refuse: bool = True) -> Iterator[None]:
        """Around what a request of another kind, or its reply, needs: so many bytes.

        Args:
            refuse: whether it may be refused; else it counts against what comes after it.

        Raises:
            RequestError: there is no room for it.
        """
        if refuse:
            self._admit(owner, size)
        self._held[owner] += size
        try:
            yield
        finally:
            self._held[owner] -= size
            if not self._held[owner]:
                del self._held[owner]

    def admit(self, generation: Generation) -> None:
        """Refuse a new generation that there is no memory for.

        Raises:
            RequestError: it can never have what it may need, or not now.
        """
        check_log(generation.params, self.bounds.generation)
        self._admit(generation.owner, _cost(generation))

    def _admit(self, owner: str, cost: int) -> None:
        try:
            self._check(owner, cost)
        except Overloaded:
            self.refused += 1
            raise

    def _check(self, owner: str, cost: int) -> None:
        bounds = self.bounds
        if cost > bounds.user:
            raise InvalidRequest(
                f"this request would take {cost:,} bytes of memory, and all of yours together may "
                f"take {bounds.user:,}: ask for less at once"
            )
        total = cost + self._held.total()
        mine = cost + self._held[owner]
        for other in self._running:
            # Without probabilities no token is dear: this runs for each request and each other one.
            took = other.size if other.logprobs is None else _cost(other)
            total += took
            if other.owner == owner:
                mine += took
        if self.pressed:
            raise _overloaded(f"the server is near its limit of {bounds.limit:,} bytes of memory")
        if mine > bounds.user:
            raise _overloaded(
                f"your requests may take {bounds.user:,} bytes of memory, and would take {mine:,}"
            )
        if total > bounds.running:
            raise _overloaded(
                f"all requests may take {bounds.running:,} bytes of memory, "
                f"and would take {total:,}"
            )

    def relieve(self, resident: int) -> None:
        """End the generations whose logs take too much, the largest of their user first.

        Args:
            resident: bytes that the process takes.
        """
        every = list(self._running)
        if sum(map(_SIZE, every)) > min(self.bounds.user, self.bounds.running):
            every = [one for one in every if not one.scope.cancel_called]
            users: defaultdict[str, list[Generation]] = defaultdict(list)
            for generation in every:
                users[generation.owner].append(generation)
            for theirs in users.values():
                self._end_largest(theirs, self.bounds.user, "your requests")
            self._end_largest(every, self.bounds.running, "all requests")
        if resident > self.bounds.limit:
            every = [one for one in every if not one.scope.cancel_called]
            most = max(every, key=lambda one: one.log_size, default=None)
            if most is not None:
                self._end(most, f"the server is at its limit of {self.bounds.limit:,} bytes")

    def _end_largest(self, generations: list[Generation], bound: int, whose: str) -> None:
        total = sum(generation.size for generation in generations)
        if total <= bound:
            return
        for largest in sorted(generations, key=lambda one: -one.log_size):
            if total <= bound:
                return
            total -= largest.size
            self._end(largest, f"{whose} may take {bound:,} bytes of memory, and took more")

    def _end(self, generation: Generation, why: str) -> None:
        self.ended += 1
        generation.hand_back(_overloaded(f"{why}; this one took most, {generation.size:,}"))


def check_log(params: Mapping[str, Any], bound: int) -> None:
    """Refuse a request whose log may become larger than a generation's may.

    Raises:
        InvalidRequest: the message says what it may ask for.
    """
    size = sizes.most(params)
    if size > bound:
        tokens, candidates = params["n_predict"], params["n_probs"]
        raise InvalidRequest(
            f"{tokens} tokens (n_predict) with {candidates} probabilities each (n_probs) may take "
            f"{size:,} bytes, and a generation may take {bound:,}: ask for at most "
            f"{bound * tokens // size} tokens, or for fewer probabilities"
        )


def _cost(generation: Generation) -> int:
    if generation.logprobs is None:  # nothing is reserved for text: it is counted as it comes
        return generation.size
    expected = sizes.most(generation.params)
    return generation.size + max(0, expected - generation.log_size)


def _overloaded(why: str) -> Overloaded:
    return Overloaded(why, retry=True, retry_after=_RETRY_AFTER)
