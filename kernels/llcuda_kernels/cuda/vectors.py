"""A segment of `VectorStore` in the GPU's memory, and the search of all of them at once."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from .primitives.nearest.segments import STEP, Rows
from .runtime import shim
from .runtime.array import DeviceArray, empty
from .runtime.array import at as address_at
from .runtime.kernel import divide_up
from .search import Best, search

if not shim.SIMULATED:
    from .runtime import driver

Host = np.ndarray[Any, Any]


class DeviceSegment:
    """Rows padded to 16 bytes, on the device. One stream: what is queued first is done first."""

    def __init__(self, size: int, dim: int) -> None:
        if size % STEP:
            raise ValueError(f"a segment's size must be a multiple of {STEP}, not {size}")
        self.size, self._dim = size, dim
        self._width = divide_up(dim, 16) * 16
        self._codes = empty((size, self._width), np.int8)
        self._scales = empty((size,), np.float32)
        self._inverse = empty((size,), np.float32)

    def write(self, at: int, codes: Host, scales: Host, inverse: Host) -> None:
        """Fill the places from `at` on; done when it returns."""
        with self._there():
            _copy(self._codes, at * self._width, _widened(codes, self._width))
            _copy(self._scales, at, scales)
            _copy(self._inverse, at, inverse)
            _wait()

    def discard(self, at: int) -> None:
        """Take the row out of searches."""
        with self._there():
            _copy(self._inverse, at, np.full(1, np.nan, np.float32))
            _wait()

    def read(self, count: int) -> tuple[Host, Host, Host]:
        """Copies of the first `count` rows: codes, scales, inverse norms."""
        with self._there():
            codes = self._codes.copy_to_host()[:count, : self._dim]
            scales, inverse = self._scales.copy_to_host(), self._inverse.copy_to_host()
        return codes.copy(), scales[:count], inverse[:count]

    @staticmethod
    def search(
        segments: Sequence[tuple[int, Any]], codes: Host, inverse: Host, count: int, k: int
    ) -> tuple[Host, Host]:
        """The k best among the first `count` rows of all, in one launch over all segments: one
        copy to the device, of the queries and the table, and one back.
        """
        first = segments[0][1]
        with first._there():
            return _search([segment for _, segment in segments], codes, inverse, count, k)

    def _there(self) -> Any:
        """On the GPU that has the rows."""
        return contextlib.nullcontext() if shim.SIMULATED else driver.at(self._codes.where)


def _search(
    segments: list[DeviceSegment], codes: Host, inverse: Host, count: int, k: int
) -> tuple[Host, Host]:
    first, others = segments[0], segments[1:]
    queries, width = codes.shape[0], first._width
    table: list[Any] = []
    end = first.size
    for segment in others:
        table += Rows.of(segment._codes, segment._inverse).entry(end)
        end += segment.size
    codes = _widened(codes, width)
    if shim.SIMULATED:
        there, given, of_queries = None, *_sent(codes, inverse)
    else:
        there, given, of_queries = _sent(np.array(table, np.int64), codes, inverse)
    address = table if there is None else there.address
    rows = Rows(first._codes, first._inverse, count, first.size, address)
    best, memory = _best(queries, k)
    search(given, of_queries, rows, k, best)
    return _split(memory.copy_to_host(), queries, k)


def _sent(*arrays: Host) -> list[DeviceArray]:
    """Copies of host arrays, sent in one piece; each begins at a multiple of 16 bytes."""
    starts, size = [], 0
    for array in arrays:
        starts.append(size)
        size += divide_up(array.nbytes, 16) * 16
    packed = np.zeros(max(size, 16), np.uint8)
    for start, array in zip(starts, arrays, strict=True):
        packed[start : start + array.nbytes] = array.reshape(-1).view(np.uint8)
    memory = empty(packed.shape, np.uint8)
    _copy(memory, 0, packed)
    return [
        _piece(memory, start, array.shape, array.dtype)
        for start, array in zip(starts, arrays, strict=True)
    ]


def _piece(memory: DeviceArray, start: int, shape: tuple[int, ...], kind: Any) -> DeviceArray:
    """Some bytes of an array as an array of its own; no copy."""
    size = int(np.prod(shape, dtype=np.int64)) * np.dtype(kind).itemsize
    address = address_at(memory, start)
    if shim.SIMULATED:
        address = address[:size].view(kind)
    return DeviceArray(address, shape, kind, memory.keeps, memory.where)


def _best(queries: int, k: int) -> tuple[Best, DeviceArray]:
    """Where results go, in one piece of memory: rows, then scores."""
    count = queries * k
    memory = empty((12 * count,), np.uint8)
    rows = _piece(memory, 0, (queries, k), np.int64)
    return Best(_piece(memory, 8 * count, (queries, k), np.float32), rows), memory


def _split(memory: Host, queries: int, k: int) -> tuple[Host, Host]:
    """The scores and rows that `_best` has made room for."""
    count = queries * k
    rows, scores = memory[: 8 * count].view(np.int64), memory[8 * count :].view(np.float32)
    return scores.reshape(queries, k), rows.reshape(queries, k)


def _widened(codes: Host, width: int) -> Host:
    if codes.shape[1] == width:
        return np.ascontiguousarray(codes)
    wide = np.zeros((codes.shape[0], width), np.int8)
    wide[:, : codes.shape[1]] = codes
    return wide


def _copy(to: DeviceArray, at: int, source: Host) -> None:
    flat = np.ascontiguousarray(source).reshape(-1)
    if shim.SIMULATED:
        to.address[at : at + flat.size] = flat
    else:
        driver.copy_in(address_at(to, at), flat)


def _wait() -> None:
    if not shim.SIMULATED:
        driver.stream().sync()
