"""Which conversations of a user have changed, for those who show them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import trio

#: What happened to a conversation.
CREATED, ADDED, CHANGED, DELETED = "created", "added", "changed", "deleted"
#: In place of an id: more than can be named have changed.
ALL = ""
#: Conversations that are remembered for a follower who does not take them.
MOST = 1000


class Changes:
    """Tells followers of what others do; whoever changes a conversation notes it here."""

    def __init__(self) -> None:
        self._followers: defaultdict[str, list[Follower]] = defaultdict(list)

    def __repr__(self) -> str:
        return f"<Changes, {sum(map(len, self._followers.values()))} followers>"

    def note(self, owner: str, conversation: str, kind: str) -> None:
        """A conversation of this owner has changed; it is on the disk.

        Args:
            kind: one of those above.
        """
        for follower in self._followers.get(owner, ()):
            follower.add(conversation, kind)

    @contextmanager
    def following(self, owner: str) -> Iterator[Follower]:
        """Within the block, what changes of this owner's."""
        follower = Follower()
        self._followers[owner].append(follower)
        try:
            yield follower
        finally:
            self._followers[owner].remove(follower)
            if not self._followers[owner]:
                del self._followers[owner]


class Follower:
    """Collects changes until they are taken.

    Attributes:
        pending: by conversation, what happened to it last; of one that is new, that it is.
    """

    def __init__(self) -> None:
        self.pending: dict[str, str] = {}
        self._woken = trio.Event()

    def __repr__(self) -> str:
        return f"<Follower, {len(self.pending)} pending>"

    def add(self, conversation: str, kind: str) -> None:
        """A conversation has changed."""
        if ALL not in self.pending:
            is_new = self.pending.get(conversation) == CREATED and kind != DELETED
            self.pending[conversation] = CREATED if is_new else kind
            if len(self.pending) > MOST:
                self.pending = {ALL: CHANGED}
        self._woken.set()

    def take(self) -> dict[str, str]:
        """What is pending, which is forgotten."""
        found, self.pending = self.pending, {}
        self._woken = trio.Event()
        return found

    async def wait(self) -> dict[str, str]:
        """As `take`, once there is something."""
        await self._woken.wait()
        return self.take()
