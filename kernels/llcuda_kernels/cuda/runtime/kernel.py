"""A kernel: compiled for the GPU there is when it is first launched, and launched leanly.

Kernels take addresses and numbers, not arrays: an array argument of Numba's costs seven numbers and
1.6 µs a launch. Inside, an address is indexed like a flat array.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from . import shim

#: Every kernel by name, for those who compile or list them all.
REGISTRY: dict[str, Kernel] = {}


class Kernel:
    """A kernel and what it is compiled with.

    bounds: the most threads a block, or (threads, blocks a multiprocessor at least). least: the
    first compute capability that has its instructions. twin: whether the simulator can run it.
    """

    def __init__(
        self,
        name: str,
        function: Callable[..., None],
        signature: list[Any],
        bounds: int | tuple[int, int],
        least: tuple[int, int],
        twin: bool,
    ) -> None:
        self.name, self.function, self.signature = name, function, signature
        self.bounds, self.least, self.twin = bounds, least, twin
        self._loaded: Any = None
        self._launch: Any = None
        self._configs: dict[Any, Any] = {}
        self._lock = threading.Lock()

    def ptx(self, cc: tuple[int, int]) -> str:
        """The PTX for a compute capability.

        How many blocks must fit a multiprocessor was tuned on 9.0; older ones choose by themselves.
        """
        bounds = self.bounds
        if isinstance(bounds, tuple) and cc < (9, 0):
            bounds = (bounds[0], 1)
        return shim.ptx(self.function, self.signature, cc, bounds)

    def launch(self, grid: Any, block: Any, *args: Any, shared: int = 0) -> None:
        """Run it on the current stream. `grid` and `block`: a number, or up to three.

        Pointers are the `address` of a `DeviceArray`; other arguments are numbers.
        """
        if shim.SIMULATED:
            from . import simulator

            converted = tuple(
                a if isinstance(kind, list) else kind.type(a)
                for a, kind in zip(args, self.signature, strict=True)
            )
            simulator.launch(self.function, _dims(grid), _dims(block), converted, shared)
            return
        loaded = self._loaded
        if loaded is None:
            loaded = self._load()
        key = (grid, block, shared)
        dims = self._configs.get(key)
        if dims is None:
            dims = self._configure(key)
        self._launch(loaded, *dims, shared, args)

    def _load(self) -> Any:
        from . import compiled, driver

        with self._lock:
            if self._loaded is None:
                self._launch = driver.launch
                self._loaded = compiled.load(self)
            return self._loaded

    def _configure(self, key: Any) -> Any:
        from . import driver

        grid, block, shared = key
        driver.prepare(self._loaded, shared)
        if len(self._configs) > 4096:
            self._configs.clear()
        self._configs[key] = _dims(grid), _dims(block)
        return self._configs[key]


def _dims(given: Any) -> tuple[int, ...]:
    whole = given if isinstance(given, tuple) else (given,)
    return tuple(int(n) for n in (*whole, 1, 1)[:3])


def kernel(
    name: str,
    *signature: Any,
    bounds: int | tuple[int, int] = 256,
    least: tuple[int, int] = (5, 0),
    twin: bool = True,
) -> Callable[[Callable[..., None]], Kernel]:
    """Make a kernel of a function, and register it."""

    def make(function: Callable[..., None]) -> Kernel:
        made = Kernel(name, function, list(signature), bounds, least, twin)
        REGISTRY[name] = made
        return made

    return make


def divide_up(n: int, by: int) -> int:
    """The least number of `by` that hold n."""
    return -(-n // by)


def float32(value: float) -> np.float32:
    """A float for a kernel's argument."""
    return np.float32(value)
