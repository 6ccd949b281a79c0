"""A GPU in Python: one block at a time, its threads as greenlets that take turns at barriers.

It is what a kernel sees as ``cuda`` when NUMBA_ENABLE_CUDASIM is set. Numba's own simulator starts
an operating-system thread for each CUDA thread and polls them; this one switches only where threads
must wait for each other, so it is some ten times quicker, and it knows who waits for what:

1. Threads of a block run in order, each until it waits. All must come to the same barrier: when one
   ends, or waits elsewhere, while others wait, `DivergentBarrierError` is raised.
2. The lanes of a warp meet in `exchange`: each gives a value and gets what all gave.
3. A shared array belongs to the place in the code that makes it.
4. Shared and local arrays start as NaN, or as a large number: who reads before anybody wrote is
   found out by a wrong result.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import greenlet
import numpy as np

WARP = 32


class Shifted:
    """An array whose first number has another index than 0."""

    def __init__(self, array: np.ndarray[Any, Any], first: int) -> None:
        self._array, self._first = array, first
        self.size, self.dtype = first + array.size, array.dtype

    def __getitem__(self, at: Any) -> Any:
        if isinstance(at, slice):
            if at.start < self._first:
                raise IndexError(f"{at.start}, and the first is {self._first}")
            return self._array[at.start - self._first : at.stop - self._first]
        if at < self._first:
            raise IndexError(f"{at}, and the first is {self._first}")
        return self._array[at - self._first]


class DivergentBarrierError(Exception):
    """Threads that should wait for each other wait at different places, or have ended."""


class _Index:
    def __init__(self, x: int, y: int = 0, z: int = 0) -> None:
        # as on a device: 32 bits, so that what overflows there overflows here
        self.x, self.y, self.z = np.int32(x), np.int32(y), np.int32(z)


def _poisoned(shape: Any, dtype: Any) -> np.ndarray[Any, Any]:
    kind = np.dtype(dtype)
    value = np.nan if kind.kind == "f" else np.iinfo(kind).max // 3
    return np.full(shape, value, kind)


class _Thread:
    def __init__(self, block: _Block, number: int, index: _Index) -> None:
        self.block, self.number, self.index = block, number, index
        self.waits_at: Any = None
        self.gave: Any = None
        self.got: Any = None
        self.run: Any = None


class _Block:
    """One block: its place and its shared memory."""

    def __init__(self, grid: _Index, size: _Index, at: _Index, shared_bytes: int) -> None:
        self.grid, self.size, self.at = grid, size, at
        self.shared: dict[Any, np.ndarray[Any, Any]] = {}
        self.dynamic = np.full(shared_bytes, 0xFF, np.uint8)
        self.cluster: list[_Block] = [self]

    def threads(self, function: Callable[..., Any]) -> list[_Thread]:
        main = greenlet.getcurrent()
        threads: list[_Thread] = []
        for z in range(self.size.z):
            for y in range(self.size.y):
                for x in range(self.size.x):
                    thread = _Thread(self, len(threads), _Index(x, y, z))
                    thread.run = greenlet.greenlet(function, main)
                    threads.append(thread)
        return threads


def _play(blocks: list[_Block], function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    """The blocks of one cluster, from start to end."""
    whole = [block.threads(function) for block in blocks]
    live = whole
    first = True
    while any(live):
        for threads in live:
            for thread in threads:
                if first or thread.waits_at is None:
                    cuda.thread = thread
                    thread.run.switch(*(args if first else ()))
        first = False
        live = [[thread for thread in threads if not thread.run.dead] for threads in live]
        _release(whole, live)


def _release(whole: list[list[_Thread]], live: list[list[_Thread]]) -> None:
    """Let go whoever has nobody left to wait for."""
    moved = [_release_warps(threads, left) for threads, left in zip(whole, live, strict=True)]
    for i, left in enumerate(live):
        if left and not moved[i]:
            moved[i] = _let_go(len(whole[i]), left, "block")
    if any(live) and not any(moved):
        everybody = [thread for left in live for thread in left]
        count = sum(len(threads) for threads in whole)
        if not _let_go(count, everybody, "cluster"):
            places = {thread.waits_at for thread in everybody}
            raise DivergentBarrierError(f"{len(everybody)} of {count} threads wait at {places}")


def _release_warps(threads: list[_Thread], live: list[_Thread]) -> bool:
    """Those of one block."""
    moved = False
    warps: dict[int, list[_Thread]] = {}
    for thread in live:
        warps.setdefault(thread.number // WARP, []).append(thread)
    for number, lanes in warps.items():
        places = {thread.waits_at for thread in lanes}
        whole = min(WARP, len(threads) - number * WARP)
        if len(places) == 1 and next(iter(places))[0] == "warp":
            if len(lanes) != whole:
                raise DivergentBarrierError(f"lanes of warp {number} have ended: {places}")
            moved = _let_go(whole, lanes, "warp")
    return moved


def _let_go(count: int, live: list[_Thread], kind: str) -> bool:
    """Whether all have come to the same barrier of this kind; each gets what all gave."""
    places = {thread.waits_at for thread in live}
    if len(places) != 1 or len(live) != count or next(iter(places))[0] != kind:
        return False
    given = [thread.gave for thread in live]
    for thread in live:
        thread.got, thread.waits_at = given, None
    return True


class _Shared:
    def array(self, shape: Any, dtype: Any, alignment: int = 0) -> np.ndarray[Any, Any]:
        block = cuda.thread.block
        if shape == 0:
            return block.dynamic.view(np.dtype(dtype))  # type: ignore[no-any-return]
        frame = sys._getframe(1)
        place = (frame.f_code, frame.f_lasti)
        if place not in block.shared:
            block.shared[place] = _poisoned(shape, dtype)
        return block.shared[place]  # type: ignore[no-any-return]


class _Local:
    def array(self, shape: Any, dtype: Any) -> np.ndarray[Any, Any]:
        return _poisoned(shape, dtype)


class _Atomic:
    """Threads switch at barriers only, so that nothing comes in between."""

    def add(self, array: Any, at: Any, value: Any) -> Any:
        old = array[at]
        array[at] = old + value
        return old

    def max(self, array: Any, at: Any, value: Any) -> Any:
        old = array[at]
        array[at] = max(old, value)
        return old


class _Cuda:
    """What a kernel may use of numba.cuda."""

    def __init__(self) -> None:
        self.thread: Any = None
        self.shared, self.local, self.atomic = _Shared(), _Local(), _Atomic()

    @property
    def threadIdx(self) -> _Index:  # noqa: N802  # as CUDA names it
        return self.thread.index  # type: ignore[no-any-return]

    @property
    def blockIdx(self) -> _Index:  # noqa: N802
        return self.thread.block.at  # type: ignore[no-any-return]

    @property
    def blockDim(self) -> _Index:  # noqa: N802
        return self.thread.block.size  # type: ignore[no-any-return]

    @property
    def gridDim(self) -> _Index:  # noqa: N802
        return self.thread.block.grid  # type: ignore[no-any-return]

    def syncthreads(self) -> None:
        self._wait("block", None)

    def syncthreads_or(self, condition: Any) -> bool:
        """A barrier, and whether the condition holds in any thread of the block."""
        return any(self._wait("block", bool(condition)))

    def syncwarp(self) -> None:
        self._wait("warp", None)

    def synccluster(self) -> None:
        """A barrier of all threads of the blocks of a cluster."""
        self._wait("cluster", None)

    def threadfence(self) -> None:
        pass

    def _wait(self, kind: str, value: Any) -> Any:
        thread = self.thread
        frame = sys._getframe(2)
        thread.waits_at = (kind, frame.f_code.co_name, frame.f_lineno)
        thread.gave = value
        thread.run.parent.switch()
        return thread.got


cuda = _Cuda()


def exchange(value: Any) -> list[Any]:
    """What each lane of the warp gave, in their order; all lanes must come here."""
    return list(cuda._wait("warp", value))


def lane() -> int:
    """This thread's place in its warp."""
    return int(cuda.thread.number) % WARP


def launch(
    function: Callable[..., Any],
    grid: Any,
    block: Any,
    args: tuple[Any, ...],
    shared: int,
    cluster: int = 1,
) -> None:
    """Run a kernel, block after block; those of a cluster, neighbours in x, at once."""
    size, whole = _Index(*block), _Index(*grid)
    quiet = np.errstate(all="ignore")(function)  # each greenlet has settings of its own
    for z in range(int(whole.z)):
        for y in range(int(whole.y)):
            for x in range(0, int(whole.x), cluster):
                together = [
                    _Block(whole, size, _Index(x + i, y, z), shared) for i in range(cluster)
                ]
                for one in together:
                    one.cluster = together
                _play(together, quiet, args)
