"""Loads local models when they are needed, and unloads those whose memory others need.

What is to be done, `policy` decides from how all models stand; this module looks, asks it, and does
it. It looks again whenever a model is wanted and not there, a slot was given back, a load or unload
is over, and when the policy says that time alone changes the answer.
"""

from __future__ import annotations

import math
import re
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import structlog
import trio

from llcuda_net.errors import (
    EngineError,
    RequestError,
    UnknownModel,
    Unsupported,
    UpstreamUnavailable,
)
from llcuda_net.models.need import Budget, Need
from llcuda_net.models.serving import loads
from llcuda_net.models.serving.instance import Instance
from llcuda_net.models.serving.policy import plan
from llcuda_net.models.serving.record import Record
from llcuda_net.models.serving.state import ModelState, Plan, Wait
from llcuda_net.scheduler.ticket import Ticket
from llcuda_net.upstream.pool import Pool
from llcuda_net.upstream.residence import NOT_LOADED, Presence, Wishes

log = structlog.get_logger(__name__)

#: How much of the last load's time counts in the next estimate.
_WEIGHT = 0.5


#: Seconds until it is tried again where a bug kept it from deciding.
_AFTER_BUG = 1.0
#: What engines say where memory was too little for a load.
_NO_MEMORY = re.compile(
    r"out of memory|unable to allocate|failed to allocate|cannot allocate|not enough memory"
    r"|insufficient memory|bad_alloc|SIGKILL",
    re.IGNORECASE,
)


class Manager:
    """Decides and does what local models are loaded.

    Args:
        pool: has their backends.
        budget: memory for all of them together.
        wishes: wakes it.
        in_thread: measures what a process takes.

    Attributes:
        budget: as it is now.
    """

    def __init__(
        self,
        pool: Pool,
        budget: Budget,
        wishes: Wishes,
        *,
        in_thread: Callable[
            [Callable[[], Need | None]], Awaitable[Need | None]
        ] = trio.to_thread.run_sync,
    ) -> None:
        self._pool = pool
        self._in_thread = in_thread
        self.budget = budget
        self._wishes = wishes
        self._records: dict[str, Record] = {}
        self._waiting: Callable[[], Iterable[Ticket]] = tuple
        self._nursery: trio.Nursery | None = None
        self._removed = 0

    def __repr__(self) -> str:
        states = ", ".join(
            f"{name} {one.instance.residence.presence}" for name, one in self._records.items()
        )
        return f"<Manager: {states or 'no models'}>"

    # -- which models there are ------------------------------------------------------------------

    @property
    def instances(self) -> list[Instance]:
        """All of them, the default one first."""
        return [one.instance for one in self._served()]

    def _served(self) -> list[Record]:
        """Those that are not about to go for good."""
        return [one for one in self._records.values() if not one.instance.backend.draining]

    def add(self, instance: Instance) -> None:
        """Take a model in."""
        self._records[instance.name] = Record(instance, trio.current_time())
        self._pool.add(instance.backend)
        self._wishes.notify()

    def remove(self, name: str) -> None:
        """Serve a model no more; it is unloaded when what runs on it has ended.

        Another one may take its name at once.
        """
        record = self._records.pop(name)
        record.wanted = False
        self._removed += 1
        record.key = f"{name} (removed, {self._removed})"
        self._pool.drain(record.instance.backend)
        if record.instance.residence.presence is not Presence.UNLOADED:
            self._records[record.key] = record
        else:
            self._forget_removed(record)
        self._wishes.notify()

    def set_budget(self, budget: Budget) -> None:
        """Give all models together so much memory; what did not fit before is tried again."""
        self.budget = budget
        for record in self._records.values():
            if math.isinf(record.failed_until) and record.failed_until > 0:
                self._forget_failure(record)
        self._wishes.notify()

    @property
    def taken(self) -> Need:
        """What all models need together whose processes are there."""
        there = [
            record.need
            for record in self._records.values()
            if record.instance.residence.presence is not Presence.UNLOADED
        ]
        return sum(there, Need())

    def warn_of_what_never_fits(self) -> None:
        """Say in the log which models can never be loaded, and what to do."""
        states = self._states(trio.current_time())
        for state in states:
            if (why := loads.refusal(state, states, self.budget)) is not None:
                log.warning("model_never_fits", model=state.name, reason=why)

    def find(self, name: str) -> Instance | None:
        """The model of a name or an alias."""
        try:
            return self._record_of(name).instance
        except UnknownModel:
            return None

    def load(self, name: str) -> None:
        """Have a model loaded, also where that has failed lately.

        Raises:
            UnknownModel: there is none of that name or alias.
            Unsupported: it can never be loaded, since it needs too much memory.
        """
        record = self._record_of(name)
        states = self._states(trio.current_time())
        state = next(one for one in states if one.name == record.key)
        if (refusal := loads.refusal(state, states, self.budget)) is not None:
            raise Unsupported(refusal)
        self._forget_failure(record)
        record.wanted = True
        self._wishes.notify()

    def wanted(self, name: str) -> bool:
        """Whether a model is to be loaded though no request asks for it."""
        found = self.find(name)
        return found is not None and self._records[found.name].wanted is True

    def unload(self, name: str) -> None:
        """Have a model unloaded, once what runs on it has ended; the next request loads it again.

        Raises:
            UnknownModel: there is none of that name or alias.
        """
        self._record_of(name).wanted = False
        self._wishes.notify()

    def _record_of(self, name: str) -> Record:
        """Raises UnknownModel."""
        for record in self._served():
            if name in (record.instance.name, *record.instance.described.spec.aliases):
                return record
        raise UnknownModel(f"there is no model {name[:100]!r}")

    def _forget_failure(self, record: Record) -> None:
        record.failed_until = -math.inf
        record.instance.residence.retry()

    def report(self) -> list[dict[str, Any]]:
        """Each model, for people and programs; never where its files are."""
        now = trio.current_time()
        states = {state.name: state for state in self._states(now)}
        return [one.report(states[one.key], now) for one in self._served()]

    # -- its work --------------------------------------------------------------------------------

    async def run(
        self,
        waiting: Callable[[], Iterable[Ticket]],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Load and unload until cancelled; then no process is left.

        Args:
            waiting: returns the tickets that wait, in the order in which they are served.
        """
        self._waiting = waiting
        async with trio.open_nursery() as self._nursery:
            task_status.started()
            while True:
                try:
                    again_at = self._step()
                except Exception:  # a bug here must not end the server
                    log.exception("models_not_planned")
                    again_at = trio.current_time() + _AFTER_BUG
                with trio.move_on_at(math.inf if again_at is None else again_at):
                    await self._wishes.wait()

    async def settled(self, name: str) -> None:
        """Return when a model is loaded.

        Raises:
            RequestError: it cannot be.
        """
        async with self._records[name].instance.residence.held():
            pass

    def _step(self) -> float | None:
        """Look, decide and do; returns when time alone may change the answer."""
        now = trio.current_time()
        states = self._states(now)
        decided = plan(states, self.budget, now)
        self._do(decided, now)
        for state in states:
            if state.waiting and state.presence is Presence.UNLOADED:
                refusal = loads.refusal(state, states, self.budget)
                if refusal is not None:
                    self._fail(self._records[state.name], Unsupported(refusal), math.inf)
        return decided.again_at

    def _do(self, decided: Plan, now: float) -> None:
        assert self._nursery is not None
        for name in decided.load:
            record = self._move(name, Presence.LOADING, now, f"model {name} is being loaded")
            if record.wanted is False and not record.instance.backend.draining:
                record.wanted = None  # a request overrules it
            self._nursery.start_soon(self._load, record)
        for name in decided.leave:
            self._move(name, Presence.LEAVING, now, f"model {name} makes room for another model")
        for name in decided.stay:
            self._move(name, Presence.LOADED, now)
        for name in decided.unload:
            record = self._move(name, Presence.UNLOADING, now, f"model {name} is being unloaded")
            draining = record.instance.backend.draining
            record.swaps += bool(decided.waits) and record.wanted is not False and not draining
            self._nursery.start_soon(self._unload, record)
        for name, record in self._records.items():
            self._explain(record, decided.waits.get(name))
        if decided.load or decided.leave or decided.stay or decided.unload:
            self._pool.update()

    def _move(self, name: str, presence: Presence, now: float, reason: str = "") -> Record:
        record = self._records[name]
        record.since = now
        record.instance.residence.move(presence, reason)
        log.debug("model_moves", model=name, to=str(presence))
        return record

    def _explain(self, record: Record, wait: Wait | None) -> None:
        residence = record.instance.residence
        if wait is not None and not residence.takes_work:
            residence.reason, residence.ready_in = wait.reason, wait.seconds
        elif residence.presence is Presence.UNLOADED and residence.error is None:
            residence.reason, residence.ready_in = NOT_LOADED, None  # nobody waits any more

    async def _load(self, record: Record) -> None:
        assert self._nursery is not None
        instance, began = record.instance, trio.current_time()
        try:
            await instance.load(self._nursery)
        except (EngineError, RequestError) as error:
            self._failed(record, str(error))
            return
        except Exception as error:  # a bug at one model must not end the others
            log.exception("model_load_crashed", model=instance.name)
            self._failed(record, f"a bug: {type(error).__name__}")
            return
        now = trio.current_time()
        took = now - began
        first = instance.loads == 1
        record.load_seconds = (
            took if first else record.load_seconds + _WEIGHT * (took - record.load_seconds)
        )
        record.load_time += took
        record.failures = record.memory_failures = 0
        record.killed = False
        if record.wanted is True:
            record.wanted = None
        self._move(record.key, Presence.LOADED, now)
        self._changed()  # what waits is served while it is measured
        if (found := await self._in_thread(instance.measured)) is not None:
            record.need = found
            self._wishes.notify()
        log.info(
            "model_loaded",
            model=instance.name,
            seconds=round(took, 2),
            memory=record.need.host,
            gpu_memory=record.need.gpu,
        )

    def _failed(self, record: Record, reason: str) -> None:
        record.failed_loads += 1
        if self._makes_more_room(record, reason) or self._was_killed(record, reason):
            return
        record.failures += 1
        pause = loads.backoff(record.failures)
        log.error("model_not_loaded", model=record.instance.name, reason=reason, retry=pause)
        why = record.instance.described.without_folders(reason)
        self._fail(record, UpstreamUnavailable(why, retry=True, retry_after=pause), pause)
        self._changed()

    def _makes_more_room(self, record: Record, reason: str) -> bool:
        """Whether a load that found too little memory is tried again where others have left."""
        others = any(
            one is not record and one.instance.residence.presence is not Presence.UNLOADED
            for one in self._records.values()
        )
        gone = record.instance.backend.draining
        if gone or not others or not _NO_MEMORY.search(reason):
            return False
        record.memory_failures += 1
        grown = loads.need_after_no_memory(record.need, None, record.memory_failures)
        if grown is None or not grown.within(self.budget.room):
            return False
        record.need = grown
        log.warning(
            "model_needs_more_memory",
            model=record.instance.name,
            reason=reason,
            memory=grown.host,
            gpu_memory=grown.gpu,
        )
        why = f"model {record.instance.name} found too little memory: others make room"
        self._move(record.key, Presence.UNLOADED, trio.current_time(), why)
        self._changed()
        return True

    def _was_killed(self, record: Record, reason: str) -> bool:
        """Whether a load is tried again before anybody is told, as its process was killed.

        Once in a row: that says little of the model, and answers half done wait for it.
        """
        if record.instance.backend.draining or record.killed or not loads.killed(reason):
            return False
        record.killed = True
        name = record.instance.name
        log.warning("model_loads_again", model=name, reason=reason)
        why = f"model {name} is loaded once more: its engine was killed while it was loaded"
        self._move(record.key, Presence.UNLOADED, trio.current_time(), why)
        self._changed()
        return True

    def _fail(self, record: Record, error: RequestError, pause: float) -> None:
        now = trio.current_time()
        record.since, record.failed_until = now, now + pause
        if record.wanted is True:
            record.wanted = None
        record.instance.residence.fail(error, pause)
        self._forget_removed(record)
        self._pool.update()

    async def _unload(self, record: Record) -> None:
        await record.instance.unload()
        self._move(record.key, Presence.UNLOADED, trio.current_time(), NOT_LOADED)
        log.info("model_unloaded", model=record.instance.name)
        self._forget_removed(record)
        self._changed()

    def _forget_removed(self, record: Record) -> None:
        """Forget one that is no more served, and whose process is gone."""
        instance = record.instance
        if not instance.backend.draining:
            return
        self._records.pop(record.key, None)
        # Whoever waits for it without a ticket waits for nothing.
        instance.residence.fail(
            UnknownModel(f"there is no model {instance.name!r} any more"), math.inf
        )
        if self._nursery is not None:
            self._nursery.start_soon(instance.aclose)

    def _changed(self) -> None:
        self._pool.update()
        self._wishes.notify()

    # -- how all models stand ----------------------------------------------------------------------

    def _states(self, now: float) -> list[ModelState]:
        waiting: dict[str, tuple[int, int, float]] = {}
        for rank, ticket in enumerate(self._waiting()):
            key = ticket.slot_request.model
            count, first, since = waiting.get(key, (0, rank, now))
            waiting[key] = (count + 1, first, min(since, ticket.submitted))
        return [self._state(record, waiting, now) for record in self._records.values()]

    def _state(
        self, record: Record, waiting: dict[str, tuple[int, int, float]], now: float
    ) -> ModelState:
        instance = record.instance
        residence, spec = instance.residence, instance.described.spec
        record.count(now)
        nobody = 0, math.inf, math.inf
        count, rank, since = waiting.get(instance.backend.model_key, nobody)
        if instance.backend.draining:
            count, rank, since = nobody
        if residence.wanted:
            count, rank, since = count + 1, min(rank, 0), min(since, residence.wanted_since)
        running = len(instance.backend.leases) + (residence.holds if residence.present else 0)
        return ModelState(
            name=record.key,
            presence=residence.presence,
            since=record.since,
            need=record.need,
            pinned=spec.pinned,
            wanted=record.wanted,
            running=running,
            waiting=count,
            waits_since=since if count else None,
            rank=rank,
            last_used=now if running else max(residence.last_used, record.used_at),
            uses=record.uses,
            load_seconds=record.load_seconds,
            idle_seconds=spec.idle_seconds,
            failed_until=record.failed_until,
            finishes_in=instance.backend.finishes_in,
        )
