"""What observers of a server see: its state now, and what has just ended.

The server knows no observer by name. Nothing here is called per token.
"""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

import structlog

from llcuda_net.config.settings import Settings
from llcuda_net.errors import RequestError
from llcuda_net.generation.generation import Generation
from llcuda_net.generation.persistence import Persistence
from llcuda_net.generation.registry import Registry
from llcuda_net.models.serving.manager import Manager
from llcuda_net.scheduler.scheduler import Scheduler
from llcuda_net.storage.storage import Storage

log = structlog.get_logger(__name__)

#: States of a backend; the last four only of one whose model is loaded on demand.
STATES = (
    *("up", "down", "probing", "draining"),
    *("unloaded", "loading", "leaving", "unloading"),
)
#: URLs whose backend's name is remembered when the backend is gone.
MAX_NAMES = 256
#: What an upstream is called that never was one of ours, as far as is remembered.
UNKNOWN = "other"


class Located(Protocol):
    """Of an upstream, where it is."""

    @property
    def base_url(self) -> str:
        """Where it is now; that of the built-in engine changes when it is started again."""


class Backend(Protocol):
    """Of an upstream in the pool, what observers read."""

    @property
    def name(self) -> str:
        """What the operator calls it."""

    @property
    def upstream(self) -> Located:
        """Itself."""

    @property
    def roles(self) -> Collection[str]:
        """What it serves: completions, embeddings."""

    @property
    def state(self) -> str:
        """One of STATES."""

    @property
    def reason(self) -> str:
        """Why it is not up."""

    @property
    def model(self) -> str:
        """The name of its model; empty while that is not known."""

    @property
    def slots_here(self) -> int:
        """All that this server may use; 0 while that is not known."""

    @property
    def busy(self) -> int:
        """Slots that our requests hold."""

    @property
    def foreign(self) -> int:
        """Slots in use by other clients of the upstream."""

    @property
    def releasing(self) -> int:
        """Slots that are given back, and not yet seen to be free."""

    @property
    def restarts(self) -> int:
        """Since the start; of the built-in engine."""

    @property
    def failures(self) -> int:
        """Requests that it failed at, since the start."""

    @property
    def failovers(self) -> int:
        """Requests that went on elsewhere because it failed, since the start."""


class Pool(Protocol):
    """Where requests go."""

    @property
    def backends(self) -> Sequence[Backend]:
        """Those there are now; what they say of themselves is kept fresh by the pool."""


class UserLoad(Protocol):
    """What one user has under way."""

    @property
    def name(self) -> str:
        """As in the operator's file; empty for everybody who has none."""

    @property
    def running(self) -> int:
        """Requests that hold a slot."""

    @property
    def queued(self) -> int:
        """Requests that wait."""


class SlotRequest(Protocol):
    """The urgency of a waiting request."""

    @property
    def priority(self) -> IntEnum:
        """HIGH, NORMAL or LOW."""


class Waiting(Protocol):
    """A request that waits."""

    @property
    def slot_request(self) -> SlotRequest:
        """What it wants."""


class ClientSession(Protocol):
    """A client that has been let in."""

    @property
    def open_streams(self) -> int:
        """Requests that are open."""


class Connections(Protocol):
    """The clients of a server."""

    @property
    def opened(self) -> int:
        """Connections since the start."""

    @property
    def sessions(self) -> Collection[ClientSession]:
        """Clients that have been let in."""

    @property
    def requests(self) -> Collection[object]:
        """HTTP connections with a request that is open."""

    @property
    def resting(self) -> int:
        """HTTP connections between two requests."""

    @property
    def open_streams(self) -> int:
        """Requests that are open on all connections."""


@dataclass(frozen=True, slots=True)
class BatchCounts:
    """What batches do now, and what has come of them since the start.

    Attributes:
        states: batches that are not over, by their states.
        ended: those that are, by the states in which they ended.
        lines: lines that are over: completed, failed.
        asked: lines that are asked now.
        left: lines that are not over, these among them.
    """

    states: Mapping[str, int]
    ended: Mapping[str, int]
    lines: Mapping[str, int]
    asked: int
    left: int


class Observer:
    """Told of each request once, when it is over; this one does nothing."""

    def ended(self, generation: Generation) -> None:
        """A generation has ended in this process."""

    def refused(self, error: RequestError) -> None:
        """A generate request was refused before there was a generation."""

    def answered(self, kind: str, error: RequestError | None) -> None:
        """A request of another kind was answered, or failed."""

    def http_answered(self, route: str, status: int) -> None:
        """A request over HTTP was answered; status 0: its client had gone before.

        Args:
            route: the pattern of its path, of a closed list.
        """

    @contextlib.contextmanager
    def submitting(self) -> Iterator[None]:
        """Around what may refuse a generate request."""
        try:
            yield
        except RequestError as error:
            self.refused(error)
            raise

    @contextlib.contextmanager
    def answering(self, kind: str) -> Iterator[None]:
        """Around what answers a request of another kind."""
        try:
            yield
        except RequestError as error:
            self.answered(kind, error)
            raise
        self.answered(kind, None)


class Watches(Observer):
    """Several that watch; one that fails is logged, and the others are called."""

    def __init__(self) -> None:
        self._watches: list[Observer] = []

    def add(self, watch: Observer) -> None:
        """Tell one more from now on."""
        self._watches.append(watch)

    def ended(self, generation: Generation) -> None:
        """See Watch."""
        self._tell(lambda watch: watch.ended(generation))

    def refused(self, error: RequestError) -> None:
        """See Watch."""
        self._tell(lambda watch: watch.refused(error))

    def answered(self, kind: str, error: RequestError | None) -> None:
        """See Watch."""
        self._tell(lambda watch: watch.answered(kind, error))

    def http_answered(self, route: str, status: int) -> None:
        """See Watch."""
        self._tell(lambda watch: watch.http_answered(route, status))

    def _tell(self, what: Callable[[Observer], None]) -> None:
        for watch in self._watches:
            try:
                what(watch)
            except Exception:
                log.exception("watch_failed", watch=type(watch).__name__)


class Names:
    """Which backend a URL was: also backends that have gone, and addresses that have changed."""

    def __init__(self) -> None:
        self._names: OrderedDict[str, str] = OrderedDict()

    def of(self, url: str, backends: Iterable[Backend]) -> str:
        """The name of the backend that is, or was, at a URL; UNKNOWN if none is remembered."""
        for backend in backends:
            self._names[backend.upstream.base_url] = backend.name
            self._names.move_to_end(backend.upstream.base_url)
        while len(self._names) > MAX_NAMES:
            self._names.popitem(last=False)
        return self._names.get(url, UNKNOWN)


class ClusterState(Protocol):
    """What a server knows of its cluster."""

    @property
    def is_member(self) -> bool:
        """Whether it may begin anything."""

    @property
    def trouble(self) -> str | None:
        """Why its lease could not be renewed just now."""

    @property
    def members(self) -> Sequence[object]:
        """The servers that are not fenced, this one among them."""

    @property
    def taken_over(self) -> tuple[int, int]:
        """From how many servers it has taken over since its start, and how many generations."""


class ServerState:
    """How a server stands now: live, and only to be read.

    Attributes:
        draining: whether it stops.
        connections: the clients.
        generations: those that have not ended.
        pool: where requests go.
        users: what each user has under way.
        waiting: the requests that wait.
        settings: see settings.py.
        memory: bytes and counts by name, as in the status report.
        batches: what batches do.
        models: loads and unloads the models that this server runs; None: others run all of them.
        cluster: the other servers on the same database; None: there are none.
    """

    def __init__(
        self,
        settings: Settings,
        pool: Pool,
        scheduler: Scheduler,
        generations: Registry,
        connections: Connections,
        persistence: Persistence,
        memory: Callable[[], Mapping[str, int]],
        batches: Callable[[], BatchCounts],
        models: Manager | None = None,
        cluster: ClusterState | None = None,
    ) -> None:
        self.settings = settings
        self.memory = memory
        self.batches = batches
        self.models = models
        self.cluster = cluster
        self.pool = pool
        self.generations = generations
        self.connections = connections
        self.draining = False
        self.users: Callable[[], Iterable[UserLoad]] = scheduler.users
        self.waiting: Callable[[], Iterable[Waiting]] = scheduler.waiting
        self._names = Names()
        self._scheduler = scheduler
        self._persistence = persistence

    def name_of(self, url: str) -> str:
        """What the upstream that a generation was dispatched to is called."""
        return self._names.of(url, self.pool.backends)

    @property
    def running(self) -> int:
        """Slots in use."""
        return self._scheduler.running

    @property
    def queued(self) -> int:
        """Requests that wait for a slot."""
        return self._scheduler.queued

    @property
    def streams(self) -> int:
        """Requests that are open on all connections."""
        return self.connections.open_streams

    @property
    def storage(self) -> Storage | None:
        """The journal and the store; None where nothing is kept."""
        return self._persistence.storage
