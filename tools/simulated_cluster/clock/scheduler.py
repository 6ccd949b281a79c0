"""Virtual time: greenlets that sleep, and are woken in the order of their times.

A run is one thread, and nothing in it looks at a real clock: the same seed gives the same run. Each
greenlet belongs to a machine, which can be stopped (it runs no more until it goes on, while time
passes) or killed.
"""

from __future__ import annotations

import heapq
import itertools
import queue
from collections import deque
from collections.abc import Callable
from typing import Any

from greenlet import GreenletExit, getcurrent, greenlet


class Machine:
    """What is stopped, or killed, as a whole."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.alive = True
        self.stopped = False
        self.greenlets: set[Any] = set()
        self.held: list[tuple[Any, int]] = []

    def __repr__(self) -> str:
        how = "dead" if not self.alive else "stopped" if self.stopped else "running"
        return f"<Machine {self.name} {how}>"


class Scheduler:
    """The time, and what is due when.

    Attributes:
        now: seconds.
        steps: events so far.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self.steps = 0
        self._hub = getcurrent()
        self._due: list[tuple[float, int, Callable[[], object]]] = []
        self._count = itertools.count()
        self._machines: dict[Any, Machine] = {}
        self._waits: dict[Any, int] = {}
        self.failure: BaseException | None = None

    def __repr__(self) -> str:
        return f"<Scheduler at {self.now:.3f}, {len(self._due)} due>"

    # -- for anybody --------------------------------------------------------------------------

    def after(self, seconds: float, call: Callable[[], object]) -> None:
        """Call something later, from no machine."""
        heapq.heappush(self._due, (self.now + seconds, next(self._count), call))

    def start(self, machine: Machine, work: Callable[[], object]) -> None:
        """Have a machine do something in a greenlet of its own."""

        def run() -> None:
            try:
                work()
            except GreenletExit:
                pass
            except BaseException as error:
                self.failure = self.failure or error
            finally:
                machine.greenlets.discard(one)
                self._machines.pop(one, None)
                self._waits.pop(one, None)

        one = greenlet(run, self._hub)
        machine.greenlets.add(one)
        self._machines[one] = machine
        self._waits[one] = 0
        self.after(0.0, lambda: self._resume(one, 0))

    def run(self, until: float) -> None:
        """Let time pass.

        Raises:
            BaseException: what a greenlet raised.
        """
        while self._due and self._due[0][0] <= until and self.failure is None:
            self.now, _, call = heapq.heappop(self._due)
            self.steps += 1
            call()
        if self.failure is not None:
            raise self.failure
        self.now = max(self.now, until)

    def stop(self, machine: Machine) -> None:
        """Stop a machine: SIGSTOP, or a lid that closes."""
        machine.stopped = True

    def go_on(self, machine: Machine) -> None:
        """Let a stopped machine go on."""
        machine.stopped = False
        held, machine.held = machine.held, []
        for ticket in held:
            self.wake(ticket)

    def kill(self, machine: Machine) -> None:
        """End all that a machine does."""
        machine.alive = machine.stopped = False
        for one in [*machine.greenlets]:
            one.throw(GreenletExit)
        machine.held.clear()

    # -- for greenlets ------------------------------------------------------------------------

    def sleep(self, seconds: float) -> None:
        """Let time pass for the greenlet that calls."""
        one, wait = self.ticket()
        self.after(seconds, lambda: self._resume(one, wait))
        self.park()

    def ticket(self) -> tuple[Any, int]:
        """The present greenlet and its next wait, for `wake`."""
        one = getcurrent()
        return one, self._waits[one]

    def park(self) -> None:
        """Wait for whoever has the ticket."""
        machine = self._machines[getcurrent()]
        if not machine.alive:  # it tidies up, which no killed process does
            raise GreenletExit
        self._hub.switch()

    def wake(self, ticket: tuple[Any, int]) -> None:
        """Have a greenlet go on that waits; nothing, if it does not wait with this ticket."""
        self.after(0.0, lambda: self._resume(*ticket))

    def _resume(self, one: Any, wait: int) -> None:
        machine = self._machines.get(one)
        if machine is None or not machine.alive or self._waits.get(one) != wait:
            return  # it has ended, or was woken by something else
        if machine.stopped:
            machine.held.append((one, wait))
            return
        self._waits[one] = wait + 1
        one.switch()


class Queue:
    """As queue.SimpleQueue."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._items: deque[Any] = deque()
        self._waiting: tuple[Any, int] | None = None

    def put(self, item: Any) -> None:
        """Add something."""
        self._items.append(item)
        if self._waiting is not None:
            self._scheduler.wake(self._waiting)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take something; raises queue.Empty where there is nothing in time."""
        if not self._items and block:
            ticket = self._waiting = self._scheduler.ticket()
            if timeout is not None:
                self._scheduler.after(timeout, lambda: self._scheduler.wake(ticket))
            self._scheduler.park()
            self._waiting = None
        if not self._items:
            raise queue.Empty
        return self._items.popleft()

    def get_nowait(self) -> Any:
        """Take something; raises queue.Empty where there is nothing."""
        return self.get(block=False)


class Flag:
    """As threading.Event."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._is_set = False
        self._waiting: list[tuple[Any, int]] = []

    def set(self) -> None:
        """Set it."""
        self._is_set = True
        for ticket in self._waiting:
            self._scheduler.wake(ticket)
        self._waiting.clear()

    def is_set(self) -> bool:
        """Whether it is set."""
        return self._is_set

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for it; whether it is set."""
        if not self._is_set:
            ticket = self._scheduler.ticket()
            self._waiting.append(ticket)
            if timeout is not None:
                self._scheduler.after(timeout, lambda: self._scheduler.wake(ticket))
            self._scheduler.park()
        return self._is_set
