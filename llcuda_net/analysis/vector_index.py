"""Which results are about the same: their embeddings in memory, searched exactly.

A result's embedding is the mean of two unit vectors, of its prompt and of its answer; so it is
found by words of either. docs/benchmarks/semantic.md compares this with other ways.

All of it blocks: call it in a thread. Numba is imported at the first search: whoever never searches
does without its 100 MB.
"""

from __future__ import annotations

import threading
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llcuda_net.storage.results.interface import Analyses, Space, Summary

if TYPE_CHECKING:
    import numpy as np

    from llcuda_kernels import VectorStore

#: Identifies the way in which a result becomes a vector; another way needs another number.
RECIPE = 1


@dataclass(frozen=True)
class Found:
    """What a search found.

    Attributes:
        hits: the results, nearest first: summary, beginning of the text, cosine.
        searched: how many results were searched.
        backlog: how many are not analysed yet, and so were not.
        with_owners: whether the user who searched may see whose they are.
    """

    hits: list[tuple[Summary, str, float]]
    searched: int
    backlog: int
    with_owners: bool = False


def combine(parts: Sequence[Sequence[list[float]]]) -> np.ndarray[Any, Any]:
    """One vector for each result from those of its texts, (m, dim) float32.

    The mean of the unit vectors; an empty list stands for a text that has none. A row of NaN is a
    result of which there is no vector. Raises ValueError where dimensions differ.
    """
    import numpy as np

    dim = max((len(vector) for result in parts for vector in result), default=0)
    out = np.full((len(parts), dim), np.nan, np.float32)
    for row, result in enumerate(parts):
        units = []
        for vector in result:
            if vector:
                x = np.asarray(vector, np.float64)
                with np.errstate(invalid="ignore", divide="ignore"):
                    x = x / np.sqrt((x * x).sum())
                if np.isfinite(x).all():
                    units.append(x)
        if units:
            out[row] = np.mean(units, axis=0)
    return out


def quantised(vectors: np.ndarray[Any, Any]) -> list[tuple[float, bytes] | None]:
    """Scale and codes of each row; None for one that is no vector."""
    from llcuda_kernels.reference.quantize import normalize_quantize

    if not vectors.size:
        return [None] * len(vectors)
    codes, scales = normalize_quantize(vectors)
    return [
        (float(scale), row.tobytes()) if scale > 0 else None
        for scale, row in zip(scales, codes, strict=True)
    ]


#: An embedding in memory: owner, the result's number, scale and codes.
Row = tuple[str, int, float, bytes]


class VectorIndex:
    """The embeddings of one space in memory; a thread may search while another adds.

    What is stored of the space may be added by other servers, too: `follow` reads what is new.

    Each owner's are apart, so that those of others cost a search nothing and cannot be found by
    it. A search over all searches each owner's and takes the best of them.
    """

    def __init__(self, dim: int) -> None:
        self._dim = dim
        self._owned: dict[str, _OwnerVectors] = {}
        self._adding = threading.Lock()
        self._last = 0  # the id of the newest embedding that was read
        self._reading = threading.Lock()

    def __repr__(self) -> str:
        return f"<VectorIndex: {self.count(None)} of {len(self._owned)} owners, dim {self._dim}>"

    @classmethod
    def load(cls, analyses: Analyses, space: Space) -> VectorIndex:
        """All that is stored of a space. Raises StorageError."""
        out = cls(space.dim)
        out.follow(analyses, space)
        return out

    def follow(self, analyses: Analyses, space: Space) -> None:
        """Add what was stored of its space since the last time. Raises StorageError."""
        with self._reading:
            for page in analyses.embeddings(space.id, self._last):
                self.add([(one.owner, one.seq, one.scale, one.codes) for one in page])
                self._last = page[-1].id

    def count(self, owner: str | None) -> int:
        """How many of an owner (None: everybody) can be found now."""
        return sum(len(owned) for owned in self._of(owner))

    def add(self, rows: Sequence[Row]) -> None:
        """Add results that are not there yet."""
        by_owner: dict[str, list[Row]] = {}
        for row in rows:
            # Damaged ones, of another length, are as if they were not there.
            if len(row[3]) == self._dim:
                by_owner.setdefault(row[0], []).append(row)
        with self._adding:
            for owner, found in by_owner.items():
                owned = self._owned.get(owner)
                if owned is None:
                    # A new dictionary: a search may be going through the old one.
                    owned = _OwnerVectors(self._dim)
                    self._owned = {**self._owned, owner: owned}
                owned.add(found)

    def search(
        self, query: Sequence[float], k: int, analyses: Analyses, owner: str | None
    ) -> list[tuple[Summary, str, float]]:
        """The k results of an owner (None: of all) nearest to a vector.

        Each has its summary, the beginning of its text, and the cosine. Raises StorageError.
        """
        import numpy as np

        vector = np.asarray(query, np.float32)
        places = [(owned, owned.nearest(vector, k)) for owned in self._of(owner)]
        while True:
            found = [(score, seq, row, owned) for owned, best in places for score, seq, row in best]
            found.sort(key=lambda one: (-one[0], one[1]))
            del found[k:]
            there = analyses.summaries([seq for _, seq, _, _ in found])
            if owner is not None:  # a damaged store may have named another one
                there = {seq: one for seq, one in there.items() if one[0].owner == owner}
            gone = [(owned, row) for _, seq, row, owned in found if seq not in there]
            if not gone:
                return [(*there[seq], score) for score, seq, _, _ in found]
            for owned, row in gone:  # pruned since: never to be found again
                owned.vectors.discard(row)
            again = {id(owned) for owned, _ in gone}
            places = [
                (owned, owned.nearest(vector, k) if id(owned) in again else best)
                for owned, best in places
            ]

    def _of(self, owner: str | None) -> list[_OwnerVectors]:
        owned = self._owned
        if owner is None:
            return list(owned.values())
        return [owned[owner]] if owner in owned else []


class _OwnerVectors:
    """One owner's vectors, and the number of the result of each."""

    def __init__(self, dim: int) -> None:
        self._dim = dim
        self._seqs = array("q")
        self._store: VectorStore | None = None
        #: Codes and scales that are not in the store yet, which the first search makes.
        self._waiting: list[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]] = []
        self._making = threading.Lock()

    def __len__(self) -> int:
        return len(self._seqs) if self._store is None else len(self._store)

    @property
    def vectors(self) -> VectorStore:
        """What can be searched."""
        import numpy as np

        from llcuda_kernels import VectorStore

        with self._making:
            if self._store is None:
                store = VectorStore(self._dim)
                if self._waiting:
                    codes, scales = zip(*self._waiting, strict=True)
                    store.append_codes(np.concatenate(codes), np.concatenate(scales))
                    self._waiting.clear()
                self._store = store
            return self._store

    def add(self, rows: Sequence[Row]) -> None:
        """Add rows; by one thread at a time."""
        import numpy as np

        codes = np.frombuffer(b"".join(row[3] for row in rows), np.int8)
        scales = np.array([row[2] for row in rows], np.float32)
        codes = codes.reshape(len(rows), -1)
        with self._making:
            # First the numbers: a search looks them up by rows.
            self._seqs.extend(row[1] for row in rows)
            if self._store is None:
                self._waiting.append((codes, scales))
            else:
                self._store.append_codes(codes, scales)

    def nearest(self, vector: np.ndarray[Any, Any], k: int) -> list[tuple[float, int, int]]:
        """Cosine, number and row of the k nearest."""
        scores, rows = self.vectors.search(vector, k)
        return [
            (float(score), self._seqs[row], int(row))
            for score, row in zip(scores[0], rows[0], strict=True)
            if row >= 0
        ]
