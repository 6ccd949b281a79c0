"""Assigns free slots to tickets. It decides, counts and returns; its caller notifies the holders.

Tickets that lost a slot come first. Then class by class, best first: of the flows of all models the
one with the lowest rank is next (see `fair_share`), and its oldest ticket is placed. Where `place`
finds nothing for a ticket, nothing more of its kind is tried in this round: it is passed over, and
its flow keeps a bounded credit.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import structlog

from llcuda_net.config.users import Priority
from llcuda_net.scheduler.fair_share import FlowCounter
from llcuda_net.scheduler.flows import Flow, Head, PriorityClass, Rank
from llcuda_net.scheduler.quota import UserQuota
from llcuda_net.scheduler.ticket import Lease, Phase, Ticket, release
from llcuda_net.scheduler.wait_queue import WaitQueue

log = structlog.get_logger(__name__)

Place = Callable[[Ticket], Lease | None]


@dataclass(slots=True)
class Assignment:
    """What one round has decided.

    Attributes:
        started: tickets that have a slot now, in the order in which they got it.
        expired: tickets that were removed, as their turn came after their deadline.
    """

    started: list[Ticket] = field(default_factory=list)
    expired: list[Ticket] = field(default_factory=list)


def assign(
    queue: WaitQueue,
    quotas: Mapping[str, UserQuota],
    running: dict[Ticket, Flow],
    place: Place,
    now: float,
) -> Assignment:
    """Give slots to those whose turn it is, as long as any can be had.

    Args:
        queue: the tickets that wait; those that start or have expired are removed from it.
        quotas: the users' quotas, which count what starts.
        running: the tickets that run, with the flows that count them; what starts is added.
        place: finds a slot for a ticket, and takes it; None where there is none for it now.
        now: the clock's time.
    """
    return _Round(queue, quotas, running, place, now).run()


def start_at_once(
    ticket: Ticket,
    queue: WaitQueue,
    quota: UserQuota,
    running: dict[Ticket, Flow],
    place: Place,
    now: float,
) -> bool:
    """Give a slot to a ticket that has just come, while nobody waits; whether there was one.

    The same as `assign` for a queue of this ticket alone, without a place in it.
    """
    if not quota.may_start(now):
        return False
    lease = _placed(ticket, place)
    if lease is None:
        return False
    _start(ticket, lease, queue.start_at_once(ticket, quota), running, now)
    return True


def _placed(ticket: Ticket, place: Place) -> Lease | None:
    """A slot for a ticket; None: there is none now."""
    try:
        return place(ticket)
    except Exception:
        log.exception("place_failed")
        return None


def _start(
    ticket: Ticket,
    lease: Lease,
    flow: Flow,
    running: dict[Ticket, Flow],
    now: float,
    passed_over: Sequence[FlowCounter] = (),
) -> None:
    """Count a ticket that has got a slot."""
    answer = flow.quota.expected_tokens(ticket.slot_request.most_tokens)
    flow.priority_class.clock.start(
        flow.counter, ticket, ticket.tokens_used, ticket.expected_use(answer), passed_over
    )
    flow.quota.start(ticket, ticket.tokens_used, now)
    ticket.phase, ticket.lease = Phase.RUNNING, lease
    running[ticket] = flow


class _Round:
    def __init__(
        self,
        queue: WaitQueue,
        quotas: Mapping[str, UserQuota],
        running: dict[Ticket, Flow],
        place: Place,
        now: float,
    ) -> None:
        self._queue = queue
        self._quotas = quotas
        self._running = running
        self._place = place
        self._now = now
        #: Kinds that wait, and of which it is not known that none has a place.
        self._open_kinds = set(queue.kinds)
        self._done = Assignment()

    def run(self) -> Assignment:
        self._queue.promote(self._now)
        for ticket in self._queue.requeued.copy():
            quota = self._quotas[ticket.slot_request.user.name]
            if (
                ticket.phase is Phase.WAITING
                and ticket.kind in self._open_kinds
                and quota.may_start(self._now, rated=False)
            ):
                self._try(ticket)
        for priority in Priority:
            self._serve(self._queue.classes(priority))
        return self._done

    def _serve(self, classes: list[PriorityClass]) -> None:
        """Serve one class of all models."""
        for one in classes:
            one.update(self._now)
        heap: list[tuple[Rank, int]] = []
        for index in range(len(classes)):
            self._push(heap, index, classes)
        while heap and self._open_kinds:
            _, index = heapq.heappop(heap)
            head = classes[index].head(self._open_kinds, self._now)
            if head is None:
                continue
            if heap and head.rank > heap[0][0]:  # it has changed: others started
                heapq.heappush(heap, (head.rank, index))
                continue
            ticket = head.ticket
            if ticket.slot_request.deadline < self._now and not ticket.entering:
                ticket.phase = Phase.DONE
                self._queue.remove(ticket, self._now)
                self._done.expired.append(ticket)
            else:
                self._try(ticket, head)
            self._push(heap, index, classes)

    def _push(self, heap: list[tuple[Rank, int]], index: int, classes: list[PriorityClass]) -> None:
        head = classes[index].head(self._open_kinds, self._now)
        if head is not None:
            heapq.heappush(heap, (head.rank, index))

    def _try(self, ticket: Ticket, head: Head | None = None) -> None:
        """Find a slot for a ticket, and start it."""
        lease = _placed(ticket, self._place)
        if lease is None:
            self._open_kinds.discard(ticket.kind)
            return
        if ticket.phase is not Phase.WAITING:  # it was removed by what `place` called
            release(lease)
            return
        quota = self._quotas[ticket.slot_request.user.name]
        passed_over: Sequence[FlowCounter] = ()
        if head is not None:
            passed_over = head.flow.priority_class.passed_over(head, self._open_kinds)
        flow = self._queue.start(ticket, quota, self._now)
        _start(ticket, lease, flow, self._running, self._now, passed_over)
        self._queue.changed(quota)
        self._done.started.append(ticket)
