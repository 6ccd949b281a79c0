"""A segment of `VectorStore` in the GPU's memory."""

from __future__ import annotations

from typing import Any

import numpy as np

from .norms import inverse_norms_int8
from .primitives.padding import padded
from .runtime import shim
from .runtime.array import DeviceArray, empty, to_device
from .runtime.array import at as address_at
from .runtime.kernel import divide_up
from .search import search_codes

if not shim.SIMULATED:
    from .runtime import driver

Host = np.ndarray[Any, Any]


class DeviceSegment:
    """Rows padded to 16 bytes, on the device. One stream: what is queued first is done first."""

    def __init__(self, size: int, dim: int) -> None:
        self.size, self._dim = size, dim
        self._width = divide_up(dim, 16) * 16
        self._codes = empty((size, self._width), np.int8)
        self._scales = empty((size,), np.float32)
        self._inverse = empty((size,), np.float32)

    def write(self, at: int, codes: Host, scales: Host, inverse: Host) -> None:
        """Fill the places from `at` on; done when it returns."""
        wide = np.zeros((codes.shape[0], self._width), np.int8)
        wide[:, : self._dim] = codes
        self._copy(self._codes, at * self._width, wide)
        self._copy(self._scales, at, scales)
        self._copy(self._inverse, at, inverse)
        self._wait()

    def discard(self, at: int) -> None:
        """Take the row out of searches."""
        self._copy(self._inverse, at, np.full(1, np.nan, np.float32))
        self._wait()

    def search(self, codes: Host, count: int, k: int) -> tuple[Host, Host]:
        """The k best among the first `count` rows: scores and places."""
        queries = to_device(np.ascontiguousarray(codes))
        rows = DeviceArray(self._codes.address, (count, self._width), np.int8, self._codes)
        if shim.SIMULATED:
            rows.address = rows.address[: rows.size]
        scores, found = search_codes(
            padded(queries), inverse_norms_int8(queries), rows, self._inverse, k
        )
        return scores.copy_to_host(), found.copy_to_host()

    def read(self, count: int) -> tuple[Host, Host, Host]:
        """Copies of the first `count` rows: codes, scales, inverse norms."""
        codes = self._codes.copy_to_host()[:count, : self._dim]
        scales, inverse = self._scales.copy_to_host(), self._inverse.copy_to_host()
        return codes.copy(), scales[:count], inverse[:count]

    @staticmethod
    def _copy(to: DeviceArray, at: int, source: Host) -> None:
        flat = np.ascontiguousarray(source).reshape(-1)
        if shim.SIMULATED:
            to.address[at : at + flat.size] = flat
        else:
            driver.copy_in(address_at(to, at), flat)

    @staticmethod
    def _wait() -> None:
        if not shim.SIMULATED:
            driver.stream().sync()
