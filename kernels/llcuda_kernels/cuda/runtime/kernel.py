"""A kernel: compiled for the GPU there is when it is first launched, and launched leanly.

Kernels take addresses and numbers, not arrays: an array argument of Numba's costs seven numbers and
1.6 µs a launch. Inside, an address is indexed like a flat array.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from llcuda_kernels.errors import KernelError

from . import shim
from .launch_limits import BY_CAPABILITY, Limits

if not shim.SIMULATED:
    from . import compiled, driver

#: What the simulator goes by; tests set others.
simulated_limits = BY_CAPABILITY[9, 0]

#: Every kernel by name, for those who compile or list them all.
REGISTRY: dict[str, Kernel] = {}


class Kernel:
    """A kernel and what it is compiled with.

    bounds: the most threads a block, or (threads, blocks a multiprocessor at least). least: the
    first compute capability that has its instructions. twin: whether the simulator can run it.
    shared: the bytes of shared memory that it declares, which a launch's own are added to.
    cluster: how many neighbouring blocks see each other's shared memory (from 9.0 on). exact: it
    has instructions of `least` that no other architecture knows (the target ``sm_90a``).
    """

    def __init__(
        self,
        name: str,
        function: Callable[..., None],
        signature: list[Any],
        bounds: int | tuple[int, int],
        least: tuple[int, int],
        twin: bool,
        shared: int,
        cluster: int,
        exact: bool = False,
    ) -> None:
        self.name, self.function, self.signature = name, function, signature
        self.bounds, self.least, self.twin, self.shared = bounds, least, twin, shared
        self.cluster, self.exact = cluster, exact
        self._loaded: dict[Any, Any] = {}  # by the context that it is loaded in
        self._configs: dict[Any, Any] = {}
        self._lock = threading.Lock()

    def runs_on(self, cc: tuple[int, int]) -> bool:
        """Whether a GPU of this compute capability has the instructions."""
        return cc == self.least if self.exact else cc >= self.least

    def ptx(self, cc: tuple[int, int]) -> str:
        """The PTX for a compute capability.

        How many blocks must fit a multiprocessor was tuned on 9.0; older ones choose by themselves.
        """
        bounds = self.bounds
        if isinstance(bounds, tuple) and cc < (9, 0):
            bounds = (bounds[0], 1)
        text = shim.ptx(self.function, self.signature, cc, bounds)
        if self.cluster > 1:
            entry = text.index("{", text.index(".entry"))
            cluster = f".explicitcluster\n.reqnctapercluster {self.cluster}, 1, 1\n"
            text = text[:entry] + cluster + text[entry:]
        if self.exact:
            target = f".target sm_{cc[0]}{cc[1]}"
            text = text.replace(target, f"{target}a", 1)
        return text

    def fits(self, dynamic: int) -> bool:
        """Whether the device has so much shared memory for a block, beside what it declares."""
        return limits().fit(self.shared, dynamic)

    def launch(self, grid: Any, block: Any, *args: Any, shared: int = 0) -> None:
        """Run it on the current stream. `grid` and `block`: a number, or up to three.

        Pointers are the `address` of a `DeviceArray`; other arguments are numbers. Raises
        KernelError where the device cannot run so many blocks, or such large ones.
        """
        if shim.SIMULATED:
            from . import simulator

            converted = tuple(
                a if isinstance(kind, list) else kind.type(a)
                for a, kind in zip(args, self.signature, strict=True)
            )
            blocks, threads = self._checked(grid, block, shared)
            simulator.launch(self.function, blocks, threads, converted, shared, self.cluster)
            return
        where = driver.place()
        key = (where.key, grid, block, shared)
        config = self._configs.get(key)
        if config is None:
            config = self._configure(key)
        loaded, blocks, threads = config
        driver.launch(loaded, blocks, threads, shared, args)

    def _load(self, where: Any) -> Any:
        with self._lock:
            if where.key not in self._loaded:
                self._loaded[where.key] = compiled.load(self)
            return self._loaded[where.key]

    def _configure(self, key: Any) -> Any:
        _, grid, block, shared = key
        dims = self._checked(grid, block, shared)
        loaded = self._load(driver.place())
        driver.prepare(loaded, self.shared, shared)
        if len(self._configs) > 4096:
            self._configs.clear()
        self._configs[key] = (loaded, *dims)
        return self._configs[key]

    def _checked(
        self, grid: Any, block: Any, shared: int
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        dims = _dims(grid), _dims(block)
        complaint = limits().complaint(*dims, self.shared, shared)
        if complaint:
            raise KernelError(f"{self.name}: {complaint}")
        return dims


def limits() -> Limits:
    """What a launch may ask for on the GPU that this thread works on."""
    return simulated_limits if shim.SIMULATED else driver.place().limits


def _dims(given: Any) -> tuple[int, ...]:
    whole = given if isinstance(given, tuple) else (given,)
    return tuple(int(n) for n in (*whole, 1, 1)[:3])


def kernel(
    name: str,
    *signature: Any,
    bounds: int | tuple[int, int] = 256,
    least: tuple[int, int] = (5, 0),
    twin: bool = True,
    shared: int = 0,
    cluster: int = 1,
    exact: bool = False,
) -> Callable[[Callable[..., None]], Kernel]:
    """Make a kernel of a function, and register it."""

    def make(function: Callable[..., None]) -> Kernel:
        made = Kernel(name, function, list(signature), bounds, least, twin, shared, cluster, exact)
        REGISTRY[name] = made
        return made

    return make


def divide_up(n: int, by: int) -> int:
    """The least number of `by` that hold n."""
    return -(-n // by)


def float32(value: float) -> np.float32:
    """A float for a kernel's argument."""
    return np.float32(value)
