"""One owner's embeddings in memory, in the order of their results' numbers.

In that order, since the kernels give the lower row of two that are equally near: so it is always
the result that was stored first, however the rows came here.
"""

from __future__ import annotations

import threading
from array import array
from bisect import bisect_left
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from llcuda_net.storage.results.buckets import ALL, BUCKETS, packed

if TYPE_CHECKING:
    import numpy as np

    from llcuda_kernels import VectorStore
    from llcuda_kernels.several.one_process import SpreadStore
    from llcuda_net.analysis.devices import Devices

    Array: TypeAlias = np.ndarray[Any, Any]

#: An embedding in memory: owner, the result's number, scale and codes.
Row = tuple[str, int, float, bytes]
#: What a search finds, nearest first: the cosine, and the result's number.
Nearest = list[tuple[float, int]]


def best_of(found: Nearest, k: int) -> Nearest:
    """The k nearest of all; of equally near ones, those that were stored first; each once."""
    scores: dict[int, float] = {}
    for score, seq in found:
        scores[seq] = max(score, scores.get(seq, score))
    best = sorted(scores.items(), key=lambda one: (-one[1], one[0]))[:k]
    return [(score, seq) for seq, score in best]


class OwnerVectors:
    """One owner's vectors of one dimension; a thread may search while another adds.

    Whatever looks at the store raises DeviceLostError when a GPU fails; then it is of no use.

    Args:
        devices: where they are searched; None: on the CPU.
    """

    def __init__(self, dim: int, devices: Devices | None = None) -> None:
        self._dim = dim
        self._devices = devices
        self._lock = threading.Lock()
        #: The result of each row of the store.
        self._seqs = array("q")
        self._store: VectorStore | SpreadStore | None = None
        #: Numbers, codes and scales that are not in the store yet, which a search makes.
        self._waiting: list[tuple[Array, Array, Array]] = []

    def __len__(self) -> int:
        return self.count(ALL)

    def count(self, buckets: int) -> int:
        """How many can be found of results in these buckets."""
        with self._lock:
            if buckets == ALL:
                return len(self._seqs) + sum(len(one[0]) for one in self._waiting)
            return int(_in(self._all_seqs(), buckets).sum())

    def add(self, rows: Sequence[Row]) -> None:
        """Add rows."""
        import numpy as np

        seqs = np.array([row[1] for row in rows], np.int64)
        codes = np.frombuffer(b"".join(row[3] for row in rows), np.int8)
        codes = codes.reshape(len(rows), self._dim)
        scales = np.array([row[2] for row in rows], np.float32)
        with self._lock:
            self._waiting.append((seqs, codes, scales))

    def merged(self, other: OwnerVectors | None, buckets: int) -> OwnerVectors:
        """Those of both that are of results in these buckets, in a new one."""
        import numpy as np

        out = OwnerVectors(self._dim, self._devices)
        for one in (self, other):
            if one is not None:
                with one._lock:
                    seqs, codes, scales = one._all()
                there = _in(seqs, buckets) & ~np.isnan(scales)
                out._waiting.append((seqs[there], codes[there], scales[there]))
        return out

    def nearest(self, vector: Array, k: int) -> Nearest:
        """The k nearest; of equally near ones, those that were stored first."""
        with self._lock:
            store, seqs = self._searchable()
        scores, rows = store.search(vector, k)
        return [
            (float(score), seqs[row])
            for score, row in zip(scores[0], rows[0], strict=True)
            if row >= 0
        ]

    def discard(self, seqs: Collection[int]) -> None:
        """Never find these again: they are deleted."""
        with self._lock:
            store, there = self._searchable()
            for seq in seqs:
                row = bisect_left(there, seq)
                if row < len(there) and there[row] == seq:
                    store.discard(row)

    def _searchable(self) -> tuple[VectorStore | SpreadStore, array[int]]:
        """The store with all rows in the order of their numbers, which `_seqs` are."""
        import numpy as np

        from llcuda_kernels import VectorStore

        if self._store is None or self._waiting:
            new = np.concatenate([np.empty(0, np.int64), *(one[0] for one in self._waiting)])
            if self._store is not None and _ascending(new, self._seqs):
                for seqs, codes, scales in self._waiting:
                    # First the numbers: a search that is under way looks them up by rows.
                    self._seqs.extend(seqs.tolist())
                    self._store.append_codes(codes, scales)
            else:
                seqs, codes, scales = self._all()
                order = np.argsort(seqs, kind="stable")
                order = order[~np.isnan(scales[order])]
                # One that was damaged and embedded again comes twice: the later one counts.
                numbers = seqs[order]
                order = order[np.append(numbers[1:] != numbers[:-1], True)[: order.size]]
                if self._devices is None:
                    store: VectorStore | SpreadStore = VectorStore(self._dim, backend="cpu")
                else:
                    store = self._devices.store(self._dim)
                if order.size:
                    store.append_codes(codes[order], scales[order])
                self._store, self._seqs = store, array("q", seqs[order].tobytes())
            self._waiting = []
        return self._store, self._seqs

    def _all_seqs(self) -> Array:
        import numpy as np

        return np.concatenate([np.array(self._seqs, np.int64), *(one[0] for one in self._waiting)])

    def _all(self) -> tuple[Array, Array, Array]:
        """Numbers, codes and scales of all rows; the scale of what was discarded is NaN."""
        import numpy as np

        codes, scales = np.empty((0, self._dim), np.int8), np.empty(0, np.float32)
        if self._store is not None:
            codes, scales = self._store.arrays()
        return (
            self._all_seqs(),
            np.concatenate([codes, *(one[1] for one in self._waiting)]),
            np.concatenate([scales, *(one[2] for one in self._waiting)]),
        )


def _in(seqs: Array, buckets: int) -> Array:
    """Which of these numbers are of results in these buckets."""
    import numpy as np

    bits = np.unpackbits(np.frombuffer(packed(buckets), np.uint8), bitorder="little")
    found: Array = bits[seqs % BUCKETS].astype(bool)
    return found


def _ascending(new: Array, seqs: array[int]) -> bool:
    last = seqs[-1] if seqs else -1
    return bool(new.size == 0 or (new[0] > last and (new[1:] > new[:-1]).all()))
