"""Who may use the upstreams' slots, and when: a bounded queue that is fair to its users.

Work is handed to an upstream only while one of its slots is held here, so that its own queue, which
reports nothing and knows no users, never builds. Of the tickets that wait, better classes come
first, and ageing lifts those that are held back (see `ageing`); within a class the users share by
tokens and weight (see `fair_share`); of a user's own tickets the oldest comes first. A ticket that
has no place now is passed over. `assignment` decides who gets a slot; this module counts, refuses
and notifies.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager

import trio

from llcuda_net.config.users import User
from llcuda_net.errors import Overloaded, RequestError
from llcuda_net.scheduler.assignment import Place, assign, start_at_once
from llcuda_net.scheduler.flows import Flow
from llcuda_net.scheduler.quota import MovingMean, UserLoad, UserQuota
from llcuda_net.scheduler.ticket import REFRESH, Kind, Lease, Phase, SlotRequest, Ticket, release
from llcuda_net.scheduler.wait_estimate import WaitReporter
from llcuda_net.scheduler.wait_queue import WaitQueue

__all__ = ["Lease", "Scheduler", "SlotRequest", "Ticket", "UserLoad"]

#: Seconds between two reports to those who wait, at least; and between two slices of one report.
_REPORT_INTERVAL, _PAUSE = 0.2, 0.01
#: Seconds after which to retry: where no wait is estimated or at least, and at most.
_RETRY_AFTER = 1.0
_LONGEST_RETRY_AFTER = 600.0


class Scheduler:
    """The queue for the slots of all upstreams.

    Args:
        place: finds a slot for a ticket, and takes it; None where there is none for it now.
        max_queue: how many may wait; one more is refused at once, unless its user has none there.
        explain: says for a person why there is no place for a ticket.
        delay: returns the seconds until there can be any.
        ageing: seconds of being held back by better classes that lift a ticket into the next one.
        clock: returns the time, as in `SlotRequest.deadline`.
        flush: called when holders were notified, to send what that has added.
    """

    def __init__(
        self,
        place: Place,
        max_queue: int,
        *,
        explain: Callable[[Ticket], str] = lambda ticket: "",
        delay: Callable[[Ticket], float] = lambda ticket: 0.0,
        ageing: float = 30.0,
        clock: Callable[[], float] = trio.current_time,
        flush: Callable[[], None] = lambda: None,
    ) -> None:
        self.max_queue = max_queue
        self.ageing = ageing
        self._place = place
        self._clock = clock
        self._flush = flush
        self._queue = WaitQueue()
        self._running: dict[Ticket, Flow] = {}
        self._quotas: dict[str, UserQuota] = {}
        self._all_lengths = MovingMean()
        #: Tokens of what runs no more, by model, class and user,
        #: and when the last of it ended; the last changed at the end.
        self._served: OrderedDict[tuple[str, int, str], tuple[float, float]] = OrderedDict()
        self._reporter = WaitReporter(self._queue, self._quotas, explain, delay)
        self._number = 0
        self._dispatching = False
        self._dispatch_again = False
        #: Set when something has changed since the last report began.
        self._stale = trio.Event()
        #: Set when what is due by time may have become due earlier.
        self._due_changed = trio.Event()
        self._idle = trio.lowlevel.ParkingLot()
        self._idle_scopes: set[trio.CancelScope] = set()

    def __repr__(self) -> str:
        return (
            f"<Scheduler {self.running} running, {self.queued} of {self.max_queue} queued, "
            f"{len(self._quotas)} users>"
        )

    # -- state ------------------------------------------------------------------------------------

    @property
    def running(self) -> int:
        """Slots in use."""
        return len(self._running)

    @property
    def queued(self) -> int:
        """Requests that wait."""
        return len(self._queue)

    @property
    def idle(self) -> bool:
        """Whether nobody uses a slot, and nobody waits for one."""
        return not self._running and not self._queue

    def users(self) -> list[UserLoad]:
        """What each user has who ever submitted something."""
        return [quota.load() for quota in self._quotas.values()]

    def waiting(self) -> list[Ticket]:
        """Those who wait, as they were expected to be served at the last report."""
        return list(self._reporter.order)

    def waiting_kinds(self) -> list[Kind]:
        """The kinds of which any wait."""
        return list(self._queue.kinds)

    # -- in a cluster -----------------------------------------------------------------------------

    def outlook(self, model: str) -> tuple[int, float | None]:
        """How many wait for a model, and how long one more would; None: that is not known."""
        return self._queue.queued(model), self._reporter.next_wait(model, self._clock())

    def short_of_slots(self, since: float) -> list[Ticket]:
        """Those that have waited since a time on the clock for want of slots alone, next first: a
        limit of their user's would keep the others back wherever there are some.
        """
        now = self._clock()
        able = {
            rated: {one for one, quota in self._quotas.items() if quota.may_start(now, rated=rated)}
            for rated in (False, True)
        }
        return [
            one
            for one in self._reporter.order
            if one.waiting_since <= since and one.slot_request.user.name in able[not one.requeued]
        ]

    def served(self, since: float = -math.inf) -> dict[tuple[str, int, str], float]:
        """Tokens read and made since the start, by model, class and user.

        Args:
            since: only of those who have had any since then, on the clock.
        """
        found: dict[tuple[str, int, str], float] = {}
        for place, (tokens, changed) in reversed(self._served.items()):
            if changed < since:
                break
            found[place] = tokens
        for ticket, flow in self._running.items():
            place = _place_of(ticket, flow)
            before = found.get(place)
            if before is None:
                before = self._served.get(place, (0.0, 0.0))[0]
            found[place] = before + ticket.tokens_used()
        return found

    def running_of_users(self) -> dict[str, int]:
        """How many requests of each user run here, of those who have any."""
        return {name: n for name, one in self._quotas.items() if (n := len(one.running))}

    def served_elsewhere(
        self, served: Iterable[tuple[str, int, str, float]], running: Mapping[str, int]
    ) -> None:
        """Take account of what other servers do for the users of this one.

        Args:
            served: model, class, user and tokens that were served since the last call.
            running: how many requests of each user run there now.
        """
        now = self._clock()
        for model, priority, user, tokens in served:
            quota = self._quotas.get(user)
            if quota is not None:
                self._queue.served_elsewhere(model, priority, user, tokens)
                quota.charge_elsewhere(tokens, now)
                self._queue.changed(quota)
        for name, quota in self._quotas.items():
            if quota.elsewhere != running.get(name, 0):
                quota.elsewhere = running.get(name, 0)
                self._queue.changed(quota)
        self.dispatch()

    # -- tickets ----------------------------------------------------------------------------------

    def submit(
        self,
        slot_request: SlotRequest,
        *,
        always: bool = False,
        on_move: Callable[[Ticket], None] = lambda ticket: None,
        tokens_made: Callable[[], int] = lambda: 0,
    ) -> Ticket:
        """Get a slot at once, if there is one and it is this request's turn, else queue it.

        Now is within every deadline, so one of 0 seconds asks for a slot at once or a refusal.

        Args:
            always: queue it whatever the bounds: it was accepted before.
            on_move: called with the ticket when its position, wait or reason has changed since
                `submit` has returned.
            tokens_made: returns how many tokens were generated so far.

        Raises:
            RequestError: the queue is full, or the user's part of it; it would start too late.
        """
        for scope in self._idle_scopes:
            scope.cancel()
        now = self._clock()
        self._number += 1
        ticket = Ticket(
            slot_request,
            self._number,
            now,
            max(0.0, min(self.ageing, (slot_request.deadline - now) / 4)),
            self.remove,
            ageing=self.ageing,
            on_move=on_move,
            tokens_made=tokens_made,
        )
        quota = self._quota(slot_request.user)
        if not self._queue and self._start_at_once(ticket, quota, now):
            return ticket
        ticket.entering = True
        self._queue.add(ticket, quota, now)
        self.dispatch()
        ticket.entering = False
        if ticket.lease is not None:
            return ticket
        if ticket not in self._queue:  # what found no place for it has removed it
            raise ticket.timeout_error()
        self._reporter.queued(ticket, now)
        ticket.mark_notified(now)
        refusal = None if always else self._refusal(ticket, quota, now)
        if refusal is not None:
            self.remove(ticket)
            raise refusal
        self._touch()
        return ticket

    def requeue(self, ticket: Ticket, slot_request: SlotRequest) -> None:
        """Queue a ticket whose slot was lost: before all others, whatever the bounds.

        `Ticket.acquire` waits for the new slot. Does nothing where the ticket has no slot.
        """
        if ticket.phase is not Phase.RUNNING:
            return
        lease, now = self._stop(ticket), self._clock()
        ticket.requeue(slot_request, now)
        # The quota as it is: its user may have other limits by now than when it was submitted.
        self._queue.add(ticket, self._quotas[slot_request.user.name], now)
        self._release(lease)
        self.dispatch()
        if ticket in self._queue:
            self._reporter.queued(ticket, self._clock())

    def remove(self, ticket: Ticket) -> None:
        """Give a ticket's slot back, or take it out of the queue. Idempotent."""
        if ticket.phase is Phase.RUNNING:
            quota = self._running[ticket].quota
            lease = self._stop(ticket)
            ticket.phase = Phase.DONE
            quota.add_answer(ticket.tokens_made())
            self._release(lease)
            self.dispatch()
        elif ticket.phase is Phase.WAITING:
            self._drop(ticket)
        self._check_idle()

    def fail(self, ticket: Ticket, error: RequestError) -> None:
        """Take a ticket out of the queue with an error; does nothing where it does not wait."""
        if ticket.phase is Phase.WAITING:
            ticket.error = error
            self._drop(ticket)
            ticket.granted.set()
            self._check_idle()

    def update_users(self, find: Callable[[str], User]) -> None:
        """Apply changed limits: `find` returns the user of a name."""
        for quota in self._quotas.values():
            quota.user = find(quota.user.name)
            self._queue.changed(quota)
        self.dispatch()

    def _quota(self, user: User) -> UserQuota:
        quota = self._quotas.get(user.name)
        if quota is None:
            quota = self._quotas[user.name] = UserQuota(user, self._all_lengths)
        elif quota.user != user:
            quota.user = user
            self._queue.changed(quota)
        return quota

    def _stop(self, ticket: Ticket) -> Lease | None:
        """Count a ticket's use, as it runs no more; returns the slot that is to be given back."""
        flow = self._running.pop(ticket)
        now = self._clock()
        used = flow.quota.finish(ticket, now)
        place = _place_of(ticket, flow)
        self._served[place] = self._served.get(place, (0.0, now))[0] + used, now
        self._served.move_to_end(place)
        self._queue.changed(flow.quota)
        flow.priority_class.clock.finish(flow.counter, ticket, max(1.0, used))
        flow.priority_class.running -= 1
        self._queue.prune(ticket)
        lease, ticket.lease = ticket.lease, None
        return lease

    def _release(self, lease: Lease | None) -> None:
        """Give a slot back; the dispatch that this may call for is left to the caller."""
        dispatching, self._dispatching = self._dispatching, True
        try:
            release(lease)
        finally:
            self._dispatching = dispatching

    def _drop(self, ticket: Ticket) -> None:
        """Take a ticket out of the queue."""
        ticket.phase = Phase.DONE
        self._queue.remove(ticket, self._clock())
        self._reporter.removed([ticket])
        self._touch()

    def _check_idle(self) -> None:
        if self.idle:
            self._idle.unpark_all()

    def _refusal(self, ticket: Ticket, quota: UserQuota, now: float) -> RequestError | None:
        """The error for a ticket that may not wait; None for one that may."""
        user, wait = quota.user, ticket.wait
        own = quota.queued - quota.requeued - 1
        everybodys = len(self._queue) - len(self._queue.requeued) - 1
        if user.max_queued is not None and own >= user.max_queued:
            named = f" (user {user.name})" if user.name else ""
            why = f"your limit of {user.max_queued} waiting requests{named} is reached"
        elif everybodys >= self.max_queue and (own or not self.max_queue):
            why = f"{self.running} requests run and {everybodys} wait"
        elif wait is not None and now + wait > ticket.slot_request.deadline:
            within = ticket.slot_request.deadline - now
            why = f"it would not begin within {within:.3g} s but {wait:.3g} s"
        elif now >= ticket.slot_request.deadline:
            why = f"it cannot begin at once: {ticket.reason}".removesuffix(": ")
        else:
            return None
        after = min(max(_RETRY_AFTER, wait or 0.0), _LONGEST_RETRY_AFTER)
        why += "; try again later"
        return Overloaded(why, retry=True, retry_after=after)

    def _start_at_once(self, ticket: Ticket, quota: UserQuota, now: float) -> bool:
        """Start a ticket without a place in the queue, where nobody waits and a slot is free."""
        if self._dispatching or not start_at_once(
            ticket, self._queue, quota, self._running, self._place, now
        ):
            return False
        ticket.granted.set()
        return True

    # -- dispatch ---------------------------------------------------------------------------------

    def dispatch(self) -> None:
        """Give slots to those whose turn it is, as long as any can be had.

        Call it when a slot may be free. It may be called from within its own callbacks.
        """
        self._dispatch()
        if self._queue:
            self._touch()

    def _dispatch(self) -> None:
        self._dispatch_again = True
        if self._dispatching:
            return
        self._dispatching = True
        try:
            while self._dispatch_again:
                self._dispatch_again = False
                if self._queue:
                    self._assign()
        finally:
            self._dispatching = False

    def _assign(self) -> None:
        """Assign free slots, and notify those who have got one."""
        now = self._clock()
        done = assign(self._queue, self._quotas, self._running, self._place, now)
        if not done.started and not done.expired:
            return
        self._reporter.started(done.started, now)
        self._reporter.removed(done.started + done.expired)
        self._touch()
        for ticket in done.started:
            ticket.granted.set()
        for ticket in done.started:
            ticket.notify(now)
        self._flush()

    # -- reports ----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Dispatch what is due by time alone, and report to those who wait; for ever."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch_time)
            nursery.start_soon(self._report_changes)

    async def _watch_time(self) -> None:
        while True:
            self._due_changed = trio.Event()
            with trio.move_on_at(self._wake_at()):
                await self._due_changed.wait()
            self._dispatch()

    def _wake_at(self) -> float:
        """When to look for what is due by time alone."""
        due = self.due()
        # Changes are only noted once per report: none is seen later than with the next one.
        return min(due, self._clock() + _REPORT_INTERVAL) if self._stale.is_set() else due

    def due(self) -> float:
        """When time alone may give somebody a slot, at the earliest: then `dispatch` is due."""
        return min(self._queue.promote_at(), self._queue.refilled_at(self._clock()))

    async def _report_changes(self) -> None:
        while True:
            with trio.move_on_after(REFRESH if self._reporter.behind else math.inf):
                await self._stale.wait()
            self._stale = trio.Event()
            began = self._clock()
            for _ in self._reporter.report(self._clock):
                self._flush()
                await trio.sleep(_PAUSE)
            self._flush()
            await trio.sleep_until(began + _REPORT_INTERVAL)

    def _touch(self) -> None:
        """Have the change reported."""
        if not self._stale.is_set():
            self._stale.set()
            self._due_changed.set()

    # -- idle time --------------------------------------------------------------------------------

    @asynccontextmanager
    async def when_idle(self, settle: float) -> AsyncIterator[None]:
        """Time in which nobody needs a slot, for work that must not delay anybody's.

        It begins when nobody has used a slot for `settle` seconds. The body is cancelled as soon
        as somebody submits a request, which does not wait for it: the body holds no slot.
        """
        begun = False
        while not begun:
            while not self.idle:
                await self._idle.park()
            with trio.CancelScope() as scope:
                self._idle_scopes.add(scope)
                try:
                    await trio.sleep(settle)
                    begun = True
                    yield
                finally:
                    self._idle_scopes.discard(scope)


def _place_of(ticket: Ticket, flow: Flow) -> tuple[str, int, str]:
    """Where its tokens count: its model, class and user."""
    return ticket.slot_request.model, int(ticket.priority), flow.quota.user.name
