"""A pool of one upstream, as those who watch see it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import trio

from llcuda_net.admission import Admission
from llcuda_net.errors import RequestError
from llcuda_net.upstream.interface import Upstream

#: Seconds between two looks at it, and for its answer.
_PERIOD = 1.0
_PATIENCE = 2.0


class Load(NamedTuple):
    """What everybody together has under way."""

    name: str
    running: int
    queued: int


class Lone:
    """The pool, and its only member."""

    roles = frozenset(("completions", "embeddings"))
    foreign = releasing = failovers = 0

    def __init__(
        self, name: str, upstream: Upstream, admission: Admission, restarts: Callable[[], int]
    ) -> None:
        self.upstream = upstream
        self.state = "probing"
        self.reason = "it was not asked yet"
        self.model = ""
        self.failures = 0
        self._name = name
        self._admission = admission
        self._restarts = restarts

    @property
    def members(self) -> Sequence[Lone]:
        """Itself."""
        return (self,)

    @property
    def name(self) -> str:
        """What it is called; by default its URL."""
        return self._name or self.upstream.base_url

    @property
    def slots(self) -> int:
        """All of them; 0 while that is not known."""
        properties = self.upstream.properties
        if properties is not None:
            self.model = properties.model
        return 0 if properties is None else properties.slots

    @property
    def busy(self) -> int:
        """Slots that our requests hold."""
        return self._admission.running

    @property
    def restarts(self) -> int:
        """Since the start."""
        return self._restarts()

    def users(self) -> Sequence[Load]:
        """All as one."""
        return (Load("", self._admission.running, self._admission.queued),)

    async def run(self) -> None:
        """Look at it, for ever."""
        while True:
            reason = f"no answer within {_PATIENCE:g} s"
            with trio.move_on_after(_PATIENCE):
                try:
                    await self.upstream.check()
                    reason = ""
                except RequestError as error:
                    reason = error.message
            self.reason, self.state = reason, "down" if reason else "up"
            self.failures += bool(reason)
            await trio.sleep(_PERIOD)
