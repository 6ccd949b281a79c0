"""What goes into a server's journal in the database, on its way from one thread to the other."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from llcuda_net.cluster.standing import Batch, Outbox
from llcuda_net.cluster.trimming import Trimming
from llcuda_net.errors import StorageError
from llcuda_net.storage.replica.bodies import joined
from llcuda_net.storage.replica.interface import Accept, Entry

#: Bytes of records in one batch, about.
BATCH_BYTES = 4 << 20
#: Seconds from one attempt to the next: at first, and at most.
_AGAIN, _LONGEST = 0.05, 1.0


@dataclass(frozen=True, slots=True)
class Started:
    """A generation becomes this server's."""

    entry: Entry
    accept: Accept


@dataclass(frozen=True, slots=True)
class Over:
    """A generation is open no more; `stored`: its result was stored, and its row went with it."""

    slot: int
    generation: str
    stored: bool


#: A record, as its slot and its bytes; or one of the others.
Item = tuple[int, bytes] | Started | Over


@dataclass(eq=False)
class Life:
    """What is written under one number.

    Attributes:
        former: earlier lives of the same data directory.
        taken: position up to which the thread has taken what waits, into `outbox`.
        waiting: behind that; the trio thread adds, the other one takes.
        hurried: position up to which somebody waits for the commit.
        failed: why nothing is written any more.
        refusal: why nothing new should be begun.
        tries: how often the batch, or the change, that is to be written was tried in vain.
        last: number of the last batch that is in the database; 0: none is.
        again: when the next attempt is due, by time.monotonic.
    """

    number: int
    former: tuple[int, ...] = ()
    taken: int = 0
    waiting: deque[Item] = field(default_factory=deque)
    hurried: int = 0
    outbox: Outbox[Item] = field(default_factory=Outbox)
    trimming: Trimming = field(default_factory=Trimming)
    failed: StorageError | None = None
    refusal: StorageError | None = None
    tries: int = 0
    last: int = 0
    again: float = 0.0

    @property
    def pending(self) -> bool:
        """Whether there is something to send, or to send again."""
        return bool(self.waiting) or self.outbox.sent is not None

    @property
    def urgent(self) -> bool:
        """Whether somebody waits for what is not taken yet, or is to be sent again."""
        return self.hurried > self.taken or self.outbox.sent is not None

    def batch(self) -> Batch[Item] | None:
        """The batch to send now: again the last one, as long as that is not answered."""
        if self.outbox.sent is None:
            self.outbox = self.outbox.add(*self._take())
        self.outbox, batch = self.outbox.send()
        return batch

    def _take(self) -> list[Item]:
        items: list[Item] = []
        size, waiting = 0, self.waiting
        while waiting and size < BATCH_BYTES:
            item = waiting.popleft()
            if type(item) is tuple:
                size += len(item[1])
            items.append(item)
        self.taken += len(items)
        return items

    def next_number(self) -> int:
        """The number of a batch that does not go through the outbox; nothing is on its way."""
        number = self.outbox.number
        self.outbox = replace(self.outbox, number=number + 1)
        return number

    def missed(self, now: float) -> None:
        """An attempt failed."""
        self.again = now + min(_AGAIN * 2**self.tries, _LONGEST)
        self.tries = min(self.tries + 1, 32)

    def committed(self, batch: Batch[Item]) -> None:
        """A batch is in the database."""
        self.tries, self.refusal = 0, None
        self.last = batch.number
        self.outbox, items = self.outbox.committed(batch.number)
        sizes: dict[int, int] = {}
        over = []
        for item in items:
            if type(item) is tuple:
                slot, body = item
                sizes[slot] = sizes.get(slot, 0) + len(body)
            elif isinstance(item, Over):
                over.append(item.slot)
        self.trimming.added(batch.number, sizes)
        for slot in over:
            self.trimming.forgotten(slot)


@dataclass(frozen=True)
class Contents:
    """A batch as its statement needs it."""

    data: bytes
    started: Sequence[Started]
    ended: Sequence[str]

    @classmethod
    def of(cls, items: Sequence[Item]) -> Contents:
        """The contents of a batch; what began and ended in it leaves no trace."""
        bodies, started, over = [], {}, []
        for item in items:
            if isinstance(item, tuple):
                bodies.append(item[1])
            elif isinstance(item, Started):
                started[item.accept.id] = item
            elif not item.stored and started.pop(item.generation, None) is None:
                over.append(item.generation)
        return cls(joined(bodies), list(started.values()), over)
