"""Many users at many upstreams in virtual time, to see what a queue does with them.

No event loop: a heap of events, and a clock that jumps from one to the next. After each event it is
checked that no slot is idle for which somebody waits who may have it, and that no limit is broken.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Protocol

from llcuda_net.config.users import User
from llcuda_net.scheduler.scheduler import Lease, Scheduler, SlotRequest, Ticket
from llcuda_net.scheduler.ticket import Phase


class Clock:
    """Returns the time that it is set to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """The time now."""
        return self.now


#: Tokens of a prompt are read so much faster than others are made.
_READING = 20.0


class Queue(Protocol):
    """The queue under test."""

    def submit(self, slot_request: SlotRequest, *, tokens_made: Callable[[], int]) -> Ticket:
        """See Scheduler."""

    def remove(self, ticket: Ticket) -> None:
        """See Scheduler."""

    def requeue(self, ticket: Ticket, slot_request: SlotRequest) -> None:
        """See Scheduler."""

    def dispatch(self) -> None:
        """See Scheduler."""

    def due(self) -> float:
        """See Scheduler."""


class Fifo:
    """The negative control: whoever comes first is served first."""

    def __init__(self, place: Callable[[Ticket], Lease | None]) -> None:
        self._place = place
        self._waiting: list[Ticket] = []
        self._count = 0

    def submit(self, slot_request: SlotRequest, *, tokens_made: Callable[[], int]) -> Ticket:
        """See Scheduler."""
        self._count += 1
        ticket = Ticket(slot_request, self._count, 0.0, math.inf, self.remove)
        self._waiting.append(ticket)
        self.dispatch()
        return ticket

    def remove(self, ticket: Ticket) -> None:
        """See Scheduler."""
        ticket.phase = Phase.DONE
        if ticket.lease is not None:
            ticket.lease.release()
        if ticket in self._waiting:
            self._waiting.remove(ticket)

    def requeue(self, ticket: Ticket, slot_request: SlotRequest) -> None:
        """See Scheduler."""
        assert ticket.lease is not None
        self._waiting.insert(0, ticket)
        ticket.phase = Phase.WAITING
        ticket.lease.release()

    def dispatch(self) -> None:
        """See Scheduler."""
        full = set()
        for ticket in self._waiting.copy():
            if ticket.kind not in full:
                ticket.lease = self._place(ticket)
                if ticket.lease is None:
                    full.add(ticket.kind)
                else:
                    ticket.phase = Phase.RUNNING
                    self._waiting.remove(ticket)

    def due(self) -> float:
        """Nothing is done by time alone."""
        return math.inf


@dataclass(eq=False)
class Upstream:
    """Some slots, all as fast, whatever the others do."""

    model: str
    slots: int
    rate: float = 50.0
    keys: frozenset[Hashable] = frozenset({""})
    up: bool = True
    running: list[Work] = field(default_factory=list)


@dataclass(eq=False)
class Work:
    """One request."""

    user: User
    slot_request: SlotRequest
    tokens: int
    over: Callable[[], None]
    came: float
    ticket: Ticket | None = None
    upstream: Upstream | None = None
    began: float = 0.0
    first_began: float | None = None
    before: int = 0
    turns: int = 0

    @property
    def most(self) -> int:
        """Tokens that it may use: those of its prompt and its answer."""
        return self.slot_request.prompt_tokens + self.tokens


class Slot:
    """A lease."""

    def __init__(self, simulation: Simulation, work: Work) -> None:
        self._simulation, self._work = simulation, work

    def release(self) -> None:
        """See Lease."""
        upstream = self._work.upstream
        assert upstream is not None
        upstream.running.remove(self._work)
        self._work.upstream = None
        self._simulation.queue.dispatch()


class Simulation:
    """A queue, its upstreams and its users in virtual time.

    Args:
        queue: tried in place of the scheduler.
        on_begin: called with each request that gets a slot.

    Attributes:
        served: tokens of each user, model and class, of what has finished.
    """

    def __init__(
        self,
        upstreams: list[Upstream],
        queue: type[Fifo] | None = None,
        *,
        on_begin: Callable[[Work], None] = lambda work: None,
    ) -> None:
        self.clock = Clock()
        self.upstreams = upstreams
        self.queue: Queue = (
            Scheduler(self._place, 10**9, clock=self.clock) if queue is None else queue(self._place)
        )
        self.served: Counter[tuple[str, str, int]] = Counter()
        self.waiting: Counter[tuple[User, str, Hashable]] = Counter()
        self.running: Counter[User] = Counter()
        self.largest: dict[str, int] = defaultdict(int)
        self.finished = 0
        self._on_begin = on_begin
        self._works: dict[Ticket, Work] = {}
        self._entering: Work | None = None
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0

    # -- what happens -----------------------------------------------------------------------------

    def at(self, time: float, do: Callable[[], None]) -> None:
        """Have something done at a time."""
        self._number += 1
        heapq.heappush(self._events, (time, self._number, do))

    def after(self, seconds: float, do: Callable[[], None]) -> None:
        """Have something done later."""
        self.at(self.clock.now + seconds, do)

    def run(self, until: float) -> None:
        """Let things happen until a time."""
        while True:
            due = max(self.queue.due(), self.clock.now)
            time = min(self._events[0][0] if self._events else math.inf, due)
            if time > until:
                self.clock.now = until
                return
            self.clock.now = time
            if self._events and self._events[0][0] <= time:
                heapq.heappop(self._events)[2]()
            else:
                self.queue.dispatch()
            self.check()

    def submit(
        self,
        user: User,
        tokens: int,
        over: Callable[[], None] = lambda: None,
        **slot_request: object,
    ) -> Work:
        """A request comes; `over` is called when it has come to its end."""
        made = SlotRequest(user, **slot_request)  # type: ignore[arg-type]
        work = Work(user, made, tokens, over, self.clock.now)
        self.largest[made.model] = max(self.largest[made.model], work.most)
        self.waiting[user, made.model, made.key] += 1
        self._entering = work
        work.ticket = self.queue.submit(made, tokens_made=lambda: self._made(work))
        self._works[work.ticket] = work
        self._entering = None
        return work

    def fail(self, upstream: Upstream) -> None:
        """An upstream goes away, and what it ran goes on elsewhere."""
        upstream.up = False
        for work in upstream.running.copy():
            work.before = self._made(work)
            work.turns += 1
            self.running[work.user] -= 1
            self.waiting[work.user, work.slot_request.model, work.slot_request.key] += 1
            assert work.ticket is not None
            self.queue.requeue(work.ticket, work.slot_request)

    def back(self, upstream: Upstream) -> None:
        """An upstream is there again."""
        upstream.up = True
        self.queue.dispatch()

    def resize(self, upstream: Upstream, slots: int) -> None:
        """An upstream has so many slots now."""
        upstream.slots = slots
        self.queue.dispatch()

    def _place(self, ticket: Ticket) -> Slot | None:
        slot_request = ticket.slot_request
        free = [
            upstream
            for upstream in self.upstreams
            if upstream.up
            and upstream.model == slot_request.model
            and slot_request.key in upstream.keys
            and len(upstream.running) < upstream.slots
        ]
        if not free:
            return None
        work = self._works.get(ticket, self._entering)
        assert work is not None
        upstream = work.upstream = min(free, key=lambda one: len(one.running) / one.slots)
        upstream.running.append(work)
        self.waiting[work.user, slot_request.model, slot_request.key] -= 1
        self.running[work.user] += 1
        work.began = self.clock.now
        if work.first_began is None:
            work.first_began = self.clock.now
        self._on_begin(work)
        seconds = slot_request.prompt_tokens / upstream.rate / _READING
        seconds += (work.tokens - work.before) / upstream.rate
        turn = work.turns
        self.after(seconds, lambda: self._end(work, turn))
        return Slot(self, work)

    def _end(self, work: Work, turn: int) -> None:
        if turn != work.turns:
            return
        assert work.ticket is not None
        self.served[work.user.name, work.slot_request.model, work.slot_request.priority] += (
            work.most
        )
        self.running[work.user] -= 1
        work.before, work.turns = work.tokens, turn + 1
        self.finished += 1
        del self._works[work.ticket]
        self.queue.remove(work.ticket)
        work.over()

    def _made(self, work: Work) -> int:
        if work.upstream is None:
            return work.before
        reading = work.slot_request.prompt_tokens / work.upstream.rate / _READING
        seconds = max(0.0, self.clock.now - work.began - reading)
        return min(work.tokens, work.before + int(seconds * work.upstream.rate))

    # -- what is to be seen -----------------------------------------------------------------------

    def so_far(self) -> Counter[tuple[str, str, int]]:
        """Tokens of each user, model and class, with those of what runs now."""
        total = self.served.copy()
        for work in self._works.values():
            if work.first_began is not None:
                key = work.user.name, work.slot_request.model, work.slot_request.priority
                total[key] += work.slot_request.prompt_tokens + self._made(work)
        return total

    def check(self) -> None:
        """No slot is idle for which somebody waits who may have it, and no limit is broken."""
        free = [one for one in self.upstreams if one.up and len(one.running) < one.slots]
        for user, running in self.running.items():
            assert user.max_running is None or running <= user.max_running
        for upstream in free:
            for (user, model, key), waiting in self.waiting.items():
                assert not (
                    waiting
                    and model == upstream.model
                    and key in upstream.keys
                    and (user.max_running is None or self.running[user] < user.max_running)
                ), f"a slot of {upstream} is idle at {self.clock.now}, and {user} waits"


@dataclass
class Shares:
    """Tokens that users of one model and class got, and those which they should have got."""

    got: dict[str, float]
    due: dict[str, float]

    def worst(self, slack: float) -> float:
        """By how much the worst differs from their due, as a part of it, beyond `slack` tokens."""
        return max(
            max(0.0, abs(self.got[name] - due) - slack) / due for name, due in self.due.items()
        )


def shares(
    before: Counter[tuple[str, str, int]],
    after: Counter[tuple[str, str, int]],
    users: list[User],
    model: str,
    priority: int,
) -> Shares:
    """What of the tokens of two moments each of these users got, and should have got."""
    got = {
        user.name: float(after[user.name, model, priority] - before[user.name, model, priority])
        for user in users
    }
    each = sum(got.values()) / sum(user.weight for user in users)
    return Shares(got, {user.name: each * user.weight for user in users})
