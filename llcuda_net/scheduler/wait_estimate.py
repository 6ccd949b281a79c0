"""What those who wait are told: where they stand, for how long, and why."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import structlog

from llcuda_net.scheduler.quota import UserQuota
from llcuda_net.scheduler.service_rate import ServiceRate
from llcuda_net.scheduler.ticket import Kind, Phase, Ticket
from llcuda_net.scheduler.wait_queue import WaitQueue

#: Seconds of waiting that are told at most: longer ones say nothing more.
_LONGEST = 1e6

log = structlog.get_logger(__name__)


class WaitReporter:
    """Knows where those in a line stand.

    Args:
        why: tells for a person why there is no place for a ticket.
    """

    def __init__(
        self, line: WaitQueue, quotas: Mapping[str, UserQuota], why: Callable[[Ticket], str]
    ) -> None:
        self._line = line
        self._quotas = quotas
        self._why = why
        self._paces: dict[str, ServiceRate] = {}

    def waits(self, ticket: Ticket, now: float) -> None:
        """There was no slot for a ticket: see where it stands."""
        self._paces.setdefault(ticket.slot_request.model, ServiceRate()).waits(now)
        self._see(ticket, self._line.position(ticket), now, {})

    def runs(self, ticket: Ticket, now: float) -> None:
        """A ticket has got a slot."""
        if ticket.position:
            self._paces[ticket.slot_request.model].moved(now)
        ticket.position, ticket.wait, ticket.reason = 0, 0.0, ""
        self.gone(ticket)

    def gone(self, ticket: Ticket) -> None:
        """A ticket waits no more."""
        model = ticket.slot_request.model
        if model in self._paces and self._line.empty(model):
            self._paces[model].empty()

    def tell(self, now: float) -> None:
        """See where all stand, and tell those of whom it has changed."""
        places: dict[str, int] = {}
        reasons: dict[Kind, str] = {}
        order = list(self._line.order())
        for ticket in order:
            model = ticket.slot_request.model
            places[model] = place = places.get(model, 0) + 1
            self._see(ticket, place, now, reasons)
        for ticket in order:
            if ticket.phase is Phase.WAITING:
                ticket.moved()

    def _see(self, ticket: Ticket, position: int, now: float, reasons: dict[Kind, str]) -> None:
        quota = self._quotas[ticket.slot_request.user.name]
        pace = self._paces.get(ticket.slot_request.model)
        ticket.position = position
        ticket.wait = None if pace is None else pace.wait(position, now)
        if ticket.wait is not None and not ticket.returned:
            ticket.wait = max(ticket.wait, quota.refilled(now) - now)
        if ticket.wait is not None:
            ticket.wait = min(ticket.wait, _LONGEST)
        ticket.reason = quota.why(now, rated=not ticket.returned)
        if not ticket.reason:
            if ticket.kind not in reasons:
                reasons[ticket.kind] = self._reason(ticket)
            ticket.reason = reasons[ticket.kind]

    def _reason(self, ticket: Ticket) -> str:
        try:
            return self._why(ticket)
        except Exception:
            log.exception("why_failed")
            return ""
