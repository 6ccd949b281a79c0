"""What somebody who watches a server sees: how it stands now, and what has just ended.

The server knows nothing of who watches. Nothing here is called for a token.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Sequence

from llcuda_net.admission import Admission
from llcuda_net.errors import RequestError
from llcuda_net.generations import Generation
from llcuda_net.keeping import Keeper
from llcuda_net.registry import Registry
from llcuda_net.session import Session
from llcuda_net.settings import Settings
from llcuda_net.storage.pipeline import Storage
from llcuda_net.upstream.interface import Upstream


class Watch:
    """Told of each request once, when it is over; this one does nothing."""

    def ended(self, generation: Generation) -> None:
        """A generation has ended in this process."""

    def refused(self, error: RequestError) -> None:
        """A generate request was refused before there was a generation."""

    def answered(self, kind: str, error: RequestError | None) -> None:
        """A request of another kind was answered, or failed."""

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


class Standing:
    """How a server stands now: live, and only to be read.

    Attributes:
        draining: whether it stops.
        sessions: clients that have been let in.
        connections_opened: since the start.
        generations: those that have not ended.
        upstreams: where requests go.
        restarts: how often the built-in engine was started again.
        settings: see settings.py.
    """

    def __init__(
        self,
        settings: Settings,
        upstreams: Sequence[Upstream],
        admission: Admission,
        generations: Registry,
        sessions: Collection[Session],
        keeper: Keeper,
    ) -> None:
        self.settings = settings
        self.upstreams = upstreams
        self.generations = generations
        self.sessions = sessions
        self.draining = False
        self.connections_opened = 0
        self.restarts: Callable[[], int] = lambda: 0
        self._admission = admission
        self._keeper = keeper

    @property
    def running(self) -> int:
        """Slots in use."""
        return self._admission.running

    @property
    def queued(self) -> int:
        """Requests that wait for a slot."""
        return self._admission.queued

    @property
    def streams(self) -> int:
        """Requests that are open on all connections."""
        return sum(session.open_streams for session in self.sessions)

    @property
    def storage(self) -> Storage | None:
        """The journal and the store; None where nothing is kept."""
        return self._keeper.storage
