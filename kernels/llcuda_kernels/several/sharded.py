"""Vectors shared out over ranks: each holds a part in its own memory, or on its own GPU.

1. A row's number is ``place · size + rank``: it needs no message, and never changes.
2. Searches are collective: all ranks ask the same, in the same order. Each finds the k best of its
   own rows; these go to all in one message, and every rank merges them to the same answer.
3. Merging is exact: of equal scores the lower number comes first, as in `cosine_topk`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from llcuda_kernels.arrays import Array, host
from llcuda_kernels.errors import BackendError
from llcuda_kernels.runtime.backend import Backend
from llcuda_kernels.vectors import VectorStore

Host = np.ndarray[Any, Any]


class Gather(Protocol):
    """How ranks tell each other what they found."""

    rank: int
    size: int

    def gather(self, own: Host) -> Host:
        """Bytes of every rank, (size, n) uint8, from this one's, (n,)."""


class _Alone:
    """One rank, which has nobody to tell."""

    rank, size = 0, 1

    def gather(self, own: Host) -> Host:
        """Its own bytes."""
        return own[None]


class MpiGather:
    """By MPI, in the host's memory. comm: a communicator of mpi4py."""

    def __init__(self, comm: Any) -> None:
        self._comm = comm
        self.rank, self.size = int(comm.Get_rank()), int(comm.Get_size())

    def gather(self, own: Host) -> Host:
        """Bytes of every rank."""
        out = np.empty((self.size, own.size), np.uint8)
        self._comm.Allgather(own, out)
        return out


class NcclGather:
    """By NCCL, between GPUs; CuPy brings it. One process a GPU, which is the current one.

    comm: a communicator of mpi4py, which hands out NCCL's own name for the group, and no more.
    Raises BackendError where CuPy or NCCL is not installed.
    """

    def __init__(self, comm: Any) -> None:
        try:
            import cupy
            from cupy.cuda import nccl
        except ImportError as error:
            raise BackendError(f"NcclGather needs cupy with NCCL: {error}") from None
        if not nccl.available:
            raise BackendError("NcclGather: this CuPy was built without NCCL")
        self._cupy, self._kind = cupy, nccl.NCCL_UINT8
        self.rank, self.size = int(comm.Get_rank()), int(comm.Get_size())
        name = comm.bcast(nccl.get_unique_id() if self.rank == 0 else None, root=0)
        self._comm = nccl.NcclCommunicator(self.size, name, self.rank)
        self._stream = cupy.cuda.Stream(non_blocking=True)
        self._buffers: dict[int, tuple[Any, Any]] = {}

    def gather(self, own: Host) -> Host:
        """Bytes of every rank."""
        cupy = self._cupy
        if own.size not in self._buffers:
            self._buffers[own.size] = (
                cupy.empty(own.size, cupy.uint8),
                cupy.empty((self.size, own.size), cupy.uint8),
            )
        given, taken = self._buffers[own.size]
        with self._stream:
            given.set(own)
            self._comm.allGather(
                given.data.ptr, taken.data.ptr, own.size, self._kind, self._stream.ptr
            )
            found: Host = taken.get(stream=self._stream)
        self._stream.synchronize()
        return found


class ShardedStore:
    """A `VectorStore` whose rows are shared out over ranks; see the rules atop this module.

    gather: `MpiGather`, `NcclGather`, or a communicator of mpi4py, which means the first; None is a
    rank that is alone. backend: as of `VectorStore`. Raises BackendError and ValueError as that
    does.
    """

    def __init__(self, dim: int, gather: Any = None, *, backend: Backend = "auto") -> None:
        self._gather: Gather = MpiGather(gather) if hasattr(gather, "Allgather") else gather
        if gather is None:
            self._gather = _Alone()
        self._own = VectorStore(dim, backend=backend)
        self.dim, self.backend = dim, self._own.backend

    @property
    def rank(self) -> int:
        """This rank's number."""
        return self._gather.rank

    @property
    def size(self) -> int:
        """How many ranks share the rows."""
        return self._gather.size

    def __len__(self) -> int:
        """This rank's own rows, discarded ones counted in."""
        return len(self._own)

    def append(self, vectors: Array) -> Host:
        """Add (m, dim) float32 vectors to this rank's own; their numbers, (m,) int64."""
        return self._numbers(self._own.append(vectors))

    def append_codes(self, codes: Host, scales: Host) -> Host:
        """Add rows that are quantised already: (m, dim) int8, (m,) float32; their numbers."""
        return self._numbers(self._own.append_codes(codes, scales))

    def discard(self, row: int) -> None:
        """Take one of this rank's own rows out. Raises IndexError where it is not this rank's."""
        place, rank = divmod(row, self.size)
        if rank != self.rank:
            raise IndexError(f"row {row} is rank {rank}'s, and this is rank {self.rank}")
        self._own.discard(place)

    def search(self, queries: Array, k: int) -> tuple[Host, Host]:
        """The k rows nearest to each query among all ranks' rows, exactly. Collective.

        queries: as in `VectorStore.search`, and the same on all ranks. Returns, on every rank,
        scores (q, k) float32 and numbers (q, k) int64. Raises ValueError for what cannot be
        searched, on all ranks alike.
        """
        scores, places = self._own.search(queries, k)
        rows = np.where(places >= 0, places * self.size + self.rank, -1)
        if self.size == 1:
            return scores, rows
        count = scores.size
        own = np.empty(count * 12, np.uint8)
        own[: count * 8] = rows.reshape(-1).view(np.uint8)
        own[count * 8 :] = np.ascontiguousarray(scores).reshape(-1).view(np.uint8)
        found = self._gather.gather(own)
        shape = (self.size, *scores.shape)
        all_rows = np.ascontiguousarray(found[:, : count * 8]).view(np.int64).reshape(shape)
        all_scores = np.ascontiguousarray(found[:, count * 8 :]).view(np.float32).reshape(shape)
        return merged(all_scores, all_rows, k)

    def _numbers(self, places: range) -> Host:
        return np.arange(places.start, places.stop, dtype=np.int64) * self.size + self.rank


def merged(scores: Sequence[Host] | Host, rows: Sequence[Host] | Host, k: int) -> tuple[Host, Host]:
    """The k best of several answers to the same queries: each (q, any) float32 and int64.

    By score, the greatest first; of equals the lower row; where there are fewer, -inf at row -1.
    """
    s = np.concatenate([host(each, np.float32, "scores", 2) for each in scores], axis=1)
    r = np.concatenate([host(each, np.int64, "rows", 2) for each in rows], axis=1)
    order = np.lexsort((r, -s, r < 0), axis=1)[:, :k]
    return np.take_along_axis(s, order, axis=1), np.take_along_axis(r, order, axis=1)
