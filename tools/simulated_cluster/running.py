"""A generation of a simulated server, as the product's parts ask for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace

from llcuda_net.errors import RequestError
from llcuda_net.generation.state import State
from llcuda_net.storage.journal.assembly import OpenGeneration
from llcuda_net.storage.journal.entry import JournalEntry
from llcuda_net.storage.packed_log import Chunk, PackedLog
from llcuda_net.storage.records import Appended, Level
from llcuda_net.storage.starting import Recovered
from tools.simulated_cluster.database.results import Stored


@dataclass(eq=False)
class Running:
    """A generation that a server has, as far as server/cluster and the readers know it.

    Attributes:
        entry: in the local journal, and in the database through that.
        pieces: all that were generated; `shown` of them are committed, or at the level `disk`
            were shown at once.
        splices: where each epoch began, and which.
        accepted: its acceptance is committed.
        suspended: it is stopped as it is; while its result is being stored, once that is known.
        storing: its result is being stored.
        upstream: that makes its pieces now; "": none.
    """

    entry: JournalEntry
    aside_with: Callable[[Running], None]
    pieces: list[str] = field(default_factory=list)
    splices: list[tuple[int, int]] = field(default_factory=list)
    shown: int = 0
    accepted: bool = False
    suspended: bool = False
    ended: bool = False
    storing: bool = False
    upstream: str = ""
    scope: SimpleNamespace = field(default_factory=lambda: SimpleNamespace(cancel_called=False))

    @classmethod
    def again(cls, found: Recovered, aside_with: Callable[[Running], None]) -> Running:
        """One of an earlier life."""
        pieces = [*found.log.pieces]
        splices = [(one.position, one.epoch) for one in found.entry.splices]
        return cls(found.entry, aside_with, pieces, splices, len(pieces), accepted=True)

    @property
    def id(self) -> str:
        """See Generation."""
        return self.entry.opened.generation

    @property
    def level(self) -> Level:
        """See Generation."""
        return self.entry.level

    @property
    def wanted(self) -> int:
        """How many pieces it is to have."""
        return int(self.entry.opened.request["tokens"])

    @property
    def told(self) -> Stored:
        """What a reader gets of it now."""
        return Stored(tuple(self.pieces[: self.shown]), tuple(self.splices))

    def conceal(self) -> None:
        """See Generation."""
        self.shown = 0

    def suspend(self) -> None:
        """See Generation."""
        if not self.suspended:
            self.suspended = True
            if not self.storing:
                self.aside_with(self)

    def end(self, state: State, error: RequestError, *, kept: bool) -> None:
        """See Generation."""
        self.ended = True

    def hand_back(self, error: RequestError) -> None:
        """See Generation."""
        raise AssertionError("all have an entry")


@dataclass(frozen=True)
class Left:
    """As persistence.Left."""

    generation: Running

    @property
    def entry(self) -> JournalEntry:
        """See there."""
        return self.generation.entry

    def aside(self) -> Recovered:
        """See there."""
        pieces = self.generation.pieces
        chunks = []
        if pieces:
            record = Appended(0, 0, [*pieces], [None] * len(pieces))
            chunks.append(Chunk.of(record, len(pieces)))
        return Recovered(self.entry, PackedLog(chunks), gap=False)


def opened_again(one: Recovered) -> OpenGeneration:
    """As Storage.begin_again makes it."""
    entry = one.entry
    return OpenGeneration(
        entry.opened, one.packed, entry.splices, entry.switches, one.dispatched, one.concluded
    )


class Registry:
    """As generation.registry.Registry, of what runs."""

    def __init__(self) -> None:
        self.by_id: dict[str, Running] = {}

    def __iter__(self) -> Iterator[Running]:
        return iter([*self.by_id.values()])

    def __len__(self) -> int:
        return len(self.by_id)

    def __contains__(self, one: Running) -> bool:
        return self.by_id.get(one.id) is one

    def find(self, id_: str, owner: str | None) -> Running | None:
        """See Registry."""
        return self.by_id.get(id_)

    def with_key(self, key: str, owner: str) -> Running | None:
        """See Registry."""
        return next((one for one in self if one.entry.opened.key == key), None)

    def drop(self, one: Running) -> None:
        """It runs here no more."""
        if one in self:
            del self.by_id[one.id]
