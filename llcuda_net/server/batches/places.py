"""How many lines of all batches may be asked at once, and who asks next: users take turns.

As many as keep the slots of the upstreams busy, and no more: a place in the queue is for those who
wait for an answer. Within a user, lines are asked in the order in which their batches want to.
"""

from __future__ import annotations

from collections import OrderedDict, deque

import trio

from llcuda_net.server.http.exchange import HttpHost


class Places:
    """The places of one server.

    Args:
        host: has the upstreams, and the settings.
    """

    def __init__(self, host: HttpHost) -> None:
        self._host = host
        self._taken = 0
        #: Those who wait, by user; the user whose turn it is comes first.
        self._waiting: OrderedDict[str, deque[trio.Event]] = OrderedDict()

    def __repr__(self) -> str:
        waiting = sum(map(len, self._waiting.values()))
        return f"<Places {self._taken} of {self._most}, {waiting} waiting>"

    @property
    def _most(self) -> int:
        slots = sum(one.slots for one in self._host.pool.backends)
        # So that a slot that is free again has a line at once.
        waiting = min(slots, self._host.settings.max_queue // 4)
        return max(1, slots + waiting)

    async def take(self, owner: str) -> None:
        """Wait for a place for a line of this user."""
        await trio.lowlevel.checkpoint()
        turn = trio.Event()
        self._waiting.setdefault(owner, deque()).append(turn)
        self._give_out()
        try:
            await turn.wait()
        except trio.Cancelled:
            if turn.is_set():
                self.give_back()
            else:
                self._leave(owner, turn)
            raise

    def give_back(self) -> None:
        """A line is over, or is asked again later."""
        self._taken -= 1
        self._give_out()

    def _give_out(self) -> None:
        while self._waiting and self._taken < self._most:
            owner, waiting = next(iter(self._waiting.items()))
            self._waiting.move_to_end(owner)
            turn = waiting.popleft()
            if not waiting:
                del self._waiting[owner]
            self._taken += 1
            turn.set()

    def _leave(self, owner: str, turn: trio.Event) -> None:
        waiting = self._waiting[owner]
        waiting.remove(turn)
        if not waiting:
            del self._waiting[owner]
