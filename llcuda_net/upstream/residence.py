"""Whether the process behind a backend is there, of a backend that is loaded on demand.

    unloaded --somebody wants it--> loading --> loaded --another needs its memory--> leaving
    leaving --what ran on it has finished--> unloading --> unloaded
    leaving --nobody needs its memory any more--> loaded
    loading --it fails--> unloaded, with the error, and no new attempt for a while

Who owns the process moves it: for a model of our own its manager, for one of a router what watches
that router. What waits for the model says so by `want`, which wakes the owner. A backend that is
leaving is up, and finishes what it has; it gets no new work. So no answer is ever cut off to make
room for another model.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import StrEnum

import trio

from llcuda_net.errors import RequestError

#: Seconds for which a want without a ticket lasts: those who have one say it again.
_WANT = 5.0
#: The reason of a model that nobody has asked for.
NOT_LOADED = "not loaded"


class Presence(StrEnum):
    """Where a model is on its way into memory and out of it."""

    UNLOADED = "unloaded"
    LOADING = "loading"
    LOADED = "loaded"
    LEAVING = "leaving"
    UNLOADING = "unloading"


class Wishes:
    """Wakes the owner of processes when one of them is wanted, or no longer in use."""

    def __init__(self) -> None:
        self._event = trio.Event()

    def notify(self) -> None:
        """Wake the owner."""
        self._event.set()

    async def wait(self) -> None:
        """Return once `notify` was called since this last returned; for one caller."""
        await self._event.wait()
        self._event = trio.Event()


class Residence:
    """The presence of one model.

    Args:
        wishes: of its owner.

    Attributes:
        presence: see Presence.
        reason: why it is not loaded, or leaves, for a person.
        error: why the last attempt to load it has failed.
        holds: how many use it without a slot.
        uses: how many requests it has served.
        last_used: when it was last used or wanted, on trio's clock.
    """

    def __init__(self, wishes: Wishes) -> None:
        self.presence = Presence.UNLOADED
        self.reason = NOT_LOADED
        self._ready_at: float | None = None
        self.error: RequestError | None = None
        self.holds = self.uses = 0
        self.last_used = -float("inf")
        self._wishes = wishes
        self._wanted_until = -float("inf")
        self._wanted_since = float("inf")
        self._retry_at = -float("inf")
        self._waiting = 0
        self._moved = trio.Event()

    def __repr__(self) -> str:
        why = f" ({self.reason})" if self.reason else ""
        return f"<Residence: {self.presence}{why}, {self.holds} holds>"

    # -- as it stands ---------------------------------------------------------------------------

    @property
    def ready_in(self) -> float | None:
        """Seconds until it is loaded, estimated; None where that is not known, or is overdue."""
        left = None if self._ready_at is None else self._ready_at - trio.current_time()
        return left if left is None or left > 0 else None

    @ready_in.setter
    def ready_in(self, seconds: float | None) -> None:
        self._ready_at = None if seconds is None else trio.current_time() + seconds

    @property
    def present(self) -> bool:
        """Whether its process answers."""
        return self.presence in (Presence.LOADED, Presence.LEAVING)

    @property
    def takes_work(self) -> bool:
        """Whether it may be given new work."""
        return self.presence is Presence.LOADED

    @property
    def failure(self) -> RequestError | None:
        """Why it cannot be loaded, while that is so lately that it is not tried again."""
        return self.error if trio.current_time() < self._retry_at else None

    @property
    def wanted(self) -> bool:
        """Whether somebody without a ticket waits for it."""
        return self._waiting > 0 or trio.current_time() < self._wanted_until

    @property
    def wanted_since(self) -> float:
        """When those without a ticket began to wait for it, on trio's clock."""
        return self._wanted_since if self.wanted else float("inf")

    # -- for those who need it -------------------------------------------------------------------

    def want(self) -> None:
        """Somebody waits for it: its owner looks at it now."""
        self._begin_waiting()
        self.last_used = trio.current_time()
        self._wanted_until = self.last_used + _WANT
        self._wishes.notify()

    def _begin_waiting(self) -> None:
        if not self.wanted:
            self._wanted_since = trio.current_time()

    def missed(self) -> None:
        """A ticket found it not there; the ticket itself is what waits."""
        self._wishes.notify()

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """Enclose what needs it for a moment and has no slot of it: it is there meanwhile.

        Raises:
            RequestError: it cannot be loaded.
        """
        self._begin_waiting()
        self._waiting += 1
        try:
            while not self.present:
                if (error := self.failure) is not None:
                    raise error
                self._wishes.notify()
                await self._moved.wait()
        finally:
            self._waiting -= 1
        self.holds += 1
        self.uses += 1
        self.last_used = trio.current_time()
        try:
            yield
        finally:
            self.holds -= 1
            self.last_used = trio.current_time()
            self._wishes.notify()

    async def arrived(self) -> None:
        """Return while it is there, else as soon as it is; nothing is loaded for that."""
        while not self.present:
            await self._moved.wait()

    # -- for its owner ---------------------------------------------------------------------------

    def move(self, presence: Presence, reason: str = "", ready_in: float | None = None) -> None:
        """It is somewhere else on its way, or for another reason."""
        self.presence, self.reason, self.ready_in = presence, reason, ready_in
        if presence is Presence.LOADED:
            self.error = None
        moved, self._moved = self._moved, trio.Event()
        moved.set()

    def fail(self, error: RequestError, pause: float) -> None:
        """It could not be loaded, and is not tried again for a while.

        Args:
            pause: seconds.
        """
        self.error = error
        self._retry_at = trio.current_time() + pause
        self._wanted_until = -float("inf")
        self.move(Presence.UNLOADED, error.message)

    def retry(self) -> None:
        """It may be tried again at once, though it has failed lately."""
        self.error = None
        self._retry_at = -float("inf")

    def used(self) -> None:
        """A slot of it was given back."""
        self.uses += 1
        self.last_used = trio.current_time()
        self._wishes.notify()
