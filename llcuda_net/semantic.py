"""Which results are about the same: their embeddings in memory, searched exactly.

A result's embedding is the mean of two unit vectors, of what was asked and of what was answered; so
it is found by words of either. docs/benchmarks/semantic.md compares this with other ways.

All of it blocks: call it in a thread. Numba is imported when it is first needed.
"""

from __future__ import annotations

import threading
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llcuda_net.storage.store import Analyses, Space, Summary

if TYPE_CHECKING:
    import numpy as np

#: Names the way in which a result becomes a vector; another way needs another number.
RECIPE = 1


@dataclass(frozen=True)
class Found:
    """What a search found.

    Attributes:
        hits: the results, nearest first: summary, beginning of the text, cosine.
        searched: how many results were searched.
        backlog: how many are not analysed yet, and so were not.
    """

    hits: list[tuple[Summary, str, float]]
    searched: int
    backlog: int


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
    from llcuda_kernels import normalize_quantize
    from llcuda_kernels.device import to_host

    if not vectors.size:
        return [None] * len(vectors)
    codes, scales = map(to_host, normalize_quantize(vectors))
    return [
        (float(scale), row.tobytes()) if scale > 0 else None
        for scale, row in zip(scales, codes, strict=True)
    ]


class Near:
    """The embeddings of one space in memory; a thread may search while another adds."""

    def __init__(self, dim: int) -> None:
        from llcuda_kernels import VectorStore

        self._vectors = VectorStore(dim)
        self._seqs = array("q")
        self._adding = threading.Lock()

    @classmethod
    def load(cls, analyses: Analyses, space: Space) -> Near:
        """All that is stored of a space. Raises StorageError."""
        out = cls(space.dim)
        for page in analyses.embeddings(space.id):
            out.add([(one.seq, one.scale, one.codes) for one in page])
        return out

    def __len__(self) -> int:
        """How many can be found now: a number is there before its vector is."""
        return len(self._vectors)

    def add(self, rows: Sequence[tuple[int, float, bytes]]) -> None:
        """Add results (seq, scale, codes) that are not there yet."""
        import numpy as np

        # Damaged rows, of another length, are as if they were not there.
        good = [row for row in rows if len(row[2]) == self._vectors.dim]
        if not good:
            return
        codes = np.frombuffer(b"".join(row[2] for row in good), np.int8)
        scales = np.array([row[1] for row in good], np.float32)
        with self._adding:
            # First the numbers: a search looks them up by rows.
            self._seqs.extend(row[0] for row in good)
            self._vectors.append_codes(codes.reshape(len(good), -1), scales)

    def search(
        self, query: Sequence[float], k: int, analyses: Analyses
    ) -> list[tuple[Summary, str, float]]:
        """The k results nearest to a vector: summary, beginning of the text, cosine.

        Raises StorageError.
        """
        import numpy as np

        vector = np.asarray(query, np.float32)
        while True:
            scores, rows = self._vectors.search(vector, k)
            found = [
                (self._seqs[row], int(row), float(score))
                for score, row in zip(scores[0], rows[0], strict=True)
                if row >= 0
            ]
            there = analyses.summaries([seq for seq, _, _ in found])
            gone = [row for seq, row, _ in found if seq not in there]
            if not gone:
                return [(*there[seq], score) for seq, _, score in found]
            for row in gone:  # pruned since: never to be found again
                self._vectors.discard(row)
