"""Where each ticket stands, for how long it will wait, and why: estimated, and reported.

Theory. The wait is the ticket's position times the mean interval between two starts from its
model's queue (Little's law, with the position as the number ahead). Intervals count only while
somebody waits. The interval that is under way counts as if it ended now where that makes the mean
longer, so that a queue that has come to a stop is seen to be slow before the next start.

Reports are made in slices. Thousands may wait, and who reads tokens meanwhile must not wait for all
of them to be informed. A slice has room for so many tickets to be looked at; to notify a holder
takes as much room as looking at several.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping

import structlog

from llcuda_net.scheduler.quota import UserQuota
from llcuda_net.scheduler.ticket import Kind, Phase, Ticket
from llcuda_net.scheduler.wait_order import WaitOrder
from llcuda_net.scheduler.wait_queue import WaitQueue

#: Longest wait that is reported, in seconds: a longer one says nothing more.
_LONGEST = 1e6
#: How many intervals the mean covers.
_INTERVALS = 32
#: From fewer intervals nothing is estimated.
_FEWEST = 2
#: Tickets that are looked at in one slice of a report: about a millisecond's work.
_SLICE = 256
#: To notify one holder takes as long as looking at so many tickets.
_NOTICE = 8
#: Tickets between two looks at how much room is left in a slice.
_PART = 32

log = structlog.get_logger(__name__)


class ServiceRate:
    """How fast one model's queue moves: the mean time from one start to the next."""

    def __init__(self) -> None:
        self._intervals: deque[float] = deque(maxlen=_INTERVALS)
        #: When the interval under way began; None while nobody waits.
        self._since: float | None = None

    def __repr__(self) -> str:
        mean = sum(self._intervals) / len(self._intervals) if self._intervals else float("nan")
        return f"<ServiceRate {mean:.3g} s per start, of {len(self._intervals)} intervals>"

    def resume(self, now: float) -> None:
        """Measure from now on, if nobody waited until now."""
        if self._since is None:
            self._since = now

    def record(self, now: float) -> None:
        """End an interval: somebody who waited has got a slot."""
        if self._since is not None:
            self._intervals.append(now - self._since)
            self._since = now

    def pause(self) -> None:
        """Measure no more: nobody waits."""
        self._since = None

    def estimate(self, position: int, now: float) -> float | None:
        """Seconds until the ticket at this position has a slot; None while that is not known."""
        count = len(self._intervals)
        if count < _FEWEST:
            return None
        total = sum(self._intervals)
        under_way = 0.0 if self._since is None else now - self._since
        return position * max(total / count, (total + under_way) / (count + 1))


class WaitReporter:
    """Estimates where the tickets of a queue stand, and notifies their holders.

    Args:
        explain: says for a person why there is no place for a ticket.
        delay: returns the seconds until there can be any, as for a model that is not loaded.

    Attributes:
        order: those that wait.
        behind: whether the last `report` left some with a position that is a little out of date.
    """

    def __init__(
        self,
        queue: WaitQueue,
        quotas: Mapping[str, UserQuota],
        explain: Callable[[Ticket], str],
        delay: Callable[[Ticket], float] = lambda ticket: 0.0,
    ) -> None:
        self.order = WaitOrder(queue)
        self.behind = False
        self._queue = queue
        self._quotas = quotas
        self._explain = explain
        self._delay = delay
        self._rates: dict[str, ServiceRate] = {}

    def next_wait(self, model: str, now: float) -> float | None:
        """Seconds until one more request for a model would have a slot; None: not known."""
        rate = self._rates.get(model)
        return None if rate is None else rate.estimate(self._queue.queued(model) + 1, now)

    def queued(self, ticket: Ticket, now: float) -> None:
        """Estimate for a ticket that has just been queued."""
        self._rates.setdefault(ticket.slot_request.model, ServiceRate()).resume(now)
        self.order.add(ticket)
        self._estimate(ticket, now, {})

    def started(self, tickets: Iterable[Ticket], now: float) -> None:
        """Count tickets that have got slots."""
        for ticket in tickets:
            if ticket.position:
                self._rates[ticket.slot_request.model].record(now)
            ticket.position, ticket.wait, ticket.reason = 0, 0.0, ""

    def removed(self, tickets: Iterable[Ticket]) -> None:
        """Count tickets that wait no more, those that have started included."""
        for ticket in tickets:
            self.order.remove(ticket)
            model = ticket.slot_request.model
            if model in self._rates and self._queue.empty(model):
                self._rates[model].pause()

    def report(self, clock: Callable[[], float]) -> Iterator[None]:
        """Rank all tickets anew, and notify the holders of those whose figures have changed.

        It yields after each slice of the work, so that its caller can let others go on. Whoever
        comes or goes meanwhile is in the next report.
        """
        self.behind = False
        tickets = list(self._queue)
        room = _SLICE
        for some in _parts(tickets):
            self.order.refresh(some)
            room -= len(some)
            if room <= 0:
                yield
                room = _SLICE
        for some in _parts(tickets):
            now = clock()
            reasons: dict[Kind, tuple[str, float]] = {}
            for ticket in some:
                if ticket in self.order:
                    self._estimate(ticket, now, reasons)
            for ticket in some:
                if ticket.phase is Phase.WAITING:
                    room -= _NOTICE * ticket.notify(now)
                    self.behind |= ticket.behind
            room -= len(some)
            if room <= 0:
                yield
                room = _SLICE

    def _estimate(self, ticket: Ticket, now: float, reasons: dict[Kind, tuple[str, float]]) -> None:
        quota = self._quotas[ticket.slot_request.user.name]
        rate = self._rates.get(ticket.slot_request.model)
        if ticket.kind not in reasons:
            reasons[ticket.kind] = self._outlook(ticket)
        reason, delay = reasons[ticket.kind]
        ticket.position = self.order.position(ticket)
        ticket.wait = None if rate is None else rate.estimate(ticket.position, now)
        if delay:
            ticket.wait = delay + (ticket.wait or 0.0)
        if ticket.wait is not None and not ticket.requeued:
            ticket.wait = max(ticket.wait, quota.refilled_at(now) - now)
        if ticket.wait is not None:
            ticket.wait = min(ticket.wait, _LONGEST)
        ticket.reason = quota.limit_reached(now, rated=not ticket.requeued) or reason

    def _outlook(self, ticket: Ticket) -> tuple[str, float]:
        """Why the tickets of a kind wait, and the seconds until any can be served."""
        try:
            return self._explain(ticket), self._delay(ticket)
        except Exception:
            log.exception("explain_failed")
            return "", 0.0


def _parts(tickets: list[Ticket]) -> Iterator[list[Ticket]]:
    for first in range(0, len(tickets), _PART):
        yield tickets[first : first + _PART]
