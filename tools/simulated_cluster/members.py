"""The product's membership and mirror, under virtual time."""

from __future__ import annotations

import contextlib
import queue
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

from llcuda_net.cluster.membership import Membership
from llcuda_net.cluster.mirror import Mirror
from llcuda_net.cluster.portions import Life
from llcuda_net.cluster.trimming import Trimming
from llcuda_net.errors import StorageError
from tools.simulated_cluster.clock.scheduler import Flag, Queue, Scheduler
from tools.simulated_cluster.clock.waiting import Lock
from tools.simulated_cluster.network import Session

_T = TypeVar("_T")
#: Where a life's own database would be; nothing connects to it.
_URL = "postgresql:///simulated"
#: Bytes of journal that are kept, and that are written again at a time: so small that what is live
#: is written again and again.
_SMALL = 3000, 800
#: Seconds by which a mirror that is broken shows records before it commits them.
_EARLY = 0.3


class LivesOnDisk:
    """As cluster.lives.Lives, on the disk of a machine."""

    def __init__(self, disk: list[int]) -> None:
        self._disk = disk

    def begin(self, store: str, number: int) -> list[int]:
        """See there."""
        former = [one for one in self._disk if one != number]
        self._disk[:] = [*former, number]
        return former

    def settled(self, number: int) -> None:
        """See there."""
        self._disk[:] = [number]


class SimulatedMembership(Membership):
    """Without a pipe: the thread sleeps, or is woken.

    Args:
        rate: how fast its clock goes.
    """

    def __init__(
        self, session: Session, lives: LivesOnDisk, scheduler: Scheduler, name: str, rate: float
    ) -> None:
        super().__init__(_URL, name, name, Path(), clock=lambda: scheduler.now * rate)
        self._session: Any = session
        self._lives: Any = lives
        self._using: Any = Lock(scheduler)
        self._woken = Queue(scheduler)

    def run(self) -> None:
        """See Membership."""
        while not self._stopping:
            self._renew()
            until = max(self._own.renew_at - self._clock(), 0.0)
            with contextlib.suppress(queue.Empty):
                self._woken.get(timeout=1.0 if self._own.fenced else min(until, 1.0))

    def wake(self) -> None:
        """See Membership."""
        self._woken.put(None)

    def _listen(self, db: Any) -> None:
        pass


class SimulatedMirror(Mirror):
    """Its thread is a greenlet.

    Args:
        broken: see world.BROKEN.
    """

    def __init__(self, session: Session, scheduler: Scheduler, broken: str = "") -> None:
        super().__init__(_URL)
        parts: Any = self
        parts._session = session
        parts._orders = Queue(scheduler)
        parts._stopping, parts._giving_up = Flag(scheduler), Flag(scheduler)
        parts._soon = lambda call: scheduler.after(0.0, call)
        self._scheduler = scheduler
        self._broken = broken

    def begin(self, *given: Any) -> None:
        """See Mirror."""
        super().begin(*given)
        self._life.trimming = Trimming(*_SMALL)

    async def _ordered(self, work: Callable[[], _T]) -> _T:
        done: list[_T] = []
        failure: list[StorageError] = []
        flag = Flag(self._scheduler)

        def order() -> None:
            try:
                done.append(work())
            except StorageError as error:
                failure.append(error)
            flag.set()

        self._orders.put(order)
        flag.wait()
        if failure:
            raise StorageError(failure[0].message, failure[0].code)
        return done[0]

    def _commit(self, life: Life) -> None:
        if self._broken == "acknowledge-before-commit" and life.batch() is not None:
            self.committed = max(self.committed, life.taken)
            self._soon(self._collect)
            self._scheduler.sleep(_EARLY)
        super()._commit(life)


def clock_of(scheduler: Scheduler) -> Any:
    """What stands for the module `time` in the mirror."""
    return SimpleNamespace(monotonic=lambda: scheduler.now)
