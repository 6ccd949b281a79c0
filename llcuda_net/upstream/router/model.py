"""One model of a router: its backend in the pool, and where it is on its way into memory."""

from __future__ import annotations

from pathlib import Path

import structlog
import trio

from llcuda_net.config.upstreams import BaseUrl, UpstreamSpec
from llcuda_net.errors import RequestError, UpstreamError
from llcuda_net.upstream.backend import Backend
from llcuda_net.upstream.interface import Upstream
from llcuda_net.upstream.pool import Pool
from llcuda_net.upstream.residence import Presence, Residence, Wishes
from llcuda_net.upstream.router.listing import ListedModel, Status
from llcuda_net.upstream.router.plan import Model

log = structlog.get_logger(__name__)

#: Seconds after which nobody waits any more who has not said so again: what is in the queue says it
#: each second.
LAPSE = 3.0
#: Seconds for a model that has just been loaded to say what it is.
ASK_TIMEOUT = 5.0
#: Seconds between two attempts to load one for which there is no room.
RETRY = 1.0
#: Seconds for which others make room in vain, since somebody else works there, before they go on;
#: and for how long they do.
IN_VAIN, GO_ON = 20.0, 10.0
#: Seconds without work after which one that sleeps counts as not loaded.
DROWSY = 5.0
#: Seconds before a model that failed to load is loaded again.
PAUSE = 30.0


class Demand(Residence):
    """The presence of a model of a router, and since when somebody waits for it."""

    def __init__(self, wishes: Wishes) -> None:
        super().__init__(wishes)
        self._since = self._last = -float("inf")

    def missed(self) -> None:
        """A ticket found it not there. It does so again each second, and wakes nobody for that."""
        if self._note():
            super().missed()

    def want(self) -> None:
        """Somebody waits for it."""
        self._note()
        super().want()

    def waited_since(self) -> float | None:
        """Since when somebody waits for it, on trio's clock; None: nobody does now."""
        if self.wanted:
            self._note()
        return self._since if trio.current_time() - self._last < LAPSE else None

    def move(self, presence: Presence, reason: str = "", ready_in: float | None = None) -> None:
        """It is somewhere else on its way; once it is loaded, nobody waits for that any more."""
        if presence is Presence.LOADED:
            self._last = -float("inf")
        super().move(presence, reason, ready_in)

    def _note(self) -> bool:
        now = trio.current_time()
        fresh = now - self._last >= LAPSE
        if fresh:
            self._since = now
        self._last = now
        return fresh


class RoutedModel:
    """A model that a router lists.

    Args:
        spec: of its backend.
        server: asks the router for it.
        wishes: wake what watches the router.
        folder: where hashes of model files are kept.

    Attributes:
        listed: as the router last listed it.
        backend: in the pool.
    """

    def __init__(
        self,
        listed: ListedModel,
        spec: UpstreamSpec,
        server: Upstream,
        wishes: Wishes,
        folder: Path | None,
    ) -> None:
        self.listed = listed
        self._url = str(BaseUrl.parse(spec.url))
        self._demand = Demand(wishes)
        self.backend = Backend(spec, server, folder=folder, residence=self._demand)
        self._demand.move(Presence.UNLOADED, self._not_loaded())
        self.backend.learn_reranks(listed.reranks)  # else it would never be asked to, and loaded
        self._asks = False  # a request to load it is on its way
        self._began: float | None = None  # when we had it loaded, until it is
        self._takes: float | None = None  # seconds that it took
        self._since = self._used = -float("inf")
        self._retry_at = self._idle_until = -float("inf")
        self._vain: float | None = None  # since when there is no room for it
        self._away = False

    def __repr__(self) -> str:
        return f"<RoutedModel {self.listed.name}: {self.listed.status}, {self._demand!r}>"

    # -- as it stands ---------------------------------------------------------------------------

    @property
    def moving(self) -> bool:
        """Whether its state may change soon."""
        presence = self._demand.presence
        return (
            self._asks
            or presence in (Presence.LOADING, Presence.LEAVING)
            or (presence is Presence.UNLOADED and self._waited_since() is not None)
        )

    @property
    def busy(self) -> bool:
        """Whether something of ours runs there."""
        return bool(self.backend.leases) or self._demand.holds > 0

    def planned(self, now: float) -> Model:
        """As the plan needs it."""
        if self.busy:
            self._used = now
        return Model(
            self.listed.name,
            Status.LOADING if self._asks else self.listed.status,
            self._waited_since(),
            self._since,
            max(self._used, self._demand.last_used, self._since),
            self.busy,
            self._demand.presence is Presence.LEAVING,
        )

    def _waited_since(self) -> float | None:
        now = trio.current_time()
        if now < self._idle_until or self._demand.failure is not None:
            return None
        return self._demand.waited_since()

    # -- as the router has it -------------------------------------------------------------------

    async def follow(self, pool: Pool) -> bool:
        """Take account of what the router lists; whether the pool must look at it again."""
        status, demand = self.listed.status, self._demand
        away, self._away = self._away, False
        if status is Status.LOADED or (status is Status.SLEEPING and self._is_needed()):
            if not demand.present:
                return await self._arrive(pool)
            if away:
                self.backend.expect_back()
            return False
        if status is Status.LOADING:
            if demand.presence is Presence.LOADING:
                if self._takes is not None and self._began is not None:
                    demand.ready_in = max(0.0, self._began + self._takes - trio.current_time())
                return False
            demand.move(Presence.LOADING, self._being_loaded(), self._takes)
            self._began = trio.current_time()
            return True
        if self._asks:
            return False  # it was listed before
        if self._began is not None and demand.presence is Presence.LOADING:
            self._began = None
            if self.listed.exit_code is not None:
                code = self.listed.exit_code
                self.failed(UpstreamError(f"its process ended with code {code}"), PAUSE)
            else:
                demand.move(Presence.UNLOADED, self._not_loaded())
            return True
        if demand.presence is Presence.UNLOADED:
            return False
        if not away:
            log.info("model_unloaded", model=self.listed.name, upstream=self._url)
        self.backend.process_lost()
        self.backend.attention.set()
        demand.move(Presence.UNLOADED, self._not_loaded())
        return True

    def _is_needed(self) -> bool:
        """Whether one that sleeps is to be counted as loaded: what is asked of it wakes it."""
        now = trio.current_time()
        used = max(self._used, self._demand.last_used, self._since)
        return (
            bool(self.backend.leases)
            or now - used < DROWSY
            or (not self._demand.present and self._waited_since() is not None)
        )

    async def _arrive(self, pool: Pool) -> bool:
        """Its process is there: it is up as soon as it says what it is."""
        backend = self.backend
        with trio.move_on_after(ASK_TIMEOUT) as scope:
            try:
                await pool.properties(backend)
                backend.learn_reranks(await backend.upstream.reranks())
            except RequestError:
                return False
        if scope.cancelled_caught:
            return False
        self._since = now = trio.current_time()
        if self._began is not None:
            self._takes, self._began = now - self._began, None
            log.info(
                "model_loaded",
                model=self.listed.name,
                upstream=self._url,
                seconds=round(self._takes, 2),
            )
        self._vain = None
        self._demand.move(Presence.LOADED)
        if backend.breaker.closed:
            backend.attention.set()
        else:
            backend.expect_back()
        return True

    def unreachable(self, error: RequestError) -> None:
        """The router does not answer: it is down, loaded or not."""
        self._away = True
        backend, demand = self.backend, self._demand
        if not demand.present:
            backend.down_since = trio.current_time()
            backend.breaker.trip(error.message)
            self._began = None
            demand.move(Presence.LOADED)
        backend.attention.set()

    # -- having it loaded, and letting it go ------------------------------------------------------

    def begin_load(self) -> bool:
        """Whether the router is to be asked to load it, now."""
        now = trio.current_time()
        if self._asks or now < self._retry_at or self._demand.present:
            return False
        self._asks, self._began = True, now
        self._demand.move(Presence.LOADING, self._being_loaded(), self._takes)
        return True

    def loads(self) -> None:
        """The router loads it."""
        self._asks = False

    def not_loaded(self, error: RequestError) -> None:
        """The router does not load it now, and is asked again."""
        now = trio.current_time()
        self._asks, self._began = False, None
        self._retry_at = now + RETRY
        if self._vain is None:
            self._vain = now
        elif now - self._vain > IN_VAIN:
            self._vain, self._idle_until = None, now + GO_ON
        self._demand.move(Presence.UNLOADED, f"model {self.listed.name} waits: {error.message}")

    def failed(self, error: RequestError, pause: float) -> None:
        """The router cannot load it."""
        self._asks, self._began = False, None
        reason = f"model {self.listed.name} cannot be loaded by {self._url}: {error.message}"
        log.warning("model_not_loaded", model=self.listed.name, upstream=self._url, reason=reason)
        self._demand.fail(UpstreamError(reason[:500], retry=True, retry_after=pause), pause)

    def leave_for(self, other: str | None) -> bool:
        """Let it make room for another model; None: it need not. Whether that is news."""
        demand = self._demand
        if other is not None and demand.presence is Presence.LOADED:
            reason = f"model {self.listed.name} makes room for {other} at {self._url}"
            demand.move(Presence.LEAVING, reason)
            return True
        if other is None and demand.presence is Presence.LEAVING:
            demand.move(Presence.LOADED)
            return True
        return False

    def wait_for(self, other: str) -> None:
        """Another model makes room for it."""
        if self._demand.presence is Presence.UNLOADED:
            name, url = self.listed.name, self._url
            reason = f"model {name} waits for room at {url}: {other} finishes what it has"
            self._demand.move(Presence.UNLOADED, reason)

    def _being_loaded(self) -> str:
        return f"model {self.listed.name} is being loaded by {self._url}"

    def _not_loaded(self) -> str:
        how = "asleep at" if self.listed.status is Status.SLEEPING else "not loaded by"
        return f"model {self.listed.name} is {how} {self._url}"
