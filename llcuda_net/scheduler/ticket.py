"""A request for one of the upstreams' slots, and the ticket with which its holder waits."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from enum import Enum, auto
from operator import attrgetter
from types import TracebackType
from typing import Protocol

import structlog
import trio

from llcuda_net.config.users import Priority, User
from llcuda_net.errors import RequestError, RequestTimeout

#: A position that differs by no more than this part of it is no news, for so many seconds: in a
#: long queue each start moves everybody.
_LITTLE, REFRESH = 1 / 20, 5.0

log = structlog.get_logger(__name__)


#: Model and key. Of the tickets of one kind either any has a place, or none.
Kind = tuple[str, Hashable]


class Lease(Protocol):
    """A slot that is held."""

    def release(self) -> None:
        """Give it back; whoever lends it calls `Scheduler.dispatch` when it is free again."""


def release(lease: Lease | None) -> None:
    """Give a slot back; an error is logged."""
    try:
        if lease is not None:
            lease.release()
    except Exception:
        log.exception("release_failed")


@dataclass(frozen=True, slots=True)
class SlotRequest:
    """What a slot is requested for.

    Attributes:
        user: whose request it is.
        model: requests for one model compete; positions and waits count among them.
        key: of tickets for a model with equal keys, if one has no place now, none has.
        priority: its class, at best the user's.
        deadline: clock time by which it must have started.
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
    """The phases of a ticket."""

    WAITING = auto()
    RUNNING = auto()
    DONE = auto()


class Ticket:
    """A request's place in the queue, then its slot; `async with` acquires and gives back.

    Args:
        ageing_step: seconds of being held back by better classes that lift it into the next,
            with regard to its deadline.
        ageing: the same without regard to it.
        remove: takes it out of the queue, or gives its slot back; idempotent.
        on_move: called with the ticket when its position, wait or reason has changed.
        tokens_made: returns how many tokens were generated so far.

    Attributes:
        slot_request: what it is for.
        kind: its model and key.
        number: tickets are numbered in the order in which they were made.
        submitted: when it was made.
        waiting_since: when it was queued last, after its slot was lost, too.
        granted: set when it has a slot; another event after each `Scheduler.requeue`.
        lease: the slot, while it has one.
        position: 1 for the next of its model; 0 for one that has a slot.
        wait: seconds until it has a slot, estimated, where that can be.
        reason: why it waits, for a person.
        phase: whether it waits, runs, or neither any more.
        priority: its class now; ageing lifts it into better ones.
        requeued: whether it had a slot before, and lost it.
        entering: whether it is being submitted: its deadline is about the waiting after that.
        error: why it waits no more, where it has failed.
    """

    def __init__(
        self,
        slot_request: SlotRequest,
        number: int,
        submitted: float,
        ageing_step: float,
        remove: Callable[[Ticket], None],
        *,
        ageing: float = math.inf,
        on_move: Callable[[Ticket], None] = lambda ticket: None,
        tokens_made: Callable[[], int] = lambda: 0,
    ) -> None:
        self.slot_request = slot_request
        self.kind: Kind = (slot_request.model, slot_request.key)
        self.number = number
        self.submitted = self.waiting_since = submitted
        self.granted = trio.Event()
        self.lease: Lease | None = None
        self.position = 0
        self.wait: float | None = None
        self.reason = ""
        self.phase = Phase.WAITING
        self.priority = max(slot_request.priority, slot_request.user.priority)
        self.requeued = False
        self.entering = False
        self.error: RequestError | None = None
        self._ageing_step, self._ageing = ageing_step, ageing
        self._remove = remove
        self._on_move = on_move
        self._tokens_made = tokens_made
        #: What `on_move` was last called for; at first as if it had a slot.
        self._notified: tuple[int, float | None, str] = (0, 0.0, "")
        self._notified_at = -math.inf
        self._made = 0
        #: Tokens that were made before it last got a slot, and those to be read there.
        self._made_before = 0
        self._prompt = slot_request.prompt_tokens

    def __repr__(self) -> str:
        request = self.slot_request
        at = f" at {self.position}" if self.phase is Phase.WAITING else ""
        return (
            f"<Ticket {self.number} of {request.user.name!r} for {request.model!r}: "
            f"{self.phase.name.lower()}{at}, {self.priority.name.lower()}"
            f"{', requeued' if self.requeued else ''}>"
        )

    @property
    def ageing_step(self) -> float:
        """Seconds of being held back by better classes that lift it into the next.

        Fewer where its deadline is near, but not into a class that its user may not ask for.
        """
        held_down = self.priority > self.slot_request.user.priority
        return self._ageing_step if held_down else self._ageing

    @property
    def promoted(self) -> bool:
        """Whether ageing has lifted it into a better class."""
        return self.priority < max(self.slot_request.priority, self.slot_request.user.priority)

    def tokens_used(self) -> int:
        """Tokens read and made since it last got a slot."""
        return self._prompt + self.tokens_made() - self._made_before

    def tokens_made(self) -> int:
        """Tokens made in all."""
        try:
            self._made = max(self._made, self._tokens_made())
        except Exception:
            log.exception("tokens_made_failed")
        return self._made

    def expected_use(self, answer: float) -> float:
        """Tokens that it is expected to use from now on, where its answer has `answer` tokens."""
        return max(1.0, self._prompt + max(0.0, answer - self._made_before))

    def requeue(self, slot_request: SlotRequest, now: float) -> None:
        """Make it wait again after its slot was lost; what it used there is paid."""
        self.waiting_since = now
        self.slot_request = slot_request
        self.kind = slot_request.model, slot_request.key
        self.phase = Phase.WAITING
        self.requeued = True
        self.granted = trio.Event()
        # The user did not cause the second reading of what was read already.
        self._made_before, self._prompt = self.tokens_made(), 0

    async def acquire(self) -> None:
        """Wait until it has a slot; no turn is given to others where it has one.

        Raises:
            RequestError: its deadline came first, and it was removed; or it has failed.
        """
        deadline = math.inf if self.requeued else self.slot_request.deadline
        try:
            if self.lease is not None:
                await trio.lowlevel.checkpoint_if_cancelled()
                return
            with trio.move_on_at(deadline):
                await self.granted.wait()
        except BaseException:
            self._remove(self)
            raise
        if self.error is not None:
            raise self.error
        if not self.granted.is_set():
            self._remove(self)
            raise self.timeout_error()

    def timeout_error(self) -> RequestError:
        """The error of a ticket that did not start by its deadline."""
        seconds = max(0.0, self.slot_request.deadline - self.submitted)
        return RequestTimeout(f"not begun in {seconds:.3g} s", retry=True)

    def notify(self, now: float) -> bool:
        """Call `on_move` if position, wait or reason differ enough from the last call.

        Its errors are logged.

        Returns:
            Whether it was called.
        """
        position, wait, reason = self._notified
        moved = abs(position - self.position)
        if (
            moved <= position * _LITTLE
            and (not moved or now < self._notified_at + REFRESH)
            and reason == self.reason
            and not _differs(wait, self.wait)
        ):
            return False
        self.mark_notified(now)
        try:
            self._on_move(self)
        except Exception:
            log.exception("on_move_failed")
        return True

    def mark_notified(self, now: float) -> None:
        """Take position, wait and reason as known to the holder."""
        self._notified = self.position, self.wait, self.reason
        self._notified_at = now

    @property
    def behind(self) -> bool:
        """Whether the holder was last notified of another position."""
        return self._notified[0] != self.position

    async def __aenter__(self) -> None:
        await self.acquire()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._remove(self)


#: What tickets are sorted by: the oldest first.
by_number = attrgetter("number")


def _differs(notified: float | None, now: float | None) -> bool:
    """Whether an estimated wait has changed by so much that it is worth a notice."""
    if notified is None or now is None:
        return notified is not now
    return abs(notified - now) > max(1.0, notified / 5)
