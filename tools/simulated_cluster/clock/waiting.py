"""Runs asynchronous code of the product in greenlets: what it waits for blocks the greenlet.

`Waiting` stands for the module `trio` in a module of the product. Whatever such code awaits comes
from there, or is of its own kind: so a coroutine runs to its end at its first step.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any, TypeVar

from greenlet import getcurrent

from tools.simulated_cluster.clock.scheduler import Flag, Scheduler

_T = TypeVar("_T")


def drive(work: Coroutine[Any, Any, _T]) -> _T:
    """Run it to its end in the present greenlet; raises what it raises."""
    try:
        work.send(None)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
    raise AssertionError(f"{work} waits for what the simulation does not have")


class _OverError(Exception):
    """The time of a scope is over."""


class Waiting:
    """What the product uses of trio, under virtual time."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
        self.Event = partial(_Event, self)
        self.Lock = partial(_Lock, self)
        self.lowlevel = SimpleNamespace(checkpoint=self._checkpoint)
        self.to_thread = SimpleNamespace(run_sync=self._run_sync)
        self.until: dict[Any, float] = {}

    def CapacityLimiter(self, total: int) -> None:  # noqa: N802
        """As in trio; nothing needs it here."""

    def current_time(self) -> float:
        """As in trio."""
        return self.scheduler.now

    async def sleep(self, seconds: float) -> None:
        """As in trio."""
        self.pause(seconds)

    def pause(self, seconds: float) -> None:
        """Sleep, or until the scope ends."""
        until = self.until.get(getcurrent())
        if until is None or self.scheduler.now + seconds < until:
            self.scheduler.sleep(seconds)
        else:
            self.scheduler.sleep(max(0.0, until - self.scheduler.now))
            raise _OverError

    def CancelScope(self, *, shield: bool) -> contextlib.AbstractContextManager[None]:  # noqa: N802
        """As in trio; nobody cancels it."""
        return contextlib.nullcontext()

    @contextlib.contextmanager
    def move_on_after(self, seconds: float) -> Iterator[None]:
        """As in trio, around waits for events, locks and time; none within another."""
        one = getcurrent()
        self.until[one] = self.scheduler.now + seconds
        try:
            yield
        except _OverError:
            pass
        finally:
            del self.until[one]

    async def _checkpoint(self) -> None:
        self.scheduler.sleep(0.0)

    async def _run_sync(self, work: Callable[[], _T], limiter: object = None) -> _T:
        return work()


class _Event:
    """As trio.Event."""

    def __init__(self, waiting: Waiting) -> None:
        self._waiting = waiting
        self._flag = Flag(waiting.scheduler)
        self.set = self._flag.set
        self.is_set = self._flag.is_set

    async def wait(self) -> None:
        until = self._waiting.until.get(getcurrent())
        if until is None:
            self._flag.wait()
        elif not self._flag.wait(max(0.0, until - self._waiting.scheduler.now)):
            raise _OverError


class _Lock:
    """As trio.Lock."""

    def __init__(self, waiting: Waiting) -> None:
        self._waiting = waiting
        self._held = False

    async def __aenter__(self) -> None:
        while self._held:
            self._waiting.pause(0.01)
        self._held = True

    async def __aexit__(self, *_: object) -> None:
        self._held = False


class Lock:
    """As threading.Lock, between greenlets that are switched only at known places."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._held = False

    def __enter__(self) -> None:
        while self._held:
            self._scheduler.sleep(0.01)
        self._held = True

    def __exit__(self, *_: object) -> None:
        self._held = False
