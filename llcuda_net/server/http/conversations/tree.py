"""The tree of a conversation, as it is shown: what is left of it, and paths in it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterable
from typing import NamedTuple

from llcuda_net.server.http.responses.answers import RESPONSE
from llcuda_net.storage.objects.entries import ROOT, Link


class Spot(NamedTuple):
    """An entry that is shown, and where.

    Attributes:
        seq: the number of the entry.
        id: of the item, or of the response.
        generation: None where it is an item.
        previous: the number of the one that it goes on from; ROOT: it begins.
    """

    seq: int
    id: str
    generation: str | None
    previous: int


class Tree:
    """The entries of a conversation without those that are gone.

    What went on from one that is gone goes on from what that one went on from.

    Args:
        links: of all entries, in the order in which they were added.
        there: the generations that there are.
        head: the number of the entry that ends the active path.

    Attributes:
        spots: by number, in the order in which they were added.
    """

    def __init__(self, links: Iterable[Link], there: Container[str], head: int) -> None:
        self.spots: dict[int, Spot] = {}
        self._by_id: dict[str, int] = {}
        self._versions: defaultdict[int, list[str]] = defaultdict(list)
        nearest = {ROOT: ROOT}  # by entry, itself or what is shown in its place
        for seq, parent, id_, is_item in links:
            previous = nearest.get(parent, ROOT)
            if not is_item and id_ not in there:
                nearest[seq] = previous
                continue
            nearest[seq] = seq
            name = id_ if is_item else f"{RESPONSE}{id_}"
            self.spots[seq] = Spot(seq, name, None if is_item else id_, previous)
            self._by_id[name] = seq
            self._versions[previous].append(name)
        self._head = nearest.get(head, ROOT)

    def __repr__(self) -> str:
        return f"<Tree of {len(self.spots)} entries>"

    @property
    def active(self) -> str | None:
        """The id of the entry that ends the active path."""
        return None if self._head == ROOT else self.spots[self._head].id

    def find(self, id_: str) -> Spot | None:
        """The entry with this id, of a response also without what it begins with."""
        seq = self._by_id.get(id_) or self._by_id.get(f"{RESPONSE}{id_}")
        return None if seq is None else self.spots[seq]

    def previous(self, spot: Spot) -> str | None:
        """The id of what an entry goes on from; None: it begins."""
        return None if spot.previous == ROOT else self.spots[spot.previous].id

    def versions(self, spot: Spot) -> list[str]:
        """The ids of all that go on from the same, this one among them, oldest first."""
        return self._versions[spot.previous]

    def active_path(self) -> list[Spot]:
        """The entries of the active path, from its beginning on."""
        return self._to(self._head)

    def path(self, through: Spot) -> list[Spot]:
        """The path through an entry, and on to what was added last behind that."""
        last, behind = through.seq, {through.seq}
        for spot in self.spots.values():
            if spot.previous in behind:
                behind.add(spot.seq)
                last = spot.seq
        return self._to(last)

    def _to(self, seq: int) -> list[Spot]:
        found = []
        while seq != ROOT:
            found.append(self.spots[seq])
            seq = self.spots[seq].previous
        return found[::-1]
