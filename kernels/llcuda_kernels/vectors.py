"""An exact index of int8 vectors that grows, and is searched while it grows.

1. Rows lie in segments that are never moved: appending copies nothing but the new rows.
2. A row is written first and counted after, so a search that runs meanwhile sees whole rows only.
   It answers for the rows that were counted when it began.
3. A row's number is its place, from 0, for as long as the store lives. Discarding one takes it out
   of the searches; its place stays taken.
4. Nothing here touches a disk: `arrays` gives what there is to save, `from_arrays` takes it back.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from .arrays import Array, host
from .embeddings import normalize_quantize
from .runtime import device
from .runtime.backend import Backend
from .runtime.copies import to_host
from .search import MAX_DIM, MAX_K, cosine_topk, inverse_norms

#: Rows of the first segment; each further one is twice as large, up to the last figure.
FIRST_SEGMENT = 1 << 10
LARGEST_SEGMENT = 1 << 20

Host = np.ndarray[Any, Any]


class Segment(Protocol):
    """A fixed number of places for rows; all segments of a store are of one class."""

    size: int

    @staticmethod
    def search(
        segments: Sequence[tuple[int, Any]], codes: Host, inverse: Host, count: int, k: int
    ) -> tuple[Host, Host]:
        """The k best among the first `count` rows of segments, each with the number of its first
        row: scores and rows. `inverse`: the inverse norms of the codes.
        """

    def write(self, at: int, codes: Host, scales: Host, inverse: Host) -> None:
        """Fill the places from `at` on."""

    def discard(self, at: int) -> None:
        """Take the row out of searches."""

    def read(self, count: int) -> tuple[Host, Host, Host]:
        """Copies of the first `count` rows: codes, scales, inverse norms."""


class HostSegment:
    """Rows in the host's memory."""

    def __init__(self, size: int, dim: int) -> None:
        self.size = size
        self._codes = np.empty((size, dim), np.int8)
        self._scales = np.empty(size, np.float32)
        self._inverse = np.empty(size, np.float32)

    def write(self, at: int, codes: Host, scales: Host, inverse: Host) -> None:
        """Fill the places from `at` on."""
        end = at + codes.shape[0]
        self._codes[at:end], self._scales[at:end], self._inverse[at:end] = codes, scales, inverse

    def discard(self, at: int) -> None:
        """Take the row out of searches."""
        self._inverse[at] = np.nan

    def read(self, count: int) -> tuple[Host, Host, Host]:
        """Copies of the first `count` rows: codes, scales, inverse norms."""
        return (
            self._codes[:count].copy(),
            self._scales[:count].copy(),
            self._inverse[:count].copy(),
        )

    @staticmethod
    def search(
        segments: Sequence[tuple[int, Any]], codes: Host, inverse: Host, count: int, k: int
    ) -> tuple[Host, Host]:
        """The k best among the first `count` rows of all: each segment's, and the best of those."""
        parts = []
        for start, segment in segments:
            there = min(segment.size, count - start)
            rows, known = segment._codes[:there], segment._inverse[:there]
            scores, found = cosine_topk(codes, rows, k, inverse_norms=known, backend="cpu")
            parts.append((scores, np.where(found >= 0, found + start, -1)))
        scores = np.concatenate([scores for scores, _ in parts], axis=1)
        rows = np.concatenate([found for _, found in parts], axis=1)
        # By score, then by row; places that hold no row come last.
        order = np.lexsort((rows, -scores, rows < 0), axis=1)[:, :k]
        return np.take_along_axis(scores, order, axis=1), np.take_along_axis(rows, order, axis=1)


class VectorStore:
    """Vectors of one dimension as int8 codes, searched by cosine; see the rules atop this module.

    Safe to use from several threads. `backend`: "cuda" keeps the rows in the GPU's memory, "cpu" in
    the host's; "auto" takes the GPU where it can be used. Raises BackendError where it cannot, and
    ValueError for a dimension out of range.
    """

    def __init__(self, dim: int, *, backend: Backend = "auto") -> None:
        if not 1 <= dim <= MAX_DIM:
            raise ValueError(f"dim must be from 1 to {MAX_DIM}, not {dim}")
        if backend not in ("auto", "cpu", "cuda"):
            raise ValueError(f"backend must be 'auto', 'cpu' or 'cuda', not {backend!r}")
        if backend == "cuda":
            device.require_gpu("VectorStore")
        self.dim = dim
        self.backend = "cuda" if backend != "cpu" and device.gpu().usable else "cpu"
        self._segments: tuple[tuple[int, Any], ...] = ()  # with the number of the first row
        self._count = 0
        self._lock = threading.Lock()

    @classmethod
    def from_arrays(cls, codes: Host, scales: Host, *, backend: Backend = "auto") -> VectorStore:
        """A store of rows saved before. Rows whose scale is NaN are discarded ones."""
        codes = host(codes, np.int8, "codes", 2)
        store = cls(codes.shape[1], backend=backend)
        if codes.shape[0]:
            store.append_codes(codes, scales)
        return store

    def __len__(self) -> int:
        """The rows, discarded ones counted in: the number of the next row."""
        return self._count

    def append(self, vectors: Array) -> range:
        """Normalise, quantise and add (m, dim) float32 vectors; the numbers of the new rows.

        A vector with NaN or infinity takes a row that is never found.
        """
        codes, scales = (to_host(part) for part in normalize_quantize(vectors))
        if codes.ndim != 2 or codes.shape[1] != self.dim:
            raise ValueError(f"vectors are {codes.shape}, and must be (m, {self.dim})")
        return self.append_codes(codes, scales)

    def append_codes(self, codes: Host, scales: Host) -> range:
        """Add rows that are quantised already: (m, dim) int8, (m,) float32."""
        codes, scales = host(codes, np.int8, "codes", 2), host(scales, np.float32, "scales", 1)
        if codes.shape[1] != self.dim or scales.shape[0] != codes.shape[0]:
            raise ValueError(f"codes must be (m, {self.dim}), and scales (m,)")
        inverse = inverse_norms(codes, backend="cpu")
        inverse = np.where(np.isfinite(scales), inverse, np.float32(np.nan))
        with self._lock:
            first = self._count
            done = 0
            while done < codes.shape[0]:
                segment, at = self._place(first + done)
                take = slice(done, min(codes.shape[0], done + segment.size - at))
                segment.write(at, codes[take], scales[take], inverse[take])
                done = take.stop
            self._count = first + done
        return range(first, first + done)

    def discard(self, row: int) -> None:
        """Take a row out of searches. Raises IndexError where there is none."""
        with self._lock:
            if not 0 <= row < self._count:
                raise IndexError(f"row {row} of {self._count}")
            segment, at = self._place(row)
            segment.discard(at)

    def search(self, queries: Array, k: int) -> tuple[Host, Host]:
        """The k rows nearest to each query, exactly: scores (q, k) float32, rows (q, k) int64.

        queries: (q, dim) or (dim,), float32 (quantised here as the rows were) or int8 codes. Order,
        ties and what stands where fewer than k are found: as in `cosine_topk`.
        """
        if not 1 <= k <= MAX_K:
            raise ValueError(f"k must be from 1 to {MAX_K}, not {k}")
        given = to_host(queries)
        given = given[None] if given.ndim == 1 else given
        if given.ndim != 2 or given.shape[1] != self.dim:
            raise ValueError(f"queries are {given.shape}, and must be (q, {self.dim})")
        broken = np.zeros(given.shape[0], bool)
        if given.dtype != np.int8:
            given, scales = normalize_quantize(host(given, np.float32, "queries"), backend="cpu")
            broken = np.isnan(scales)
        count = self._count  # before the segments: they only grow
        segments = [(start, segment) for start, segment in self._segments if start < count]
        if not segments or not given.shape[0]:
            shape = (given.shape[0], k)
            return np.full(shape, -np.inf, np.float32), np.full(shape, -1, np.int64)
        codes, inverse = np.ascontiguousarray(given), inverse_norms(given, backend="cpu")
        scores, rows = type(segments[0][1]).search(segments, codes, inverse, count, k)
        scores[broken], rows[broken] = -np.inf, -1
        return scores, rows

    def arrays(self) -> tuple[Host, Host]:
        """Copies of all rows: codes (n, dim) int8, scales (n,) float32, NaN for discarded rows."""
        with self._lock:
            parts = [
                segment.read(min(segment.size, self._count - start))
                for start, segment in self._segments
                if start < self._count
            ]
        if not parts:
            return np.empty((0, self.dim), np.int8), np.empty(0, np.float32)
        codes, scales, inverse = (np.concatenate(p) for p in zip(*parts, strict=True))
        return codes, np.where(np.isnan(inverse), np.float32(np.nan), scales)

    def _place(self, row: int) -> tuple[Segment, int]:
        """The segment of a row and the place in it; a new segment where the row is the next."""
        for start, segment in self._segments:
            if row < start + segment.size:
                return segment, row - start
        size = min(FIRST_SEGMENT << len(self._segments), LARGEST_SEGMENT)
        new = self._new_segment(size)
        self._segments = (*self._segments, (row, new))
        return new, 0

    def _new_segment(self, size: int) -> Segment:
        if self.backend == "cpu":
            return HostSegment(size, self.dim)
        from .cuda.vectors import DeviceSegment

        return DeviceSegment(size, self.dim)
