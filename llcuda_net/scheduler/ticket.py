"""A claim to one of the upstreams' slots, and the ticket that its holder waits with."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from enum import Enum, auto
from types import TracebackType
from typing import Protocol

import structlog
import trio

from llcuda_net.config.users import Priority, User
from llcuda_net.errors import RequestError, RequestTimeout

log = structlog.get_logger(__name__)


#: What those tickets have in common of which either any has a place, or none.
Kind = tuple[str, Hashable]


class Lease(Protocol):
    """A slot that is ours."""

    def release(self) -> None:
        """Give it back; whoever lends it calls `Scheduler.dispatch` when it can be had again."""


@dataclass(frozen=True, slots=True)
class SlotRequest:
    """What somebody wants a slot for.

    Attributes:
        user: whose request it is.
        model: those for one model compete; positions and waits are told among them.
        key: of tickets for a model with equal keys, if one has no place now, none has.
        priority: its class, at best the user's.
        deadline: clock time by which it must have begun.
        prompt_tokens: how many tokens are to be read, as far as is known.
        most_tokens: how many it may make at most, where that is bounded.
    """

    user: User
    model: str = ""
    key: Hashable = ""
    priority: Priority = Priority.NORMAL
    deadline: float = math.inf
    prompt_tokens: int = 0
    most_tokens: int | None = None


class Phase(Enum):
    """Where a ticket is on its way."""

    WAITING = auto()
    RUNNING = auto()
    OVER = auto()


class Ticket:
    """A place at the upstreams; `async with` waits for the slot and gives it back.

    Attributes:
        claim: what it is for.
        kind: its model and key.
        number: tickets are numbered in the order in which they were made.
        entered: when it was made.
        turn: set when it has a slot; another event after each `Scheduler.requeue`.
        lease: the slot, while it has one.
        position: 1 for the next of its model; 0 for one that holds a slot.
        wait: seconds until it has a slot, estimated, where that can be.
        reason: why it waits, for a person.
        on_position: called with the position when that, the wait or the reason has changed.
        made: tells how many tokens were generated so far.
        phase: whether it waits, runs, or neither any more.
        priority: its class now; a better one the longer it waits.
        returned: whether it had a slot before, and lost it.
        refusal: why it waits no more, where it was given up.
    """

    def __init__(
        self,
        slot_request: SlotRequest,
        number: int,
        submitted: float,
        step: float,
        remove: Callable[[Ticket], None],
        ageing: float = math.inf,
    ) -> None:
        self.slot_request = slot_request
        self.kind: Kind = (slot_request.model, slot_request.key)
        self.number = number
        self.submitted = submitted
        self.granted = trio.Event()
        self.lease: Lease | None = None
        self.position = 0
        self.wait: float | None = None
        self.reason = ""
        self.on_position: Callable[[int], None] = lambda position: None
        self.made: Callable[[], int] = lambda: 0
        self.phase = Phase.WAITING
        self.priority = max(slot_request.priority, slot_request.user.priority)
        self._step, self._ageing = step, ageing
        self.returned = False
        self.refusal: RequestError | None = None
        self.told: tuple[int, float | None, str] = (0, None, "")
        self._remove = remove
        self._made = 0
        #: Tokens that were made when it last got a slot, and those it is to read there.
        self._before = 0
        self._prompt = slot_request.prompt_tokens

    @property
    def step(self) -> float:
        """Seconds of being held back by better classes that lift it into the next.

        Fewer where it is in a hurry, but not into a class that its user may not ask for.
        """
        return self._step if self.priority > self.slot_request.user.priority else self._ageing

    @property
    def risen(self) -> bool:
        """Whether it has come into a better class."""
        return self.priority < max(self.slot_request.priority, self.slot_request.user.priority)

    def used(self) -> int:
        """Tokens read and made since it last got a slot."""
        return self._prompt + self.tokens() - self._before

    def tokens(self) -> int:
        """Tokens made in all."""
        try:
            self._made = max(self._made, self.made())
        except Exception:
            log.exception("made_failed")
        return self._made

    def will_use(self, expected: float) -> float:
        """Tokens that it is going to use from now on, where its answer will have so many."""
        return max(1.0, self._prompt + max(0.0, expected - self._before))

    def lost(self, slot_request: SlotRequest) -> None:
        """Its slot was lost; what it used there is paid."""
        self.slot_request = slot_request
        self.kind = slot_request.model, slot_request.key
        self.phase = Phase.WAITING
        self.returned = True
        self.granted = trio.Event()
        # To read again what was read already is not the user's doing.
        self._before, self._prompt = self.tokens(), 0

    async def acquire(self) -> None:
        """Wait until it has a slot.

        Raises:
            RequestError: its deadline came first, and it has left; or it was given up.
        """
        deadline = math.inf if self.returned else self.slot_request.deadline
        try:
            with trio.move_on_at(deadline):
                await self.granted.wait()
        except BaseException:
            self._remove(self)
            raise
        if self.refusal is not None:
            raise self.refusal
        if not self.granted.is_set():
            self._remove(self)
            raise self.too_late()

    def too_late(self) -> RequestError:
        """The error for one that did not begin by its deadline."""
        seconds = max(0.0, self.slot_request.deadline - self.submitted)
        return RequestTimeout(f"not begun in {seconds:.3g} s", retry=True)

    def moved(self) -> None:
        """Tell where it stands now, if that is not what was told last."""
        position, wait, reason = self.told
        if position == self.position and reason == self.reason and not _far(wait, self.wait):
            return
        self.settled()
        try:
            self.on_position(self.position)
        except Exception:
            log.exception("on_position_failed")

    def settled(self) -> None:
        """Where it stands now has been told."""
        self.told = self.position, self.wait, self.reason

    async def __aenter__(self) -> None:
        await self.acquire()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._remove(self)


def _far(told: float | None, now: float | None) -> bool:
    """Whether a wait is so different from what was told that it is worth telling."""
    if told is None or now is None:
        return told is not now
    return abs(told - now) > max(1.0, told / 5)
