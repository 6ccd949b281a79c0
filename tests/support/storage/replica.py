"""A replica that commits what a test lets it commit."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import trio

from llcuda_net.errors import StorageError
from llcuda_net.storage.replica.interface import (
    Accept,
    Adopted,
    Committed,
    Entry,
    Former,
    Replica,
)
from llcuda_net.storage.results.interface import Store


class HeldReplica(Replica):
    """It commits at once what is added, unless it is held.

    Attributes:
        bodies: all records.
        accepted: ids, in their order.
        taken: other generations that have an idempotency key, by the key.
    """

    def __init__(self) -> None:
        self.failed: StorageError | None = None
        self.refusal: StorageError | None = None
        self.on_set_back: Callable[[], object] = lambda: None
        self.position = self.committed = 0
        self.bodies: list[bytes] = []
        self.accepted: list[str] = []
        self.taken: dict[str | None, str] = {}
        self._held = False
        self._awaited: list[tuple[int, Committed]] = []

    def hold(self) -> None:
        """Commit nothing from now on."""
        self._held = True

    def release(self, error: StorageError | None = None) -> None:
        """Commit all, and what comes; or nothing any more."""
        self._held, self.failed = False, error
        self.send()

    def add(self, slot: int, body: bytes, hurry: bool) -> None:
        self.bodies.append(body)
        self.position += 1

    def accept(self, entry: Entry, accept: Accept, hurry: bool) -> None:
        entry.taken = self.taken.get(accept.key)
        self.accepted.append(accept.id)
        self.position += 1
        entry.accepted_at = self.position

    def forget(self, slot: int, generation: str, *, stored: bool) -> None:
        self.position += 1

    def send(self) -> None:
        if self._held:
            return
        if self.failed is None:
            self.committed = self.position
        awaited, self._awaited = self._awaited, []
        for _, then in awaited:
            then(self.failed)

    def when(self, position: int, then: Committed) -> bool:
        self.send()
        if position <= self.committed:
            return True
        if self.failed is not None:
            raise self.failed
        self._awaited.append((position, then))
        return False

    async def until(self, position: int) -> None:
        done = trio.Event()
        found: list[StorageError | None] = []

        def then(error: StorageError | None) -> None:
            found.append(error)
            done.set()

        if not self.when(position, then):
            await done.wait()
            if found[0] is not None:
                raise found[0]

    async def former(self) -> list[Former]:
        return []

    async def adopt(self, other: int, generations: Sequence[Adopted]) -> dict[str, int]:
        return {}

    async def settled(self) -> None:
        pass

    async def orphaned(self, ids: Sequence[str]) -> set[str]:
        return {*ids}

    def give_up(self) -> None:
        pass

    def guard(self, store: Store) -> None:
        pass

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started()
        await trio.sleep_forever()
