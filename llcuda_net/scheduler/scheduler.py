"""Who may use the upstreams' slots, and when: a bounded queue that is fair to its users.

Work is handed to an upstream only while we hold one of its slots, so that its own queue, which
tells nobody anything and knows no users, never builds. Among those who wait, a better class comes
first, and waiting for it lifts into it; within a class the users share by tokens and weight (see
`fairness`); of a user's own, the oldest comes first. Whoever has no place now is looked past.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import structlog
import trio

from llcuda_net.config.users import Priority, User
from llcuda_net.errors import Overloaded, RequestError
from llcuda_net.scheduler.fair_share import FlowCounter
from llcuda_net.scheduler.flows import Flow
from llcuda_net.scheduler.quota import Mean, UserLoad, UserQuota
from llcuda_net.scheduler.ticket import Kind, Lease, Phase, SlotRequest, Ticket
from llcuda_net.scheduler.wait_estimate import WaitReporter
from llcuda_net.scheduler.wait_queue import WaitQueue

__all__ = ["Lease", "Scheduler", "SlotRequest", "Ticket", "UserLoad"]

log = structlog.get_logger(__name__)

#: Seconds between two times at which those who wait are told where they stand.
_TELL = 0.2
#: Seconds after which to come back, where nothing better is known, at least, and at most.
_COME_BACK = 1.0
_LATEST = 600.0


class Scheduler:
    """The queue for the slots of all upstreams.

    Args:
        place: finds a slot for a ticket, and takes it; None where there is none for it now.
        max_queue: how many may wait; one more is refused at once, unless its user has none there.
        ageing: seconds of waiting for better classes that lift a ticket into the next one.
        clock: tells the time, as in `SlotRequest.deadline`.

    Attributes:
        why: tells for a person why there is no place for a ticket.
    """

    def __init__(
        self,
        place: Callable[[Ticket], Lease | None],
        max_queue: int,
        *,
        ageing: float = 30.0,
        clock: Callable[[], float] = trio.current_time,
    ) -> None:
        self.why: Callable[[Ticket], str] = lambda ticket: ""
        self.max_queue = max_queue
        self.ageing = ageing
        self._place = place
        self._clock = clock
        self._line = WaitQueue()
        self._flows: dict[Ticket, Flow] = {}
        self._quotas: dict[str, UserQuota] = {}
        self._everybody = Mean()
        self._teller = WaitReporter(self._line, self._quotas, lambda ticket: self.why(ticket))
        self._number = 0
        self._dispatching = False
        self._again = False
        self._stale = False
        self._told = -math.inf
        self._changed = trio.Event()
        self._idle = trio.lowlevel.ParkingLot()
        self._spare: set[trio.CancelScope] = set()

    # -- what is going on -------------------------------------------------------------------------

    @property
    def running(self) -> int:
        """Slots in use."""
        return len(self._flows)

    @property
    def queued(self) -> int:
        """Requests that wait."""
        return len(self._line)

    @property
    def idle(self) -> bool:
        """Whether nobody uses a slot, and nobody waits for one."""
        return not self._flows and not self._line

    def running_of(self, user: User) -> int:
        """How many slots a user has."""
        quota = self._quotas.get(user.name)
        return 0 if quota is None else len(quota.running)

    def users(self) -> list[UserLoad]:
        """What each user has who ever came."""
        return [quota.load() for quota in self._quotas.values()]

    def waiting(self) -> list[Ticket]:
        """Those who wait, as they will be served if all goes on as it does now."""
        return list(self._line.order())

    # -- coming and going -------------------------------------------------------------------------

    def submit(self, slot_request: SlotRequest, *, always: bool = False) -> Ticket:
        """Take a place, at once: a slot if it is its turn and there is one, else one in the queue.

        Args:
            always: however many wait: it was accepted before.

        Raises:
            RequestError: the queue is full, or the user's part of it; it would begin too late.
        """
        for scope in self._spare:
            scope.cancel()
        now = self._clock()
        self._number += 1
        step = max(0.0, min(self.ageing, (slot_request.deadline - now) / 4))
        ticket = Ticket(slot_request, self._number, now, step, self.remove, self.ageing)
        quota = self._quota(slot_request.user)
        self._line.add(ticket, quota, now)
        self.dispatch()
        if ticket.lease is not None:
            return ticket
        if ticket not in self._line:
            raise ticket.too_late()
        self._teller.waits(ticket, now)
        ticket.settled()
        refusal = None if always else self._refusal(ticket, quota, now)
        if refusal is not None:
            self.remove(ticket)
            raise refusal
        self._touch()
        return ticket

    def requeue(self, ticket: Ticket, slot_request: SlotRequest) -> None:
        """Have one wait again whose slot was lost: before all others, whatever the bounds.

        It is `Ticket.acquire` that waits for the new slot.
        """
        if ticket.phase is not Phase.RUNNING:
            return
        lease = self._ended(ticket)
        ticket.lost(slot_request)
        # The account as it is: its user may have other limits by now than when this one came.
        self._line.add(ticket, self._quotas[slot_request.user.name], self._clock())
        _release(lease)
        self.dispatch()
        if ticket in self._line:
            self._teller.waits(ticket, self._clock())

    def remove(self, ticket: Ticket) -> None:
        """Give up a ticket: its slot, or its place in the queue. A second time is nothing."""
        if ticket.phase is Phase.RUNNING:
            quota = self._flows[ticket].quota
            lease = self._ended(ticket)
            ticket.phase = Phase.OVER
            quota.answered(ticket.tokens())
            _release(lease)
            self.dispatch()
        elif ticket.phase is Phase.WAITING:
            self._drop(ticket)
        if self.idle:
            self._idle.unpark_all()

    def fail(self, ticket: Ticket, why: RequestError) -> None:
        """Have one that waits fail; one that does not is left alone."""
        if ticket.phase is Phase.WAITING:
            ticket.refusal = why
            self._drop(ticket)
            ticket.granted.set()
            if self.idle:
                self._idle.unpark_all()

    def update_users(self, named: Callable[[str], User]) -> None:
        """Users have other limits now: `named` tells them."""
        for quota in self._quotas.values():
            quota.user = named(quota.user.name)
        self.dispatch()

    def _quota(self, user: User) -> UserQuota:
        quota = self._quotas.get(user.name)
        if quota is None:
            quota = self._quotas[user.name] = UserQuota(user, self._everybody)
        quota.user = user
        return quota

    def _ended(self, ticket: Ticket) -> Lease | None:
        """It runs no more; the slot that is to be given back."""
        flow = self._flows.pop(ticket)
        used = flow.quota.end(ticket, self._clock())
        flow.row.clock.settle(flow.usage, ticket, max(1.0, used))
        flow.row.running -= 1
        self._line.tidy(ticket)
        lease, ticket.lease = ticket.lease, None
        return lease

    def _drop(self, ticket: Ticket) -> None:
        """It waits no more, and has no slot."""
        ticket.phase = Phase.OVER
        self._line.remove(ticket, self._clock())
        self._teller.gone(ticket)
        self._touch()

    def _refusal(self, ticket: Ticket, quota: UserQuota, now: float) -> RequestError | None:
        """Why a ticket that waits may not."""
        user, wait = quota.user, ticket.wait
        others = quota.queued - quota.returned - 1
        all_others = len(self._line) - len(self._line.returned) - 1
        if user.max_queued is not None and others >= user.max_queued:
            named = f" (user {user.name})" if user.name else ""
            why = f"your limit of {user.max_queued} waiting requests{named} is reached"
        elif all_others >= self.max_queue and (others or not self.max_queue):
            why = f"{self.running} requests run and {all_others} wait"
        elif wait is not None and now + wait > ticket.slot_request.deadline:
            within = ticket.slot_request.deadline - now
            why = f"it would not begin within {within:.3g} s but {wait:.3g} s"
        else:
            return None
        after = min(max(_COME_BACK, wait or 0.0), _LATEST)
        why += "; try again later"
        return Overloaded(why, retry=True, retry_after=after)

    # -- whose turn it is -------------------------------------------------------------------------

    def dispatch(self) -> None:
        """Give slots to those whose turn it is, as long as any can be had."""
        self._dispatch()
        if self._line:
            self._touch()

    def _dispatch(self) -> None:
        self._again = True
        if self._dispatching:
            return
        self._dispatching = True
        try:
            while self._again:
                self._again = False
                for ticket in self._round() if self._line else ():
                    ticket.moved()
        finally:
            self._dispatching = False

    def _round(self) -> list[Ticket]:
        """Those who have got a slot."""
        now = self._clock()
        self._line.rise(now)
        served: list[Ticket] = []
        #: What waits and is not known to have no place.
        open_kinds = set(self._line.kinds)
        for ticket in list(self._line.returned):
            quota = self._quotas[ticket.slot_request.user.name]
            if (
                ticket.phase is Phase.WAITING
                and ticket.kind in open_kinds
                and quota.may_begin(now, rated=False)
                and self._try(ticket, now, open_kinds)
            ):
                served.append(ticket)
        for priority in Priority:
            self._serve_class(self._line.flows(priority, now), now, open_kinds, served)
        return served

    def _serve_class(
        self,
        flows: list[Flow],
        now: float,
        open_kinds: set[Kind],
        served: list[Ticket],
    ) -> None:
        if not open_kinds:
            return
        heap = [(flow.rank(flow.tickets[0]), flow) for flow in flows]
        heapq.heapify(heap)
        passed: dict[Flow, None] = {}
        while heap and open_kinds:
            _, flow = heapq.heappop(heap)
            ticket = flow.head(open_kinds)
            if ticket is None:
                passed[flow] = None
                continue
            rank = flow.rank(ticket)
            if heap and rank > heap[0][0]:  # not any more: others were served since, or looked past
                heapq.heappush(heap, (rank, flow))
                continue
            if not flow.quota.may_begin(now):
                continue
            if ticket.slot_request.deadline < now:
                self._drop(ticket)
            else:
                before = [other.usage for other in passed if other.row is flow.row]
                if self._try(ticket, now, open_kinds, before):
                    served.append(ticket)
            if flow.tickets:
                heapq.heappush(heap, (flow.rank(flow.tickets[0]), flow))

    def _try(
        self,
        ticket: Ticket,
        now: float,
        open_kinds: set[Kind],
        passed: Sequence[FlowCounter] = (),
    ) -> bool:
        """Find a slot for it, and let it begin."""
        try:
            lease = self._place(ticket)
        except Exception:
            log.exception("place_failed")
            lease = None
        if lease is None:
            open_kinds.discard(ticket.kind)
            return False
        if ticket.phase is not Phase.WAITING:  # it left while a place was sought
            _release(lease)
            return False
        quota = self._quotas[ticket.slot_request.user.name]
        flow = self._line.serve(ticket, quota, now)
        expected = ticket.will_use(quota.expected(ticket.slot_request.most_tokens))
        flow.row.clock.begin(flow.usage, ticket, ticket.used, expected, passed)
        quota.begin(ticket, ticket.used, now)
        self._flows[ticket] = flow
        ticket.phase, ticket.lease = Phase.RUNNING, lease
        self._teller.runs(ticket, now)
        self._touch()
        ticket.granted.set()
        return True

    # -- what those who wait are told -------------------------------------------------------------

    async def run(self) -> None:
        """Do what is due by time alone, and tell those who wait where they stand."""
        while True:
            self._changed = trio.Event()
            with trio.move_on_at(self._due()):
                await self._changed.wait()
            now = self._clock()
            self._dispatch()
            if self._stale and now >= self._told + _TELL:
                self._stale, self._told = False, now
                self._teller.tell(now)

    def _due(self) -> float:
        """When there is something to be done next."""
        return min(self.due(), self._told + _TELL) if self._stale else self.due()

    def due(self) -> float:
        """When time alone may give somebody a slot, at the earliest: then `dispatch` is due."""
        now = self._clock()
        due = self._line.next_rise()
        for quota in self._quotas.values():
            if quota.queued and quota.user.tokens_per_minute is not None:
                at = quota.refilled(now)
                if at > now:
                    due = min(due, at)
        return due

    def _touch(self) -> None:
        if not self._stale:
            self._stale = True
            self._changed.set()

    @asynccontextmanager
    async def when_idle(self, settle: float) -> AsyncIterator[None]:
        """Time in which nobody wants a slot: for work that must not delay anybody's.

        Begins when nobody has used one for `settle` seconds. What is done in it is cancelled as
        soon as somebody takes a place, who is not made to wait for it: it holds no slot.
        """
        begun = False
        while not begun:
            while not self.idle:
                await self._idle.park()
            with trio.CancelScope() as scope:
                self._spare.add(scope)
                try:
                    await trio.sleep(settle)
                    begun = True
                    yield
                finally:
                    self._spare.discard(scope)


def _release(lease: Lease | None) -> None:
    try:
        if lease is not None:
            lease.release()
    except Exception:
        log.exception("release_failed")
