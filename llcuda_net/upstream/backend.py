"""One upstream of the pool, as far as it is known.

1. Work is given only while the circuit breaker is closed, and only into slots known to be free.
2. A `Backend` is state: it does no I/O and knows nobody. Its methods return whether the pool must
   look at it again, because a slot is free, because it is up or down, or because of its model.
3. `Lease` (for one request, see slots/lease.py) and `HealthCheck` (for as long as the backend is in
   the pool) do the I/O, report to the backend what they see, and pass on what it returns.
4. What the process behind an upstream held is gone when the process is.
5. One that answers that it takes no more for now has not failed: it is up, and rests (see rest.py).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Protocol

import structlog
import trio

from llcuda_net.config.upstreams import COMPLETIONS, EMBEDDINGS, RERANK, UpstreamSpec
from llcuda_net.errors import RequestError, UpstreamBusy, UpstreamNotReady
from llcuda_net.upstream.circuit_breaker import CircuitBreaker
from llcuda_net.upstream.circuit_breaker import State as BreakerState
from llcuda_net.upstream.interface import (
    DOWN,
    Properties,
    Requirement,
    Spare,
    Upstream,
)
from llcuda_net.upstream.model.fingerprint import (
    Fingerprint,
    ReportedFingerprint,
    plain_fingerprint,
    same_model,
)
from llcuda_net.upstream.model.identity import Identity, Signature, alike
from llcuda_net.upstream.prompts.prefix_cache import HitRate
from llcuda_net.upstream.residence import Residence
from llcuda_net.upstream.rest import Rest
from llcuda_net.upstream.slots.speeds import Speeds
from llcuda_net.upstream.slots.step_samples import StepSamples, Stream
from llcuda_net.upstream.slots.step_time import Sample
from llcuda_net.upstream.slots.table import Slot, Slots, Use

log = structlog.get_logger(__name__)


class Holder(Stream, Protocol):
    """What holds a slot for one request: a lease."""

    @property
    def reading(self) -> bool:
        """Whether a long prompt is being read."""

    @property
    def silent_since(self) -> float:
        """When the upstream last did anything for the request, on trio's clock."""

    def cut(self, reason: str) -> None:
        """Cancel whatever uses the slot."""


class Backend:
    """An upstream in the pool.

    Args:
        spec: how the operator describes it.
        upstream: answers requests.
        folder: where hashes of model files are kept; None: none are kept.
        model: the model's file, where it is known.
        restarts: returns how often it was started again, where that is in our hands.
        unified: its slots are known to share one KV cache; else that is learnt.
        spare: gives something beside it that embeds much; None: there is nothing.
        residence: whether its process is there, of one that is loaded on demand; None: it is for
            others to start it.

    Attributes:
        table: its slots.
        speeds: how fast it is, by which its slots are chosen.
        breaker: whether it may be given work, by how it has done.
        hit_rate: how often its prompt cache held what it was expected to hold.
        leases: of the slots that are in use.
        draining: it gets no more work.
        owned: this server may give it work; else another one of its cluster does.
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
        unproven: it was another server's until now, and may have another model than was heard.
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
        spare: Spare | None = None,
        residence: Residence | None = None,
    ) -> None:
        self.spec = spec
        self.residence = residence
        self.spare = spare
        self.upstream = upstream
        self.table = Slots()
        self.speeds = Speeds(unified)
        self.breaker = CircuitBreaker()
        self.hit_rate = HitRate()
        self.leases: set[Holder] = set()
        self.draining = False
        self.owned = True
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
        self.unproven = False
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
        #: Roles that it was given and does not have: it was started for something else.
        self._lacks: frozenset[str] = frozenset({RERANK})

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
        """Whether it may be given work, now or soon."""
        return self.owned and self.answers

    @property
    def answers(self) -> bool:
        """Whether it is there, as far as is known, for this server or another one."""
        return not self.draining and not self.absent and (self.breaker.closed or not self.watched)

    @property
    def in_use(self) -> bool:
        """Whether any of its slots work for this server; not those that were broken off."""
        return bool(self.leases or self.busy)

    @property
    def absent(self) -> bool:
        """Whether its process is not there, as nobody has needed it, or not long enough."""
        return self.residence is not None and not self.residence.present

    @property
    def loadable(self) -> bool:
        """Whether it is absent, and comes where somebody needs it."""
        return self.absent and not self.draining and self.load_failure is None

    @property
    def load_failure(self) -> RequestError | None:
        """Why it could not be loaded, while it is not tried again."""
        return None if self.residence is None else self.residence.failure

    @asynccontextmanager
    async def there(self) -> AsyncIterator[None]:
        """Enclose what asks it without a slot: it is loaded for that, where it is on demand.

        Raises:
            RequestError: it cannot be loaded.
        """
        if self.residence is None:
            yield
            return
        async with self.residence.held():
            yield

    @property
    def leaving(self) -> bool:
        """Whether it gets no new work, as another model needs its memory."""
        residence = self.residence
        return residence is not None and residence.present and not residence.takes_work

    @property
    def resting(self) -> bool:
        """Whether it has asked for a pause; what waits for it is only woken if it is watched."""
        return self.watched and self.rest.left > 0

    @property
    def state(self) -> str:
        """up, down, probing, draining, elsewhere; of one loaded on demand also its presence."""
        if self.draining:
            return "draining"
        if not self.owned and self.breaker.closed:
            return "elsewhere"
        if self.residence is not None and (self.absent or self.leaving):
            return str(self.residence.presence)
        if self.breaker.closed:
            return "up"
        return "probing" if self.breaker.state is BreakerState.HALF_OPEN else "down"

    @property
    def reason(self) -> str:
        """Why it is not up, or rests."""
        if self.residence is not None and (self.absent or self.leaving):
            return self.residence.reason
        if not self.owned and self.breaker.closed:
            return "another server of the cluster asks it"
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
    def slots_here(self) -> int:
        """Those that this server may use, or uses: none of one that is absent, or another's."""
        return self.slots if not self.absent and (self.owned or self.in_use) else 0

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

    @property
    def finishes_in(self) -> float | None:
        """Seconds until what it runs is over, by the length of its answers; None: nothing runs."""
        if not self.leases:
            return None
        outlook = self.speeds.outlook(None, 1.0)
        left = max(max(1.0, outlook.steps - lease.tokens) for lease in self.leases)
        return left * outlook.step_ms / 1000

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

    def own(self, owned: bool) -> None:
        """Note whether this server may give it work; what it has works on."""
        if owned == self.owned:
            return
        self.owned = owned
        self.unproven = owned and self.signature is not None
        if owned:
            # What others had there may still be broken off: a slot is free when that is seen.
            self.table.lost()
            for slot in self.table:
                if slot.use is Use.FREE and self.watched:
                    slot.turn(Use.RELEASING)
        elif self.breaker.closed:
            self.down_since = trio.current_time()
        self.attention.set()
        log.info("upstream_owned" if owned else "upstream_elsewhere", upstream=self.name)

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
        self.reports_slots, self._lacks = True, self._lacks - {COMPLETIONS}

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

    def learn_reranks(self, reranks: bool) -> bool:
        """Note whether it ranks documents: then what comes in place of a vector is a score, too."""
        lacks = self._lacks - {EMBEDDINGS, RERANK} | {EMBEDDINGS if reranks else RERANK}
        changed, self._lacks = lacks != self._lacks, lacks
        return changed

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
        self.signature, self.unproven = signature, False
        return True

    def hear(self, signature: Signature) -> bool:
        """Note the signature that the server has found which asks it."""
        known = self.signature
        if self.owned or (known is not None and (known == signature or alike(known, signature))):
            return False
        return self.sign(signature)

    def lacks_completions(self) -> None:
        """It was started for embeddings only."""
        log.info("upstream_completes_nothing", upstream=self.name)
        self._lacks |= {COMPLETIONS}

    @contextmanager
    def changes_slots(self) -> Iterator[None]:
        """Encloses each change of which slots work for us: its steps are measured in between."""
        samples = self._step_samples
        if self._record_steps(samples.end(self.table.active(), self.leases)):
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

    def _record_steps(self, sample: Sample | None) -> bool:
        try:
            return self.speeds.record_steps(sample)
        except ArithmeticError:  # what is only learnt must not keep anybody from a slot
            log.exception("steps_not_learnt", upstream=self.name)
            self.speeds.forget()
            return False

    def end_aborted(self, slot: Slot) -> None:
        """Take back a slot whose request was broken off: free once the upstream has released it."""
        slot.chain = ()
        slot.turn(Use.RELEASING, slot.holder)
        if self.watched:
            self.attention.set()
        else:
            slot.turn(Use.FREE)
