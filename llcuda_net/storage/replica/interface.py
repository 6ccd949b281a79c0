"""What a journal needs of its second copy: the interface, and the values that go through it.

`storage` knows only this; `cluster.mirror` implements it, with a database of several servers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import trio

from llcuda_net.errors import StorageError
from llcuda_net.storage.journal.assembly import OpenGeneration
from llcuda_net.storage.records import Opened
from llcuda_net.storage.results.interface import Store

#: Told that something is committed (None), or that it never will be, and why.
Committed = Callable[[StorageError | None], None]


@dataclass(frozen=True)
class Accept:
    """A generation that becomes this server's.

    Attributes:
        id: the generation's.
        owner: the user whose it is.
        key: its idempotency key, unique per owner.
        request_hash: of its request, as in records.Opened.
    """

    id: str
    owner: str
    key: str | None = None
    request_hash: bytes = b""

    @classmethod
    def of(cls, opened: Opened) -> Accept:
        """That of a generation's first record."""
        return cls(opened.generation, opened.owner, opened.key, opened.request_hash)


@dataclass(frozen=True)
class Adopted:
    """A generation to take over, with its log so far as records for one's own journal."""

    generation: str
    bodies: Sequence[bytes]
    slot: int = 0


@dataclass(frozen=True)
class Former:
    """What a life of a server left that is fenced.

    Attributes:
        number: that life's.
        generations: those that are still its own, oldest first.
        taken: ids of those that other lives have taken from it, also of those that are over now.
        whole: nobody was shown anything that is not here, as it was handed over by a live server.
    """

    number: int
    generations: list[OpenGeneration] = field(default_factory=list)
    taken: frozenset[str] = frozenset()
    whole: bool = False


class Entry(Protocol):
    """What is needed of a JournalEntry.

    Attributes:
        slot: its short number in the journal.
        accepted_at: position behind its acceptance.
        taken: another generation, which has its idempotency key.
    """

    slot: int
    accepted_at: int
    taken: str | None


class Replica(Protocol):
    """The second copy of a journal. All is for the trio thread, and nothing blocks.

    Attributes:
        failed: why nothing is committed any more under this life; None: not so.
        refusal: why nothing new should be begun now; None: it can be.
        on_set_back: called when records are gone that were committed, since the database was set
            back: all those of open generations are to be added again, and these accepted again.
        position: records that were added.
        committed: how many of them are committed.
    """

    failed: StorageError | None
    refusal: StorageError | None
    on_set_back: Callable[[], object]
    position: int
    committed: int

    def add(self, slot: int, body: bytes, hurry: bool) -> None:
        """Take an encoded record of the journal, in the journal's order; it goes with `send`.

        Args:
            hurry: somebody waits for its commit.
        """

    def accept(self, entry: Entry, accept: Accept, hurry: bool) -> None:
        """A generation is this server's, from the batch on that has what was added last."""

    def forget(self, slot: int, generation: str, *, stored: bool) -> None:
        """A generation is not needed any more.

        Args:
            stored: its result was stored by a store that has the `guard`; else it goes from the
                open ones with the next batch.
        """

    def send(self) -> None:
        """Have all that was added committed: at once, or soon where nobody waits."""

    def when(self, position: int, then: Committed) -> bool:
        """Whether all up to a position is committed; if not, `then` is called when that is known.

        Raises:
            StorageError: it never will be.
        """

    async def until(self, position: int) -> None:
        """Return when all up to a position is committed.

        Raises:
            StorageError: it never will be.
        """

    async def former(self) -> list[Former]:
        """What this server's earlier lives have left; they are fenced."""

    async def adopt(self, other: int, generations: Sequence[Adopted]) -> dict[str, int]:
        """Take over generations of a life that this one has fenced: the epochs of those it got.

        Raises:
            StorageError: this life is fenced itself.
        """

    async def settled(self) -> None:
        """What the earlier lives had left is taken over or nobody's: they may be forgotten."""

    async def orphaned(self, ids: Sequence[str]) -> set[str]:
        """Those of these generations that no server has, had taken over, or has a result of."""

    def give_up(self) -> None:
        """Have what waits for an answer of the others' database fail; records may still go."""

    def guard(self, store: Store) -> None:
        """Have each `put` of a store done only while this life has these generations, which then
        are over.
        """

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Commit until cancelled, and then what was added, if that is possible."""
