"""One upstream of the pool: its slots, how it does, and the task that watches it.

1. Work is given only while its breaker is closed, and only into slots known to be free.
2. An upstream is believed when it makes tokens, not when it says that it is healthy: one that is
   half open is made to make one, and one whose streams stand still is given up.
3. What its process held is gone when the process is; when it is back it is asked anew what it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog
import trio

from llcuda_net.config.upstreams import COMPLETIONS, Spec
from llcuda_net.errors import RequestError, UpstreamStalled
from llcuda_net.upstream.circuit_breaker import Breaker
from llcuda_net.upstream.circuit_breaker import State as BreakerState
from llcuda_net.upstream.interface import Properties, Upstream
from llcuda_net.upstream.lease import DOWN, Lease, Requirement
from llcuda_net.upstream.model.fingerprint import (
    Fingerprint,
    Told,
    plain_fingerprint,
    same_model,
)
from llcuda_net.upstream.model.identity import Identity, Signature, alike, probe
from llcuda_net.upstream.prefix_cache import Trust
from llcuda_net.upstream.slots import Slot, Slots, Use
from llcuda_protocol import ErrorCode

log = structlog.get_logger(__name__)

#: Seconds between two looks at an upstream that works.
LOOK = 1.0
#: Seconds between two looks at slots that are being released, at first and at most.
FIRST_PAUSE, LONGEST_PAUSE = 0.004, 0.25
#: Seconds for an answer to "are you there", and of silence on a stream after which, if there is no
#: such answer either, the stream is cut.
PATIENCE = 2.0
SILENT = 5.0
#: Seconds after which a slot counts as released where the upstream does not tell.
UNTOLD = 1.0


class Backend:
    """An upstream in the pool.

    Args:
        upstream: who answers.
        folder: where hashes of model files are kept.
        model: the model's file, where it is known.

    Attributes:
        on_change: called when there may be room for work, or the model is known.
        leases: of slots that are in use.
        draining: it gets no more work.
        table: its slots.
        restarted: tells how often it was started again, where that is in our hands.
        failures: how often it failed at a request.
        failovers: how many generations went on elsewhere.
        group: the model it serves, by the pool's key; empty while that is not known.
    """

    def __init__(
        self,
        spec: Spec,
        upstream: Upstream,
        *,
        folder: Path | None = None,
        model: Path | None = None,
    ) -> None:
        self.spec = spec
        self.upstream = upstream
        self.table = Slots()
        self.breaker = Breaker()
        self.trust = Trust()
        self.leases: set[Lease] = set()
        self.draining = False
        self.watched = False
        self.was_up = False
        self.restarted: Callable[[], int] = lambda: 0
        self.failures = 0
        self.failovers = 0
        self.down_since = 0.0
        self.signature: Signature | None = None
        #: What it had said of itself, and what it then called its model in an answer.
        self.named: tuple[Properties, str] | None = None
        self.model_key = ""
        self.on_change: Callable[[], None] = lambda: None
        self.wants_signature: Callable[[], bool] = lambda: False
        # Nobody asks for the file's hash where nothing is kept and nothing compared.
        self.fingerprint: Fingerprint | Told = (
            Told(upstream)
            if folder is None and model is None
            else Fingerprint(upstream, folder, model)
        )
        self._told: dict[str, Any] = {}
        self._silent_since: float | None = None
        self._tells_slots = True
        #: Roles that it was given, and does not have: it was started for embeddings only.
        self._lacks: frozenset[str] = frozenset()
        self._wake = trio.Event()
        self._pause = FIRST_PAUSE
        self._checked = -math.inf

    # -- as it stands -------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """What it is called."""
        return self.spec.name

    @property
    def up(self) -> bool:
        """Whether it may be given work."""
        return not self.draining and (self.breaker.closed or not self.watched)

    @property
    def state(self) -> str:
        """up, down, probing or draining."""
        if self.draining:
            return "draining"
        if self.breaker.closed:
            return "up"
        return "probing" if self.breaker.state is BreakerState.HALF_OPEN else "down"

    @property
    def reason(self) -> str:
        """Why it is not up."""
        return self.breaker.reason

    @property
    def model(self) -> str:
        """What its model is called, or was when it was there last; empty until that is known."""
        if self.spec.model is not None:
            return self.spec.model
        properties = self.upstream.properties
        return properties.model if properties is not None else self._told.get("name", "")

    @property
    def identity(self) -> Identity:
        """What tells its model from others."""
        known = self.fingerprint().get("hash")
        return Identity(self.spec.model, known, self.signature)

    @property
    def roles(self) -> frozenset[str]:
        """What it is used for."""
        return self.spec.roles - self._lacks

    @property
    def slots(self) -> int:
        """All of its slots that are used; 0 while that is not known."""
        return len(self.table) if self.table.known else 0

    @property
    def foreign(self) -> int:
        """Slots that work for somebody else."""
        return self.table.count(Use.FOREIGN)

    @property
    def releasing(self) -> int:
        """Slots that were given back and are not yet seen to be free."""
        return self.table.count(Use.RELEASING)

    @property
    def restarts(self) -> int:
        """How often it was started again, where that is in our hands."""
        return self.restarted()

    @property
    def free(self) -> int:
        """Slots that may be given out."""
        return self.table.count(Use.FREE)

    @property
    def busy(self) -> int:
        """Slots that work for us."""
        return self.table.count(Use.BUSY)

    def may(self, requirement: Requirement) -> bool:
        """Whether it could meet a need, were a slot free."""
        if requirement.only is not None and requirement.only != self.name:
            return False
        return (
            requirement.role in self.roles
            and self.name not in requirement.avoid
            and (self.model_key == requirement.model or not requirement.model)
        )

    # -- work ---------------------------------------------------------------------------------

    def lease(self, requirement: Requirement, slot: Slot, blocks: int, holder: str) -> Lease:
        """Give out a slot."""
        lease = Lease(self, slot, requirement, blocks, holder)
        self.leases.add(lease)
        return lease

    def failed(self, error: RequestError) -> None:
        """It failed at a request."""
        self.failures += 1
        if error.code in DOWN:
            self._gone()
            self._down(error.message)
        elif self.breaker.failed():
            # Not in its own words, which may quote what was asked: others read this.
            self._down("answers with errors")
        self._wake.set()

    def record_success(self) -> None:
        """It has done what was asked of it."""
        was_up = self.breaker.closed
        self.breaker.ok()
        if not was_up:
            self._silent_since = None
            log.info("upstream_up", upstream=self.name, model=self.model, slots=len(self.table))
            self.on_change()

    def verify(self, slot: Slot) -> None:
        """A slot was given back whose request was broken off: look until it is free."""
        if not self.watched:
            slot.turn(Use.FREE)
            return
        self._pause = FIRST_PAUSE
        self._wake.set()

    def hurry(self) -> None:
        """There is reason to think that it is back, as another process."""
        self._gone()
        self.breaker.hurry()
        self._wake.set()

    def _down(self, reason: str) -> None:
        if self.breaker.closed:
            self.down_since = trio.current_time()
            log.warning("upstream_down", upstream=self.name, reason=reason)
        self.breaker.trip(reason)
        self.on_change()  # what waited for it may do with another one

    def _gone(self) -> None:
        self.upstream.forget()
        self.table.lost()
        self._tells_slots, self._lacks = True, frozenset()  # as far as we know

    # -- the watch ----------------------------------------------------------------------------

    async def properties(self) -> Properties:
        """What it is; asked for where that is not known, and so are its slots then.

        Raises:
            RequestError: it does not say.
        """
        properties = await self.upstream.ask()
        self.was_up = True
        self._tell(plain_fingerprint(properties))
        self._fit(properties)
        return properties

    def take(self, spec: Spec) -> None:
        """Be described otherwise: by another weight, or number of slots."""
        self.spec = spec
        if self.upstream.properties is not None:
            self._fit(self.upstream.properties)

    def _fit(self, properties: Properties) -> None:
        count = properties.slots
        if self.spec.slots is not None:
            count = min(count, self.spec.slots)
        if not self.table.known or len(self.table) != count:
            self.table.resize(count)
            self.on_change()

    def _tell(self, told: dict[str, Any]) -> None:
        """It says this of itself now: another model than it had is to be told from others anew."""
        if self._told and not same_model(self._told, told):
            self.signature = None
            if self.spec.model is None and self.wants_signature():
                self.model_key = ""
        self._told = told

    async def watch(self) -> None:
        """Look after it until cancelled."""
        self.watched = True
        async with trio.open_nursery() as nursery:
            if isinstance(self.fingerprint, Fingerprint):
                nursery.start_soon(self.fingerprint.run)
            while True:
                try:
                    await self._look() if self.breaker.closed else await self._probe()
                except RequestError as error:
                    if error.code in DOWN:
                        self._gone()
                    self._down(error.message)
                    if error.code == ErrorCode.UPSTREAM_UNAVAILABLE:
                        self._cut_silent(self.down_since)
                except Exception:  # a bug here must not end the server
                    log.exception("watch_failed", upstream=self.name)
                    self._down("could not be watched")
                await self._rest()

    async def _rest(self) -> None:
        """Until the next look is due, or something has happened."""
        now = trio.current_time()
        pause = LOOK
        if self.releasing:
            pause = self._pause
            self._pause = min(2 * self._pause, LONGEST_PAUSE)
        while trio.current_time() < (now + pause if self.breaker.closed else self.breaker.retry_at):
            until = now + pause if self.breaker.closed else self.breaker.retry_at
            with trio.move_on_at(until):
                await self._wake.wait()
            if self._wake.is_set():
                self._wake = trio.Event()
                if self.breaker.closed:
                    return

    async def _look(self) -> None:
        """See that it is there, and which of its slots work."""
        if self.upstream.properties is None or not self.table.known:
            await self.properties()
        if self.signature is None and self.wants_signature():
            await self._sign()
        if trio.current_time() >= self._checked + LOOK:
            with trio.move_on_after(PATIENCE) as scope:
                await self.upstream.check()
            if scope.cancelled_caught:
                self._is_silent()
                return
            self._checked = trio.current_time()
            self._silent_since = None
        if self.releasing or self.foreign or self.leases:
            await self._look_at_slots()

    async def _look_at_slots(self) -> None:
        asked = trio.current_time()
        busy = None
        if self._tells_slots:
            with trio.move_on_after(PATIENCE) as scope:
                busy = await self.upstream.slots()
                self._tells_slots = busy is not None
            if scope.cancelled_caught:
                return  # it answers between two steps, and a step over a long prompt takes long
        table = self.table
        if busy is not None and len(busy) < len(table):
            busy = None  # what it does not tell of would never be free again
        if table.untold(asked - UNTOLD) if busy is None else table.told(busy, asked):
            self.on_change()

    def _is_silent(self) -> None:
        """It does not even say that it is there: what stands still is to go on elsewhere."""
        now = trio.current_time()
        if self._silent_since is None:
            self._silent_since = now - PATIENCE
        if now - self._silent_since < SILENT:
            return
        reason = f"has said nothing for {now - self._silent_since:.0f} s"
        self._down(reason)
        self._cut_silent(self._silent_since)

    async def _probe(self) -> None:
        """It was down: see whether it makes a token."""
        self.breaker.probe()
        with trio.move_on_after(PATIENCE) as scope:
            await self.upstream.check()
        if scope.cancelled_caught:
            self._is_silent_still()
            return
        await self.properties()
        if self.releasing:
            await self._look_at_slots()
        if not self.free and not self.leases and self.releasing:
            raise UpstreamStalled("it still works at what was broken off", retry=True)
        await self._sign()
        self.record_success()

    def _is_silent_still(self) -> None:
        self.breaker.trip(f"does not answer within {PATIENCE:g} s")
        self._cut_silent(self.down_since)

    def _cut_silent(self, since: float) -> None:
        """It is not there since then: what has stood still as long is to go on elsewhere."""
        now = trio.current_time()
        for lease in tuple(self.leases):
            silence = now - max(since, lease.silent_since)
            if silence >= SILENT:
                lease.cut(f"has said nothing for {silence:.0f} s")

    async def _sign(self) -> None:
        """Have it make a token, if it is one that makes any and has a slot free for that."""
        if COMPLETIONS not in self.roles:
            return
        found = self.table.best(())
        if found is None:
            return  # whoever has its slots will learn whether it works
        slot = found[0]
        number = slot.number if self.table.known else None
        slot.turn(Use.BUSY)
        signature: Signature = {}
        try:
            signature = await probe(self.upstream, number)
        except BaseException as error:
            if getattr(error, "code", None) != ErrorCode.UNSUPPORTED:
                slot.turn(Use.RELEASING)
                raise
            log.info("upstream_completes_nothing", upstream=self.name)
            self._lacks = frozenset({COMPLETIONS})
        finally:
            slot.chain = ()  # it holds the probe now
        slot.turn(Use.FREE)
        if self.signature is not None and not alike(self.signature, signature):
            self.model_key = ""  # another model than it had
        self.signature = signature
        self.on_change()
