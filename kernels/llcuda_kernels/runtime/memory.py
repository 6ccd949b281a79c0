"""Memory for arrays on the device, and host memory that copies run from at full speed.

A `MemoryPool` wraps a pool of cuda.core: memory that is given back stays with the pool, so that the
next call of the same size costs no trip to the driver. On top come a limit and statistics.

>>> pool = MemoryPool(limit=1 << 20)
>>> with pool.use():
...     x = to_device(np.ones(1000, np.float32))
>>> print(pool.statistics().in_use)
4000
>>> del x
>>> print(pool.statistics().in_use)
0

1. `allocate` either returns memory or raises; it never returns less.
2. Memory counts against the limit until its last holder lets go of it.
3. Every method may be called from any thread.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from llcuda_kernels.errors import MemoryLimitError

from .device import require_gpu


@dataclass(frozen=True)
class PoolStatistics:
    """Bytes and counts since the pool was made."""

    in_use: int
    peak: int
    allocations: int
    refused: int


class Source(Protocol):
    """What a pool takes its memory from: a memory resource of cuda.core."""

    def allocate(self, size: int, *, stream: Any) -> Any:
        """Memory with a `handle`, its address, and `close`; freed in the order of the stream."""


class PinnedBytes:
    """Page-locked host memory: `array` views it, `close` gives it back."""

    def __init__(self, buffer: Any, size: int) -> None:
        self._buffer, self.size = buffer, size

    def array(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """A NumPy array over the memory, which it keeps alive."""
        import ctypes

        import numpy as np

        kind = np.dtype(dtype)
        count = int(np.prod(shape, dtype=np.int64))
        if count * kind.itemsize > self.size:
            raise ValueError(f"{shape} {kind} does not fit {self.size} bytes")
        raw: Any = (ctypes.c_uint8 * self.size).from_address(int(self._buffer.handle))
        raw._keeps = self._buffer
        return np.frombuffer(raw, kind, count).reshape(shape)


class MemoryPool:
    """Device or pinned host memory with a limit; see the rules atop this module.

    kind: "device" or "pinned". limit: bytes in use at most, or None. Raises BackendError where
    there is no GPU. `source` and `stream` are for tests.
    """

    def __init__(
        self,
        kind: Literal["device", "pinned"] = "device",
        *,
        limit: int | None = None,
        source: Source | None = None,
        stream: Any = None,
    ) -> None:
        if kind not in ("device", "pinned"):
            raise ValueError(f"kind must be 'device' or 'pinned', not {kind!r}")
        if limit is not None and limit < 0:
            raise ValueError(f"limit must not be negative: {limit}")
        self.kind, self.limit = kind, limit
        self._source = source if source is not None else _source(kind)
        self._stream = stream
        self._lock = threading.RLock()  # a finalizer may run while this thread holds it
        self._in_use = self._peak = self._allocations = self._refused = 0

    def allocate(self, size: int) -> Any:
        """A buffer of `size` bytes, on the current stream; `handle` is its address.

        It goes back to the pool when nobody holds it any more, or with `close`. Raises
        MemoryLimitError beyond the limit, ValueError for a negative size, and what the driver
        raises when the device has no more.
        """
        if size < 0:
            raise ValueError(f"size must not be negative: {size}")
        with self._lock:
            if self.limit is not None and self._in_use + size > self.limit:
                self._refused += 1
                raise MemoryLimitError(
                    f"{size} bytes more than the {self._in_use} in use exceed the pool's limit of "
                    f"{self.limit}: free some, or raise the limit"
                )
            self._in_use += size
        try:
            inner = self._source.allocate(size, stream=self._queue())
        except BaseException:
            self._count_back(size)
            raise
        with self._lock:
            self._allocations += 1
            self._peak = max(self._peak, self._in_use)
        return _Held(inner, size, self)

    def pinned(self, size: int) -> PinnedBytes:
        """`allocate` of a pinned pool, ready to be viewed as an array."""
        if self.kind != "pinned":
            raise ValueError("this pool is the device's: make one of kind 'pinned'")
        return PinnedBytes(self.allocate(size), size)

    def statistics(self) -> PoolStatistics:
        """What is in use, and was."""
        with self._lock:
            return PoolStatistics(self._in_use, self._peak, self._allocations, self._refused)

    @contextmanager
    def use(self) -> Iterator[MemoryPool]:
        """Within it, arrays that this thread's operations make come from this pool."""
        from llcuda_kernels.cuda.runtime import device_memory

        old = device_memory.set_pool(self)
        try:
            yield self
        finally:
            device_memory.set_pool(old)

    def _queue(self) -> Any:
        if self._stream is not None:
            return self._stream
        from llcuda_kernels.cuda.runtime import driver

        return driver.stream()

    def _count_back(self, size: int) -> None:
        with self._lock:
            self._in_use -= size


class _Held:
    """Memory of a pool, and how it comes back."""

    def __init__(self, inner: Any, size: int, pool: MemoryPool) -> None:
        self.handle, self.size = inner.handle, size
        self._release = weakref.finalize(self, _release, inner, size, pool)
        self._release.atexit = False  # the process takes its memory with it

    def close(self) -> None:
        """Give it back now; a second time does nothing."""
        self._release()


def _release(inner: Any, size: int, pool: MemoryPool) -> None:
    inner.close()
    pool._count_back(size)


def _source(kind: str) -> Any:
    require_gpu("MemoryPool")
    from llcuda_kernels.cuda.runtime import device_memory

    return device_memory.source(kind)
