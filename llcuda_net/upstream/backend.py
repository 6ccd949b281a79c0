"""One upstream of the pool, as far as it is known, and the leases of its slots.

1. Work is given only while the circuit breaker is closed, and only into slots known to be free.
2. A `Backend` is state: it does no I/O and knows nobody. Its methods return whether the pool must
   look at it again, because a slot is free, because it is up or down, or because of its model.
3. `Lease` (for one request) and `HealthCheck` (for as long as the backend is in the pool) do the
   I/O, report to the backend what they see, and pass on what it returns.
4. What the process behind an upstream held is gone when the process is.
5. One that answers that it takes no more for now has not failed: it is up, and rests (see rest.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import structlog
import trio

from llcuda_net.config.upstreams import COMPLETIONS, UpstreamSpec
from llcuda_net.errors import RequestError, UpstreamBusy, UpstreamNotReady, UpstreamStalled
from llcuda_net.upstream.circuit_breaker import CircuitBreaker
from llcuda_net.upstream.circuit_breaker import State as BreakerState
from llcuda_net.upstream.interface import (
    DOWN,
    CompletionEvent,
    Properties,
    Requirement,
    Upstream,
)
from llcuda_net.upstream.model.fingerprint import (
    Fingerprint,
    ReportedFingerprint,
    plain_fingerprint,
    same_model,
)
from llcuda_net.upstream.model.identity import Identity, Signature, alike
from llcuda_net.upstream.prefix_cache import TOKENS_A_BLOCK, HitRate, chain_of
from llcuda_net.upstream.rest import Rest
from llcuda_net.upstream.slots.speeds import Speeds
from llcuda_net.upstream.slots.step_samples import StepSamples
from llcuda_net.upstream.slots.table import Slot, Slots, Use

log = structlog.get_logger(__name__)


class Times(Protocol):
    """When what an upstream does gets on, on trio's clock; of a generation."""

    @property
    def first_token(self) -> float | None:
        """When its first token came; None: none has."""

    @property
    def progress(self) -> float:
        """When its last token came; 0 before the first one."""


class Work(Protocol):
    """What an upstream works at: a generation."""

    @property
    def made(self) -> int:
        """Tokens of it so far."""

    @property
    def times(self) -> Times:
        """When they came."""


@dataclass(frozen=True, slots=True)
class _NoTokens:
    """What no tokens come of."""

    made: int = 0
    first_token: float | None = None
    progress: float = 0.0

    @property
    def times(self) -> Times:
        return self


_NO_WORK = _NoTokens()


class Backend:
    """An upstream in the pool.

    Args:
        spec: how the operator describes it.
        upstream: answers requests.
        folder: where hashes of model files are kept; None: none are kept.
        model: the model's file, where it is known.
        restarts: returns how often it was started again, where that is in our hands.
        unified: its slots are known to share one KV cache; else that is learnt.

    Attributes:
        table: its slots.
        speeds: how fast it is, by which its slots are chosen.
        breaker: whether it may be given work, by how it has done.
        hit_rate: how often its prompt cache held what it was expected to hold.
        leases: of the slots that are in use.
        draining: it gets no more work.
        watched: a health check runs; without one it counts as up.
        was_up: it has answered at least once.
        loading: it has not, but a server is there, and says that it is not ready.
        failures: requests that it failed at.
        failovers: generations that went on elsewhere.
        down_since: when it last went down, on trio's clock.
        rest: for which it gets no work, because it asked for that.
        silent_since: since when it has not answered a health check, on trio's clock; None: it does.
        reports_slots: it has /slots, as far as is known of this process.
        signature: of its model; None: not known.
        named: its properties, and how it then called its model in an answer.
        model_key: the pool's key of its model; empty while that is not known.
        key_expired: it reports another model than before, and the pool has not looked at it since.
        attention: set when the health check should not wait for its next turn.
    """

    def __init__(
        self,
        spec: UpstreamSpec,
        upstream: Upstream,
        *,
        folder: Path | None = None,
        model: Path | None = None,
        restarts: Callable[[], int] = lambda: 0,
        unified: bool = False,
    ) -> None:
        self.spec = spec
        self.upstream = upstream
        self.table = Slots()
        self.speeds = Speeds(unified)
        self.breaker = CircuitBreaker()
        self.hit_rate = HitRate()
        self.leases: set[Lease] = set()
        self.draining = False
        self.watched = False
        self.was_up = False
        self.loading = False
        self.failures = 0
        self.failovers = 0
        self.down_since = 0.0
        self.rest = Rest()
        self.silent_since: float | None = None
        self.reports_slots = True
        self.signature: Signature | None = None
        self.named: tuple[Properties, str] | None = None
        self.model_key = ""
        self.key_expired = False
        self.attention = trio.Event()
        # The file's hash is of no use where nothing is kept and nothing compared.
        self.fingerprint: Fingerprint | ReportedFingerprint = (
            ReportedFingerprint(upstream)
            if folder is None and model is None
            else Fingerprint(upstream, folder, model)
        )
        self._restarts = restarts
        self._step_samples = StepSamples()
        self._reported: dict[str, Any] = {}
        #: Roles that it was given and does not have: it was started for embeddings only.
        self._lacks: frozenset[str] = frozenset()

    def __repr__(self) -> str:
        why = f" ({self.reason})" if self.reason else ""
        model = f"{self.model or 'unknown'} [{self.model_key or 'no key'}]"
        return f"<Backend {self.name}: {self.state}{why}, model {model}, {self.table!r}>"

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
    def resting(self) -> bool:
        """Whether it has asked for a pause; what waits for it is only woken if it is watched."""
        return self.watched and self.rest.left > 0

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
        """Why it is not up, or rests."""
        if self.breaker.closed and self.resting:
            return f"takes no more for now; it is asked again in {self.rest.left:.1f} s"
        return self.breaker.reason

    @property
    def model(self) -> str:
        """The name of its model, or of the one that it had last; empty until that is known."""
        if self.spec.model is not None:
            return self.spec.model
        properties = self.upstream.properties
        return properties.model if properties is not None else self._reported.get("name", "")

    @property
    def identity(self) -> Identity:
        """What distinguishes its model from others."""
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
        return self._restarts()

    @property
    def free(self) -> int:
        """Slots that may be given out."""
        return self.table.count(Use.FREE)

    @property
    def busy(self) -> int:
        """Slots that work for us."""
        return self.table.count(Use.BUSY)

    def best(self, requirement: Requirement) -> tuple[Slot, int] | None:
        """The free slot that costs least for a request, and how many of its blocks it holds."""
        outlook = self.speeds.outlook(requirement.answer, self.hit_rate.mean)
        return self.table.best(requirement.chain, outlook)

    def meets(self, requirement: Requirement) -> bool:
        """Whether it could serve a request, if a slot were free."""
        if requirement.only is not None and requirement.only != self.name:
            return False
        return (
            requirement.role in self.roles
            and self.name not in requirement.avoid
            and (not requirement.abilities or self._has(requirement.abilities))
            and (self.model_key == requirement.model or not requirement.model)
        )

    def _has(self, abilities: frozenset[str]) -> bool:
        """Whether its model takes what it must, as far as is known now."""
        properties = self.upstream.properties
        return properties is None or abilities <= properties.abilities

    # -- how it does; each returns whether the pool must look at it again -----------------------

    def record_success(self) -> bool:
        """It has done what was asked of it."""
        was_up = self.breaker.closed
        self.breaker.record_success()
        self.rest.record_success()
        if not was_up:
            self.silent_since = None
            log.info("upstream_up", upstream=self.name, model=self.model, slots=len(self.table))
        return not was_up

    def record_failure(self, error: RequestError) -> bool:
        """It failed at a request."""
        if isinstance(error, UpstreamBusy):
            return self.refused(error)
        self.failures += 1
        self.attention.set()
        if error.code in DOWN:
            self.process_lost()
            return self.mark_down(error.message)
        # Not in its own words, which may quote what was asked: others read this.
        return self.breaker.record_failure() and self.mark_down("answers with errors")

    def refused(self, error: UpstreamBusy) -> bool:
        """It takes no more for now."""
        rested = not self.resting
        self.rest.begin(error.retry_after)
        if rested:
            log.info("upstream_busy", upstream=self.name, seconds=round(self.rest.left, 1))
        self.attention.set()
        return True  # what waited for it may go elsewhere

    def mark_down(self, reason: str) -> bool:
        """It gets no work until it has passed a probe."""
        if self.breaker.closed:
            self.down_since = trio.current_time()
            log.warning("upstream_down", upstream=self.name, reason=reason)
        self.breaker.trip(reason)
        return True  # what waited for it may go elsewhere

    def not_ready(self, error: RequestError) -> None:
        """It did not answer what it is."""
        self.loading = isinstance(error, UpstreamNotReady) and not self.was_up

    def process_lost(self) -> None:
        """Forget what its process held and reported: another one may answer next."""
        self.upstream.forget()
        self.table.lost()
        self.speeds.forget()
        self.reports_slots, self._lacks = True, frozenset()

    def expect_back(self) -> None:
        """Another process is about to answer: probe it without a pause."""
        self.process_lost()
        self.breaker.retry_now()
        self.attention.set()

    # -- what it is; each returns whether the pool must look at it again ------------------------

    def learn(self, properties: Properties) -> bool:
        """Note what the upstream reports of itself."""
        self.was_up, self.loading = True, False
        reported = plain_fingerprint(properties)
        if self._reported and not same_model(self._reported, reported):
            self.signature = None
            self.key_expired = True
        self._reported = reported
        return self._resize(properties) or self.key_expired

    def apply(self, spec: UpstreamSpec) -> bool:
        """Apply a changed spec, in which weight or slots are different."""
        self.spec = spec
        properties = self.upstream.properties
        return properties is not None and self._resize(properties)

    def _resize(self, properties: Properties) -> bool:
        count = properties.slots
        if self.spec.slots is not None:
            count = min(count, self.spec.slots)
        if self.table.known and len(self.table) == count:
            return False
        self.table.resize(count)
        return True

    def sign(self, signature: Signature) -> bool:
        """Note the signature of its model; where that has changed, its key is void."""
        if self.signature is not None and not alike(self.signature, signature):
            self.model_key = ""
        self.signature = signature
        return True

    def lacks_completions(self) -> None:
        """It was started for embeddings only."""
        log.info("upstream_completes_nothing", upstream=self.name)
        self._lacks = frozenset({COMPLETIONS})

    @contextmanager
    def changes_slots(self) -> Iterator[None]:
        """Encloses each change of which slots work for us: its steps are measured in between."""
        samples = self._step_samples
        if self.speeds.record_steps(samples.end(self.table.active(), self.leases)):
            steps = self.speeds.steps
            log.info(
                "slots_learnt",
                upstream=self.name,
                kv_cache=str(steps.cache),
                step_ms=round(steps.whole_ms, 2),
                split_ms=round(steps.split_ms, 2),
            )
        yield
        samples.begin(self.table.active(), self.leases, trio.current_time())

    def end_aborted(self, slot: Slot) -> None:
        """Take back a slot whose request was broken off: free once the upstream has released it."""
        slot.chain = ()
        slot.turn(Use.RELEASING, slot.holder)
        if self.watched:
            self.attention.set()
        else:
            slot.turn(Use.FREE)


class Lease:
    """A slot that one request holds, until `release`.

    Args:
        blocks: how many blocks of its prompt the slot is expected to hold already.
        holder: the user's name, for reports.
        on_change: called when the pool must look at the backend again.

    Attributes:
        backend: whose slot it is.
        slot: which.
        reading: a long prompt is being read.
    """

    def __init__(
        self,
        backend: Backend,
        slot: Slot,
        requirement: Requirement,
        blocks: int = 0,
        holder: str = "",
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self.backend = backend
        self.slot = slot
        self.reading = requirement.long
        self._on_change = on_change
        self._scope = trio.CancelScope()
        self._work: Work = _NO_WORK
        self._earlier: int | None = None
        self._expected = blocks * TOKENS_A_BLOCK
        self._ended = False
        self._sent = False
        self._began = trio.current_time()
        self._cut = ""
        if requirement.chain:
            backend.speeds.record_prompt(backend.table.returns(requirement.chain))
        with backend.changes_slots():
            slot.turn(Use.BUSY, holder)
            backend.leases.add(self)

    def __repr__(self) -> str:
        state = "released" if self._ended else "sent" if self._sent else "held"
        cut = f", cut: {self._cut}" if self._cut else ""
        slot = f"slot {self.slot.number} of {self.backend.name}"
        return f"<Lease {slot}: {state} by {self.slot.holder or 'nobody named'}{cut}>"

    @property
    def params(self) -> dict[str, int]:
        """The parameters with which a completion runs in this very slot."""
        return {"id_slot": self.slot.number} if self.backend.table.known else {}

    @property
    def was_sent(self) -> bool:
        """Whether the upstream has the request, and has not reported its end."""
        return self._sent

    @property
    def silent_since(self) -> float:
        """When the upstream last did anything for the request, on trio's clock."""
        return max(self._began, self._work.times.progress)

    # -- as StepSamples reads it: a stream of tokens -------------------------------------------

    @property
    def tokens(self) -> int:
        """How many the upstream has made."""
        return self._work.made - (self._earlier or 0)

    @property
    def first(self) -> float | None:
        """When the first one came; None: it has not, or it is not known, as others made some."""
        return self._work.times.first_token if self._earlier == 0 else None

    @property
    def last(self) -> float:
        """When the last one came."""
        return self._work.times.progress

    # -- what is done with it ------------------------------------------------------------------

    async def properties(self) -> Properties:
        """What the upstream is; asked where that is not known.

        Raises:
            RequestError: it does not say.
        """
        properties = await self.backend.upstream.ask()
        self._report(self.backend.learn(properties))
        return properties

    @contextmanager
    def use(self, work: Work = _NO_WORK) -> Iterator[None]:
        """Enclose whatever uses the slot.

        Args:
            work: what comes of it.

        Raises:
            UpstreamStalled: the upstream has fallen silent, and `cut` was called.
        """
        self._work = work
        with self._scope:
            yield
        if self._scope.cancelled_caught and self._cut:
            raise UpstreamStalled(f"the upstream {self._cut}", retry=True)

    def sent(self) -> None:
        """The upstream works at it from now on."""
        self._sent = True
        self._began = trio.current_time()
        self._earlier = self._work.made

    def first_token(self) -> None:
        """The prompt has been read."""
        self._report(self.reading)
        self.reading = False

    def done(self, text: str, final: CompletionEvent | None, *, cut: bool = False) -> None:
        """The upstream has reported the end, and so has released the slot.

        Args:
            text: prompt and answer, as the slot holds them now.
            cut: it has not: the answer was whole, and the rest of what it sends was cut off.
        """
        self._sent = cut
        self.slot.chain = chain_of(text)
        self._report(self.backend.record_success())
        if final is not None:
            self._learn(final)

    def _learn(self, final: CompletionEvent) -> None:
        """Take account of what the upstream reports of the answer."""
        backend, timings = self.backend, final.timings
        if final.tokens_predicted:
            backend.speeds.record_answer(final.tokens_predicted)
        if timings is not None:
            backend.hit_rate.record(self._expected, timings.cache_n)
            backend.speeds.reading.record(timings.prompt_n, timings.prompt_ms)

    def failed(self, error: RequestError) -> None:
        """The upstream failed at it."""
        if isinstance(error, UpstreamNotReady):
            self._sent = False  # the slot was not used
        self._report(self.backend.record_failure(error))

    def cut(self, reason: str) -> None:
        """Cancel whatever uses the slot: the upstream has fallen silent."""
        self._cut = reason
        self._scope.cancel()

    def release(self) -> None:
        """Give the slot back; idempotent. A request that was broken off is awaited first."""
        if self._ended:
            return
        self._ended = True
        with self.backend.changes_slots():
            self.backend.leases.discard(self)
            if self._sent:
                self.backend.end_aborted(self.slot)
            else:
                self.slot.turn(Use.FREE)
        self._report(self.backend.draining)  # it may leave now

    def _report(self, changed: bool) -> None:
        if changed:
            self._on_change()


def held(lease: object) -> Lease:
    """The lease of a ticket that has its turn."""
    assert isinstance(lease, Lease)
    return lease
