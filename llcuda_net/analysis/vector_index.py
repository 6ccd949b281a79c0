"""Which results are about the same: their embeddings in memory, searched exactly.

A result's embedding is the mean of two unit vectors, of its prompt and of its answer; so it is
found by words of either. docs/benchmarks/semantic.md compares this with other ways.

All of it blocks: call it in a thread. Numba is imported at the first search: whoever never searches
does without its 100 MB.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from llcuda_net.analysis.devices import Devices
from llcuda_net.analysis.owner_vectors import Nearest, OwnerVectors, Row, best_of
from llcuda_net.storage.results.buckets import ALL
from llcuda_net.storage.results.interface import Analyses, Space, Summary

if TYPE_CHECKING:
    import numpy as np

    from llcuda_kernels.several.one_process import DeviceLostError

T = TypeVar("T")

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


class VectorIndex:
    """The embeddings of one space in memory; a thread may search while another adds.

    What is stored of the space may be added by other servers, too: `follow` reads what is new.

    Each owner's are apart, so that those of others cost a search nothing and cannot be found by
    it. A search over all searches each owner's and takes the best of them.

    Where a GPU fails, what it held is read from the store again, before anything is answered: what
    looks at the vectors is called by `safely`, or `recover` is called at DeviceLostError.

    A server of a cluster holds those of some buckets only. Which, and with them the vectors that
    are searched, is replaced at once: who has looked at both has looked at the same.
    """

    def __init__(self, dim: int, devices: Devices | None = None) -> None:
        self._dim = dim
        self._devices = Devices() if devices is None else devices
        self._losses = self._devices.losses  # that were known when it was read
        self._now = _Content(0, {})
        self._adding = threading.Lock()
        self._last = 0  # the id of the newest embedding that was read
        self._reading = threading.Lock()
        self._changing = threading.Lock()

    def __repr__(self) -> str:
        owners = len(self._now.owned)
        return f"<VectorIndex: {self.count(None)} of {owners} owners, dim {self._dim}>"

    @classmethod
    def load(
        cls,
        analyses: Analyses,
        space: Space,
        buckets: int = ALL,
        devices: Devices | None = None,
    ) -> VectorIndex:
        """What is stored of a space, of results in some buckets. Raises StorageError."""
        out = cls(space.dim, devices)
        out.hold(analyses, space, buckets)
        return out

    @property
    def buckets(self) -> int:
        """Those whose embeddings are all here."""
        return self._now.buckets

    def follow(self, analyses: Analyses, space: Space) -> int:
        """Add what was stored of its space since the last time. Raises StorageError.

        Returns the buckets of which all that is stored now is here. What `hold` reads goes as far
        as what was followed before, so of other buckets the newest may be missing until the next
        time.
        """
        with self._reading:
            buckets = self.buckets
            if buckets:
                self._last = self._read(analyses, space, buckets, self._last) or self._last
            return buckets

    def hold(self, analyses: Analyses, space: Space, buckets: int) -> None:
        """Read what is missing of these buckets, and drop all others.

        What is here can be searched meanwhile. Raises StorageError, and then it stays as it was.
        """
        with self._changing:
            before = self.buckets
            missing = buckets & ~before
            new = VectorIndex(self._dim, self._devices)
            upto = self._last if before else None
            last = new._read(analyses, space, missing, 0, upto) if missing else 0
            with self._reading:
                if not before:
                    self._last = last
                elif missing:  # what came meanwhile
                    new._read(analyses, space, missing, upto or 0, self._last)
                with self._adding:
                    self._now = self._now.merged(new._now.owned, before & buckets, buckets)

    def safely(self, analyses: Analyses, space: Space, do: Callable[[], T]) -> T:
        """What `do` gives; where a GPU fails, it is done again without. Raises StorageError."""
        from llcuda_kernels.several.one_process import DeviceLostError

        while True:
            try:
                return do()
            except DeviceLostError as lost:
                self.recover(analyses, space, lost)

    def recover(self, analyses: Analyses, space: Space, lost: DeviceLostError) -> None:
        """A GPU has failed: read all again, into what is left. Raises StorageError."""
        self._devices.lose(lost)
        with self._changing, self._reading:
            losses = self._devices.losses
            if self._losses == losses:  # another search has done it meanwhile
                return
            new = VectorIndex(self._dim, self._devices)
            buckets = self.buckets
            last = new._read(analyses, space, buckets, 0) if buckets else 0
            with self._adding:
                self._last = max(self._last, last)
                self._now = _Content(buckets, new._now.owned)
                self._losses = losses

    def _read(
        self, analyses: Analyses, space: Space, buckets: int, after: int, upto: int | None = None
    ) -> int:
        """Add what is stored behind an id; the id of the last one, 0 if there is none."""
        last = 0
        for page in analyses.embeddings(space.id, after, upto=upto, buckets=buckets):
            self.add([(one.owner, one.seq, one.scale, one.codes) for one in page])
            last = page[-1].id
        return last

    def count(self, owner: str | None, buckets: int = ALL) -> int:
        """How many of an owner (None: everybody), in some buckets, can be found now."""
        return self._now.count(owner, buckets)

    def add(self, rows: Sequence[Row]) -> None:
        """Add results that are not there yet."""
        by_owner: dict[str, list[Row]] = {}
        for row in rows:
            # Damaged ones, of another length, are as if they were not there.
            if len(row[3]) == self._dim:
                by_owner.setdefault(row[0], []).append(row)
        with self._adding:
            for owner, found in by_owner.items():
                owned = self._now.owned.get(owner)
                if owned is None:
                    # A new dictionary: a search may be going through the old one.
                    owned = OwnerVectors(self._dim, self._devices)
                    self._now = replace(self._now, owned={**self._now.owned, owner: owned})
                owned.add(found)

    def answer(
        self, query: Sequence[float], k: int, owner: str | None, wanted: int, gone: Collection[int]
    ) -> Answer:
        """The k nearest of an owner (None: of all) that are here.

        Args:
            wanted: those that are covered and counted, as far as they are here: of what was
                followed.
            gone: results that are deleted.
        """
        import numpy as np

        now = self._now
        there = now.of(owner)
        vector = np.asarray(query, np.float32)
        if gone:
            for owned in there:
                owned.discard(gone)
        found = [one for owned in there for one in owned.nearest(vector, k)]
        covered = now.buckets & wanted
        count = now.count(owner, ALL if covered == now.buckets else covered)
        return Answer(best_of(found, k), covered, count)

    def search(
        self, query: Sequence[float], k: int, analyses: Analyses, owner: str | None
    ) -> list[tuple[Summary, str, float]]:
        """The k results of an owner (None: of all) nearest to a vector.

        Each has its summary, the beginning of its text, and the cosine. Raises StorageError.
        """
        gone: list[int] = []
        while True:
            best = self.answer(query, k, owner, ALL, gone).best
            hits, gone = existing(best, analyses, owner)
            if not gone:
                return hits


def existing(
    best: Nearest, analyses: Analyses, owner: str | None
) -> tuple[list[tuple[Summary, str, float]], list[int]]:
    """The results of what was found, and the numbers of those that are deleted, or not the owner's,
    as a damaged store may say. Raises StorageError.
    """
    there = analyses.summaries([seq for _, seq in best])
    if owner is not None:
        there = {seq: one for seq, one in there.items() if one[0].owner == owner}
    hits = [(*there[seq], score) for score, seq in best if seq in there]
    return hits, [seq for _, seq in best if seq not in there]


@dataclass(frozen=True)
class Answer:
    """What was found in some buckets.

    Attributes:
        best: the nearest.
        buckets: those that were searched wholly, of those that were wanted.
        searched: how many results of these were searched.
    """

    best: Nearest
    buckets: int
    searched: int


@dataclass(frozen=True)
class _Content:
    """What is in memory: the buckets, and by owner the vectors of all of their results."""

    buckets: int
    owned: dict[str, OwnerVectors]

    def of(self, owner: str | None) -> list[OwnerVectors]:
        """The vectors of an owner (None: of each)."""
        if owner is None:
            return list(self.owned.values())
        return [self.owned[owner]] if owner in self.owned else []

    def count(self, owner: str | None, buckets: int) -> int:
        """How many of an owner (None: of all) can be found, of results in these buckets."""
        return sum(owned.count(buckets) for owned in self.of(owner))

    def merged(self, new: dict[str, OwnerVectors], kept: int, buckets: int) -> _Content:
        """With what is new, and of what is here with those in `kept` alone."""
        out: dict[str, OwnerVectors] = {}
        for owner in {**self.owned, **new}:
            here, more = self.owned.get(owner), new.pop(owner, None)
            if here is None:
                found = more
            elif more is None and kept == self.buckets:
                found = here
            else:
                found = here.merged(more, buckets)
            if found is not None and found.count(ALL):
                out[owner] = found
        return _Content(buckets, out)
