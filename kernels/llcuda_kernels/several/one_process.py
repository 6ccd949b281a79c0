"""Vectors shared out over the GPUs of one process, and searched on all of them at once.

1. Row r lies on GPU r mod n: so rows keep their numbers, and each GPU has as many.
2. Each GPU has a thread of its own, whose context is that GPU's. A search goes to all threads, and
   what they find is merged exactly (`sharded.merged`).
3. When one fails, nothing is answered without its rows: every call raises `DeviceLostError`, then
   and from then on. What the store held must be given to another one.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

import numpy as np

from llcuda_kernels.errors import KernelError
from llcuda_kernels.runtime.device import gpu
from llcuda_kernels.vectors import VectorStore

from .sharded import merged

Host = np.ndarray[Any, Any]
T = TypeVar("T")


class DeviceLostError(KernelError):
    """A GPU failed: what it held cannot be searched any more.

    Attributes:
        device: its number.
    """

    def __init__(self, device: int, error: BaseException) -> None:
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        super().__init__(f"GPU {device} failed: {said}")
        self.device = device


class Part(Protocol):
    """What a GPU holds: `VectorStore`, or what stands for it in tests."""

    def append_codes(self, codes: Host, scales: Host) -> range:
        """Add rows."""

    def discard(self, row: int) -> None:
        """Take a row out of searches."""

    def search(self, queries: Host, k: int) -> tuple[Host, Host]:
        """The nearest rows."""

    def arrays(self) -> tuple[Host, Host]:
        """Copies of all rows."""


def gpu_count() -> int:
    """How many GPUs this process can use."""
    if not gpu().usable:
        return 0
    from llcuda_kernels.cuda.runtime import driver

    return driver.count()


def _on_gpu(dim: int, device: int) -> Part:
    return VectorStore(dim, backend="cuda")  # of the thread's GPU


class SpreadStore:
    """A `VectorStore` over several GPUs; see the rules atop this module.

    Args:
        dim: of each vector.
        devices: numbers of GPUs, at least one, each once.
        make: a GPU's part, called in its thread with the dimension and its number.

    Every call raises `DeviceLostError` where a GPU fails, and else what `VectorStore` raises.
    """

    def __init__(
        self, dim: int, devices: Sequence[int], *, make: Callable[[int, int], Part] = _on_gpu
    ) -> None:
        if not devices or len(set(devices)) < len(devices):
            raise ValueError(f"devices must be numbers of GPUs, each once, not {list(devices)}")
        self.dim, self.devices = dim, tuple(devices)
        self._count = 0
        self._lock = threading.Lock()
        self._lost: DeviceLostError | None = None
        self._real = make is _on_gpu
        self._parts: list[Part] = self._each([functools.partial(make, dim, d) for d in devices])

    def __len__(self) -> int:
        """The rows, discarded ones counted in: the number of the next row."""
        return self._count

    def append_codes(self, codes: Host, scales: Host) -> range:
        """Add rows that are quantised already: (m, dim) int8, (m,) float32; their numbers."""
        if codes.ndim != 2 or codes.shape[1] != self.dim or scales.shape != codes.shape[:1]:
            raise ValueError(f"codes must be (m, {self.dim}), and scales (m,)")
        size = len(self.devices)
        with self._lock:
            first = self._count
            starts = [(place - first) % size for place in range(size)]
            self._each(
                [
                    functools.partial(
                        part.append_codes,
                        np.ascontiguousarray(codes[start::size]),
                        np.ascontiguousarray(scales[start::size]),
                    )
                    for part, start in zip(self._parts, starts, strict=True)
                ]
            )
            self._count = first + codes.shape[0]
            return range(first, self._count)

    def discard(self, row: int) -> None:
        """Take a row out of searches. Raises IndexError where there is none."""
        if self._lost is not None:
            raise self._lost
        if not 0 <= row < self._count:
            raise IndexError(f"row {row} of {self._count}")
        place, which = divmod(row, len(self.devices))
        self._wait([self._start(which, functools.partial(self._parts[which].discard, place))])

    def search(self, queries: Host, k: int) -> tuple[Host, Host]:
        """The k rows nearest to each query, exactly; see `VectorStore.search`."""
        size = len(self.devices)
        found = self._each([functools.partial(part.search, queries, k) for part in self._parts])
        rows = [
            np.where(places >= 0, places * size + which, -1)
            for which, (_, places) in enumerate(found)
        ]
        return merged([scores for scores, _ in found], rows, k)

    def arrays(self) -> tuple[Host, Host]:
        """Copies of all rows: codes (n, dim) int8, scales (n,) float32, NaN for discarded rows."""
        with self._lock:
            found = self._each([part.arrays for part in self._parts])
            codes, scales = np.empty((self._count, self.dim), np.int8), np.empty(self._count, "f4")
        for which, (part, known) in enumerate(found):
            codes[which :: len(found)], scales[which :: len(found)] = part, known
        return codes, scales

    def _each(self, do: Sequence[Callable[[], T]]) -> list[T]:
        """Do one thing on each GPU, at once."""
        return self._wait([self._start(which, one) for which, one in enumerate(do)])

    def _start(self, which: int, do: Callable[[], T]) -> tuple[int, Future[T]]:
        device = self.devices[which]
        if self._lost is not None:
            raise self._lost
        try:
            return device, _worker(device, real=self._real).submit(do)
        except RuntimeError as error:  # its thread could not take the GPU
            self._lost = DeviceLostError(device, error)
            raise self._lost from error

    def _wait(self, started: Sequence[tuple[int, Future[T]]]) -> list[T]:
        """What came of it. All are waited for, also where one fails: none works on behind."""
        errors = [(device, future.exception()) for device, future in started]
        for device, error in errors:
            # The drivers' errors have no base in common; these are of what was asked.
            if error is not None and not isinstance(error, (ValueError, TypeError, IndexError)):
                self._lost = DeviceLostError(device, error)
                raise self._lost from error
        return [future.result() for _, future in started]


_workers: dict[tuple[int, bool], ThreadPoolExecutor] = {}
_making = threading.Lock()


def _worker(device: int, *, real: bool) -> ThreadPoolExecutor:
    """The thread of a GPU; one that is not real stands for it."""
    with _making:
        found = _workers.get((device, real))
        if found is None:
            given: dict[str, Any] = {"initializer": _use, "initargs": (device,)} if real else {}
            found = ThreadPoolExecutor(1, f"gpu-{device}", **given)
            _workers[device, real] = found
    return found


def _use(device: int) -> None:
    """Make a GPU the current one of this thread."""
    from llcuda_kernels.cuda.runtime.shim import core

    core.Device(device).set_current()
