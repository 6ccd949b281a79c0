"""Which conversations of a user have changed, for those who show them.

What this server changes is noted at once. What others do that keep conversations in the same
database is looked for each second.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

import structlog
import trio

from llcuda_net.errors import RequestError
from llcuda_net.server.objects import KeptObjects
from llcuda_net.storage.objects import feed
from llcuda_net.storage.objects.feed import ADDED as ADDED
from llcuda_net.storage.objects.feed import CHANGED as CHANGED
from llcuda_net.storage.objects.feed import CREATED as CREATED
from llcuda_net.storage.objects.feed import DELETED as DELETED
from llcuda_net.storage.objects.feed import Change, Position
from llcuda_net.storage.objects.interface import Database

log = structlog.get_logger(__name__)

#: In place of an id: more than can be named have changed.
ALL = ""
#: Conversations that are remembered for a follower who does not take them.
MOST = 1000
#: Seconds between two looks at what others have changed.
_EVERY = 1.0


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

    def note_unknown(self) -> None:
        """Others may have changed anything."""
        for followers in self._followers.values():
            for follower in followers:
                follower.add(ALL, CHANGED)

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
        if conversation == ALL:
            self.pending = {ALL: CHANGED}
        elif ALL not in self.pending:
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


class Lookout:
    """Looks at what other servers change.

    Args:
        objects: where they do.
        changes: told of conversations.
        sessions: told which sessions have changed, by their hashes; None: it may be any.
    """

    def __init__(
        self,
        objects: KeptObjects,
        changes: Changes,
        sessions: Callable[[Collection[bytes] | None], None],
    ) -> None:
        self._objects = objects
        self._changes = changes
        self._sessions = sessions
        self._position: Position | None = None
        self._looked: float | None = None

    def __repr__(self) -> str:
        return f"<Lookout {self._position!r}>"

    async def run(self) -> None:
        """Look each second, until cancelled; where nobody else changes anything, never."""
        if not self._objects.shared:
            return
        failing = False
        while True:
            try:
                await self.look()
                failing = False
            except RequestError as error:
                if not failing:
                    log.warning("changes_not_read", code=error.code, reason=error.message)
                failing = True
            await trio.sleep(_EVERY)

    async def look(self) -> None:
        """Tell what has changed since the last look; at the first one, that sessions may have.

        Raises:
            RequestError: it cannot be read.
        """
        now, life = trio.current_time(), self._objects.life

        def ask(db: Database) -> tuple[list[Change] | None, Position]:
            if self._position is None:
                return [], feed.position(db)
            return feed.since(db, self._position, life)

        found, self._position = await self._objects.read(ask)
        if self._looked is None:
            self._sessions(None)  # they were read before that
        elif now - self._looked > feed.KEPT / 2:
            found = None  # some may have been forgotten meanwhile
        self._looked = now
        if found is None:
            self._changes.note_unknown()
            self._sessions(None)
            return
        for one in found:
            if one.kind != feed.SESSIONS:
                self._changes.note(one.owner, one.id, one.kind)
        sessions = [bytes.fromhex(one.id) for one in found if one.kind == feed.SESSIONS]
        if sessions:
            self._sessions(sessions)
