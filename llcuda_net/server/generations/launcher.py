"""What runs: each generation in a task, from its place in the queue until all were told of its end.

A generation belongs to no connection. What it does when its last reader leaves its `on_disconnect`
says.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import structlog
import trio

from llcuda_net.analysis.analyzer import Analyst
from llcuda_net.generation.generation import Generation
from llcuda_net.generation.registry import Registry
from llcuda_net.generation.state import Place
from llcuda_net.scheduler.scheduler import Scheduler
from llcuda_net.scheduler.ticket import SlotRequest, Ticket
from llcuda_net.server.generations.waiting import Waiting
from llcuda_net.server.http.delivery.runs import Runs
from llcuda_net.telemetry.observers import Watches
from llcuda_net.telemetry.status import Reporter
from llcuda_net.util.logs import reason_of
from llcuda_protocol.kinds import MAX_LINGER

log = structlog.get_logger(__name__)


class Launcher:
    """Starts generations, and ends those that nobody reads.

    Args:
        scheduler: gives them slots.
        registry: holds them while they run.
        waiting: knows whose ticket is whose.
        runs, reporter, watch: told of each that has ended; the first one of each that begins, too.
        analyst: woken when one has ended; None: nothing is analysed.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        registry: Registry,
        waiting: Waiting,
        runs: Runs,
        reporter: Reporter,
        watch: Watches,
        analyst: Analyst | None,
    ) -> None:
        self._scheduler = scheduler
        self._registry = registry
        self._waiting = waiting
        self._runs = runs
        self._reporter = reporter
        self._watch = watch
        self._analyst = analyst
        self._nursery: trio.Nursery

    def __repr__(self) -> str:
        return f"<Launcher of {self._registry!r}>"

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Hold the tasks of all that is started; runs until cancelled."""
        async with trio.open_nursery() as self._nursery:
            task_status.started()
            await trio.sleep_forever()

    def enter(
        self, generation: Generation, slot_request: SlotRequest, *, always: bool = False
    ) -> Ticket:
        """A place in the queue for a generation; its readers see each move.

        Args:
            always: also where the queue is full.

        Raises:
            RequestError: the queue is full.
        """

        def moved(ticket: Ticket) -> None:
            generation.queued(ticket.position, ticket.wait, ticket.reason)

        ticket = self._scheduler.submit(
            slot_request, always=always, on_move=moved, tokens_made=lambda: generation.made
        )
        if ticket.position:
            generation.place = Place(ticket.position, ticket.wait, ticket.reason)
        self._waiting.add(ticket, generation)
        return ticket

    def start(self, generation: Generation, run: Callable[[], Awaitable[None]]) -> None:
        """Have a generation run in a task of its own, until it has ended or is set aside."""

        async def to_its_end() -> None:
            await run()
            if not generation.suspended:
                self._ended(generation)

        self._registry.add(generation)
        self._nursery.start_soon(to_its_end)
        self._runs.began(generation)

    def _ended(self, generation: Generation) -> None:
        """Tell all that follow what runs."""
        if self._analyst is not None:
            self._analyst.wake()
        self._runs.ended(generation)
        self._reporter.ended(generation)
        self._watch.ended(generation)
        error = generation.error
        reason = None if error is None else reason_of(error.code, error.message)
        log.info(
            "generation_ended",
            generation=generation.id,
            state=generation.state,
            pieces=generation.count,
            seconds=round(trio.current_time() - generation.times.received, 3),
            **({} if error is None else {"code": error.code, "reason": reason}),
        )
        if error is not None:
            log.debug("generation_error", generation=generation.id, message=error.message)

    def left(self, generation: Generation, at_least: float = 0.0) -> None:
        """A reader has left: if it was the last, start the timer of `on_disconnect`.

        Args:
            at_least: seconds for which it goes on whatever that says.
        """
        if not generation.left():
            return
        seconds = max(generation.on_disconnect, at_least)
        if generation.readers or generation.ended or seconds >= MAX_LINGER:
            return
        if seconds <= 0:
            generation.cancel()
        elif generation.abandoned is None:
            generation.abandoned = trio.CancelScope()
            self._nursery.start_soon(self._abandon, generation, generation.abandoned, seconds)

    async def _abandon(
        self, generation: Generation, scope: trio.CancelScope, seconds: float
    ) -> None:
        with scope:
            await trio.sleep(seconds)
            if generation.readers:  # one has come in this very moment
                return
            log.info("generation_abandoned", generation=generation.id)
            generation.cancel()
