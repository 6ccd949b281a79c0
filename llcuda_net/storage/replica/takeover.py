"""Takes generations over from lives that are over: one's own former ones, or other servers'.

A generation goes into the replica, as this life's, and then into the local journal. If the server
ends in between, its next life finds the generation in the replica.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from llcuda_net.errors import StorageError
from llcuda_net.storage.journal.assembly import Collector, OpenGeneration
from llcuda_net.storage.journal.entry import JournalEntry
from llcuda_net.storage.journal.journal import Journal
from llcuda_net.storage.journal.segments import restated
from llcuda_net.storage.replica.interface import Accept, Adopted, Replica

#: Most generations, and about as many bytes, that are taken over in one transaction.
PORTION, PORTION_BYTES = 64, 16 << 20

_Pair = tuple[OpenGeneration, JournalEntry]


class Takeover:
    """Takes over into one journal and its replica."""

    def __init__(self, journal: Journal, replica: Replica) -> None:
        self._journal = journal
        self._replica = replica

    def __repr__(self) -> str:
        return f"<Takeover into {self._journal!r}>"

    async def start(self, local: Sequence[_Pair]) -> tuple[list[_Pair], list[_Pair]]:
        """What goes on here after a start: all that this server's former lives had, and have still.

        Args:
            local: what the local journal has.

        Returns:
            Those that are this life's now, and those of the local journal that others have, whose
            results are stored, or whose idempotency keys were given to others before they came
            into the replica.

        Raises:
            StorageError: this life is fenced already, or a journal takes nothing.
        """
        here = {generation.id: (generation, entry) for generation, entry in local}
        mine: list[_Pair] = []
        for former in await self._replica.former():
            mine += await self.adopt(former.number, former.generations, here)
            for generation in former.generations:
                here.pop(generation.id, None)
        new = await self._replica.orphaned([*here])  # they never came into the replica
        for id_ in new:
            self.begin(*here[id_])
        if new:
            self._replica.send()
            await self._replica.until(self._replica.position)
        for id_ in new:
            if here[id_][1].taken is None:
                mine.append(here.pop(id_))
        await self._replica.settled()
        mine.sort(key=lambda pair: (pair[0].opened.created, pair[0].id))
        return mine, [*here.values()]

    def begin(self, generation: OpenGeneration, entry: JournalEntry) -> None:
        """Have one that the replica does not know be this life's."""
        entry.mirror()
        for body in restated(generation, entry.slot):
            self._replica.add(entry.slot, body, entry.awaited)
        self._replica.accept(entry, Accept.of(generation.opened), entry.acceptance_awaited)

    async def adopt(
        self,
        other: int,
        generations: Sequence[OpenGeneration],
        here: dict[str, _Pair] | None = None,
    ) -> list[_Pair]:
        """Take over what a fenced life had: those that are this life's now.

        Args:
            here: what the local journal has of some of them, by id.

        Raises:
            StorageError: as `start`; some may be taken over then.
        """
        out: list[_Pair] = []
        for portion in _portions(generations):
            pairs = [self._pair(one, (here or {}).get(one.id)) for one in portion]
            adopted = [
                Adopted(one.id, [*restated(one, entry.slot)], entry.slot) for one, entry in pairs
            ]
            epochs = await self._replica.adopt(other, adopted)
            for (generation, entry), one in zip(pairs, adopted, strict=True):
                if generation.id in epochs:
                    self._journal.restate(entry, one.bodies)
                    entry.mirror()
                    out.append((generation, entry))
                elif entry.bytes:
                    self._journal.forget(entry)
            with contextlib.suppress(StorageError):  # no room: the replica has it
                self._journal.write()
        return out

    def _pair(self, generation: OpenGeneration, local: _Pair | None) -> _Pair:
        """What is known of a generation here and there, with its entry here."""
        if local is None:
            return generation, self._journal.entry_of(generation)
        known, entry = local
        both = Collector((), {})
        both.add([*restated(known, entry.slot)])
        both.add([*restated(generation, entry.slot)])
        (whole,) = both.generations()
        whole.gap = known.gap and whole.packed.count == known.packed.count
        entry.splices, entry.switches = whole.splices, whole.switches
        entry.count = whole.packed.count
        if whole.dispatched is not None:
            entry.dispatches = whole.dispatched.number + 1
        return whole, entry


def _portions(generations: Sequence[OpenGeneration]) -> Iterator[list[OpenGeneration]]:
    portion: list[OpenGeneration] = []
    size = 0
    for one in generations:
        if portion and (len(portion) == PORTION or size + one.packed.size > PORTION_BYTES):
            yield portion
            portion, size = [], 0
        portion.append(one)
        size += one.packed.size
    if portion:
        yield portion
