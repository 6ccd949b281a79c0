"""The part of the model with what is over, and with the idempotency keys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llcuda_net.cluster.keys import Held
from llcuda_net.cluster.keys import Key as Wanted

if TYPE_CHECKING:
    from tools.simulated_cluster.database.tables import Generation


@dataclass(frozen=True)
class Stored:
    """A row of `results`, of what has done its work: its pieces, and where its epochs began."""

    pieces: tuple[str, ...]
    splices: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Key:
    """A row of `keys`."""

    generation: str
    server: int
    request_hash: bytes


class Keys:
    """Statements of cluster.keys; a part of Database."""

    broken: str
    generations: dict[str, Generation]
    results: dict[str, Stored]
    keys: dict[tuple[str, str], Key]

    def is_fenced(self, number: int | None) -> bool:
        """See Database."""
        raise NotImplementedError

    def may_write(self, me: int) -> bool:
        """See Database."""
        raise NotImplementedError

    def put(self, id_: str, stored: Stored) -> None:
        """Store a result, if there is none."""
        self.results.setdefault(id_, stored)

    def claim_keys(
        self, me: int, keys: Sequence[Wanted], gone: Sequence[str] = ()
    ) -> dict[str, str] | None:
        """See cluster.keys."""
        if not self.may_write(me):
            return None
        unique = {(one.owner, one.key): one for one in keys}
        for place, one in unique.items():
            found = self.keys.get(place)
            if found is None or self._is_void(found, me, gone):
                self.keys[place] = Key(one.generation, me, one.request_hash)
        if self.broken == "keys-unchecked":
            return {}
        has = {one.generation: self.keys[one.owner, one.key].generation for one in keys}
        return {one: other for one, other in has.items() if one != other}

    def _is_void(self, one: Key, me: int, gone: Sequence[str]) -> bool:
        if one.generation in self.results:
            return False
        if self.broken == "keys-of-the-living":
            return True
        if one.generation in self.generations:
            return False
        return (one.server == me and one.generation in gone) or self.is_fenced(one.server)

    def find_key(self, owner: str, key: str) -> Held | None:
        """See cluster.keys."""
        found = self.keys.get((owner, key))
        if found is None:
            return None
        over = found.generation in self.results
        return Held(found.generation, found.request_hash, found.server, over, over)

    def unknown_keys(self, me: int) -> list[str]:
        """See cluster.keys."""
        return [
            one.generation
            for one in self.keys.values()
            if one.server == me
            and one.generation not in self.generations
            and one.generation not in self.results
        ]

    def release_keys(self, generations: Sequence[str]) -> int:
        """See cluster.keys."""
        gone = [
            place
            for place, one in self.keys.items()
            if one.generation in generations
            and one.generation not in self.generations
            and one.generation not in self.results
        ]
        for place in gone:
            del self.keys[place]
        return len(gone)

    def sweep_keys(self) -> int:
        """See cluster.keys."""
        gone = [place for place, one in self.keys.items() if self._is_void(one, 0, ())]
        for place in gone:
            del self.keys[place]
        return len(gone)
