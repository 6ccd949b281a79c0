"""A machine with local models in virtual time, driven by the policy and checking it."""

from __future__ import annotations

import heapq
import itertools
import math
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from llcuda_net.models.need import Budget, Need
from llcuda_net.models.serving import policy
from llcuda_net.models.serving.loads import backoff, need_after_no_memory, refusal
from llcuda_net.models.serving.policy import RULES, Rules, count_use
from llcuda_net.models.serving.state import ModelState, Plan
from llcuda_net.upstream.residence import Presence

#: Those that hold memory and have not been told to go.
_STAYING = (Presence.LOADING, Presence.LOADED)

Planner = Callable[[Iterable[ModelState], Budget, float, Rules], Plan]


class BrokenPolicyError(AssertionError):
    """The policy did what it must never do."""


@dataclass(eq=False, slots=True)
class Request:
    """A request: for which model, how long it generates, and when what happened to it."""

    model: str
    seconds: float
    submitted: float
    then: Callable[[Request], None] = lambda request: None
    started: float | None = None
    ended: float | None = None
    ahead: int = 0
    runs: int = 0

    @property
    def wait(self) -> float:
        """Seconds from its submission to its first slot."""
        return (self.started if self.started is not None else math.inf) - self.submitted


@dataclass(eq=False, slots=True)
class Model:
    """A local model, and what is true of it though the policy only estimates it.

    Attributes:
        takes: seconds that a load takes.
        really: the memory that it takes once it is loaded.
        fails: outcomes of the next loads: "" for one that succeeds, "memory", "error".
    """

    name: str
    need: Need
    takes: float = 4.0
    slots: int = 4
    pinned: bool = False
    idle_seconds: float | None = None
    really: Need | None = None
    fails: deque[str] = field(default_factory=deque)
    presence: Presence = Presence.UNLOADED
    since: float = 0.0
    wanted: bool | None = None
    running: set[Request] = field(default_factory=set)
    waiting: deque[Request] = field(default_factory=deque)
    last_used: float = -math.inf
    uses: float = 0.0
    estimate: float | None = None
    failed_until: float = -math.inf
    failures: int = 0
    given_up: bool = False
    epoch: int = 0


class World:
    """Models, requests, and time.

    Args:
        unload_takes: seconds in which a process ends.
        planner: the policy; another one in the tests that it would be noticed.
        rank: the place of a model's first request in the order of the fair queue; None: by age.

    Attributes:
        loads: of which models a load began, and when.
        done: requests that are over.
        claims: of each load that succeeded, the seconds for which somebody had waited for it.
    """

    def __init__(
        self,
        models: Iterable[Model],
        budget: Budget,
        *,
        rules: Rules = RULES,
        unload_takes: float = 0.5,
        planner: Planner = policy.plan,
        rank: Callable[[Model], float] | None = None,
    ) -> None:
        self.models = {model.name: model for model in models}
        self.budget = budget
        self.rules = rules
        self.now = 0.0
        self.loads: list[tuple[float, str]] = []
        self.done: list[Request] = []
        self.refused: list[Request] = []
        self.starts: list[str] = []
        self.arrivals: list[str] = []
        self.claims: list[float] = []
        self.unload_takes = unload_takes
        self.last_plan = Plan()
        self._planner = planner
        self.rank = rank or (lambda one: one.waiting[0].submitted)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._number = itertools.count()
        self._wake = math.inf
        #: Memory that may be exceeded now: a model was larger than estimated, or the budget shrank.
        self._excused = False

    def __repr__(self) -> str:
        named = ", ".join(f"{m.name} {m.presence.value}" for m in self.models.values())
        return f"<World at {self.now:.1f}: {named}>"

    # -- what happens to it -----------------------------------------------------------------------

    def at(self, time: float, what: Callable[[], None]) -> None:
        """Have something happen at a time."""
        heapq.heappush(self._events, (time, next(self._number), what))

    def submit(
        self, model: str, seconds: float, then: Callable[[Request], None] = lambda request: None
    ) -> Request:
        """A request arrives."""
        request = Request(model, seconds, self.now, then)
        one = self.models[model]
        self.arrivals.append(model)
        if one.given_up or refusal(self.state(one), self.states(), self.budget) is not None:
            request.ended = self.now
            self.refused.append(request)
        else:
            request.ahead = len(one.waiting)
            one.waiting.append(request)
        return request

    def cancel(self, request: Request) -> None:
        """Its client takes a request back."""
        one = self.models[request.model]
        if request in one.running:
            self._end(one, request)
        elif request in one.waiting:
            one.waiting.remove(request)
            request.ended = self.now

    def crash(self, name: str) -> None:
        """A model's process dies; what it generated waits again, before the others."""
        one = self.models[name]
        if one.presence is Presence.UNLOADED:
            return
        for request in one.running:
            request.ended = None
        one.waiting.extendleft(sorted(one.running, key=lambda r: -r.submitted))
        one.running.clear()
        if one.presence is Presence.UNLOADING:
            self._move(one, Presence.UNLOADED)
        else:
            self._failed(one, "error")

    def run(self, until: float) -> None:
        """Let time pass."""
        self.settle()
        while True:
            at = min(self._events[0][0] if self._events else math.inf, self._wake)
            if at > until:
                break
            self.now = max(self.now, at)
            while self._events and self._events[0][0] <= self.now:
                heapq.heappop(self._events)[2]()
            self.settle()
        self.now = until

    # -- the policy -------------------------------------------------------------------------------

    def states(self) -> list[ModelState]:
        """The models as the policy is told of them."""
        return [self.state(one) for one in self.models.values()]

    def state(self, one: Model) -> ModelState:
        """One of them."""
        return ModelState(
            name=one.name,
            presence=one.presence,
            since=one.since,
            need=one.need,
            pinned=one.pinned,
            wanted=one.wanted,
            running=len(one.running),
            waiting=len(one.waiting),
            waits_since=one.waiting[0].submitted if one.waiting else None,
            rank=self.rank(one) if one.waiting else math.inf,
            last_used=one.last_used,
            uses=one.uses,
            load_seconds=one.takes if one.estimate is None else one.estimate,
            idle_seconds=one.idle_seconds,
            failed_until=one.failed_until,
        )

    def settle(self) -> None:
        """Start what can start and do what the policy says, until it says nothing more."""
        acted: set[str] = set()
        while True:
            self._start()
            made = self._planner(self.states(), self.budget, self.now, self.rules)
            self.last_plan = made
            if made.again_at is not None and made.again_at <= self.now:
                raise BrokenPolicyError(f"again at {made.again_at}, which is not after {self.now}")
            self._wake = math.inf if made.again_at is None else made.again_at
            named = self._apply(made)
            if not named:
                break
            if twice := acted & named:
                raise BrokenPolicyError(f"it changes its mind about {twice}: {made}")
            acted |= named
        self._check_memory()

    def _apply(self, made: Plan) -> set[str]:
        named = [*made.load, *made.leave, *made.stay, *made.unload]
        if len(set(named)) != len(named):
            raise BrokenPolicyError(f"named twice: {made}")
        for name in made.load:
            self._expect(name, Presence.UNLOADED)
            self._load(self.models[name])
        for name in made.leave:
            self._expect(name, Presence.LOADED)
            self._movable(name)
            self._move(self.models[name], Presence.LEAVING)
        for name in made.stay:
            self._expect(name, Presence.LEAVING)
            self._move(self.models[name], Presence.LOADED)
        for name in made.unload:
            self._expect(name, Presence.LOADED, Presence.LEAVING)
            self._movable(name)
            if self.models[name].running:
                raise BrokenPolicyError(f"{name} is unloaded while it generates")
            self._unload(self.models[name])
        return set(named)

    def _movable(self, name: str) -> None:
        one = self.models[name]
        if one.pinned and one.wanted is not False:
            raise BrokenPolicyError(f"{name} is pinned, and made to leave")

    def _expect(self, name: str, *allowed: Presence) -> None:
        if self.models[name].presence not in allowed:
            raise BrokenPolicyError(f"{name} is {self.models[name].presence.value}")

    def used(self) -> Need:
        """The memory that is taken."""
        held = (one for one in self.models.values() if one.presence is not Presence.UNLOADED)
        return sum((one.need for one in held), Need())

    def excuse(self) -> None:
        """The budget was made smaller, or more was pinned."""
        self._excused = True

    def _check_memory(self) -> None:
        if self.used().within(self.budget.room):
            self._excused = False
            return
        if not self._excused:
            raise BrokenPolicyError(f"{self.used()} is taken of {self.budget}")
        if self.last_plan.load:
            raise BrokenPolicyError("it loads though too much memory is taken")
        staying = [m for m in self.models.values() if m.presence in _STAYING]
        if sum((m.need for m in staying), Need()).within(self.budget.room):
            return
        if any(m.presence is Presence.LOADED and not m.pinned for m in staying):
            raise BrokenPolicyError("nobody makes room though too much memory is taken")

    # -- models -----------------------------------------------------------------------------------

    def _move(self, one: Model, presence: Presence) -> None:
        one.presence, one.since = presence, self.now
        one.epoch += 1

    def _load(self, one: Model) -> None:
        if one.failed_until > self.now or one.given_up:
            raise BrokenPolicyError(f"{one.name} is loaded though its load has just failed")
        self.loads.append((self.now, one.name))
        if one.wanted is False:
            one.wanted = None  # a request overrules it
        self._move(one, Presence.LOADING)
        epoch = one.epoch
        claimed = one.waiting[0].submitted if one.waiting else self.now

        def end() -> None:
            if one.epoch != epoch:
                return
            outcome = one.fails.popleft() if one.fails else ""
            if outcome:
                self._failed(one, outcome)
                return
            one.failures = 0
            one.estimate = one.takes
            one.wanted = None
            if one.really is not None and one.really != one.need:
                one.need = one.really
                self._excused = True
            self.claims.append(self.now - claimed)
            self._move(one, Presence.LOADED)

        self.at(self.now + one.takes, end)

    def _failed(self, one: Model, how: str) -> None:
        one.failures += 1
        one.wanted = None
        one.failed_until = self.now + backoff(one.failures)
        if how == "memory":
            more = need_after_no_memory(one.need, None, one.failures)
            if more is None:
                self._give_up(one)
            else:
                one.need = more
        self._move(one, Presence.UNLOADED)
        if refusal(self.state(one), self.states(), self.budget) is not None:
            self._give_up(one)

    def _give_up(self, one: Model) -> None:
        one.given_up, one.failed_until = True, math.inf
        for request in one.waiting:
            request.ended = self.now
        self.refused += one.waiting
        one.waiting.clear()

    def _unload(self, one: Model) -> None:
        self._move(one, Presence.UNLOADING)
        epoch = one.epoch

        def end() -> None:
            if one.epoch == epoch:
                self._move(one, Presence.UNLOADED)

        self.at(self.now + self.unload_takes, end)

    # -- requests ---------------------------------------------------------------------------------

    def _start(self) -> None:
        for one in self.models.values():
            while one.presence is Presence.LOADED and one.waiting and len(one.running) < one.slots:
                request = one.waiting.popleft()
                if request.started is None:
                    request.started = self.now
                one.running.add(request)
                self.starts.append(one.name)
                one.uses = count_use(one.uses, one.last_used, self.now, self.rules)
                one.last_used = self.now
                request.runs += 1
                self._end_later(one, request, request.runs)

    def _end_later(self, one: Model, request: Request, run: int) -> None:
        def end() -> None:
            if request in one.running and request.runs == run:
                self._end(one, request)

        self.at(self.now + request.seconds, end)

    def _end(self, one: Model, request: Request) -> None:
        one.running.discard(request)
        one.last_used = self.now
        request.ended = self.now
        self.done.append(request)
        request.then(request)
