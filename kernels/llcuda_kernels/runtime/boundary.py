"""Where arrays come in and results go out: one place for all operations.

An operation marked with `boundary` sees NumPy arrays and `DeviceArray` only, contiguous ones on the
device; it runs on the GPU that the arrays lie on, and what it returns comes back in the kind that
was given (`libraries`).

Order, as the CUDA array interface's document asks for: the operation is queued on the stream that
`StreamManager.use` chose, else on the one that PyTorch or CuPy works on now, if the first array is
one of theirs, else on the default one. That stream first waits for the other arrays' streams, by
events, and they wait for it afterwards; so nothing is read before it is written, nor given to
others while it is read. The host waits in one case only: DLPack tells the owner of the memory
nothing of when it was read.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from llcuda_kernels.arrays import Array, is_ours

from .device import require_gpu
from .libraries import Library, View, library_of

F = TypeVar("F", bound=Callable[..., Any])


def boundary(*names: str) -> Callable[[F], F]:
    """A function's parameters of these names are arrays; "out" among them is written to."""

    def mark(function: F) -> F:
        parameters = list(inspect.signature(function).parameters)
        wanted = [(name, parameters.index(name)) for name in names]

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            for name, at in wanted:  # a loop: this is on the way of every launch
                array = args[at] if at < len(args) else kwargs.get(name)
                if type(array) is np.ndarray or array is None:
                    continue
                if not (is_ours(array) and array.at_home):
                    break
            else:
                return function(*args, **kwargs)
            given = {name: args[at] if at < len(args) else kwargs.get(name) for name, at in wanted}

            def run(arrays: dict[str, Array]) -> Any:
                taken = list(args)
                for name, at in wanted:
                    if name in arrays:
                        if at < len(taken):
                            taken[at] = arrays[name]
                        else:
                            kwargs[name] = arrays[name]
                return function(*taken, **kwargs)

            return _Crossing(function.__name__, given).run(run)

        return call  # type: ignore[return-value]

    return mark


def taken(array: Array, name: str, function: Callable[[Any], Any]) -> Any:
    """What a function says of one array as ours or NumPy's; it is given back as it is."""
    crossing = _Crossing(name, {"array": array})
    crossing.back = None
    return crossing.run(lambda arrays: function(arrays["array"]))


class _Crossing:
    """The arrays of one call."""

    def __init__(self, name: str, given: dict[str, Array]) -> None:
        self._name = name
        self._given = {name: array for name, array in given.items() if array is not None}
        self._libraries = {name: library_of(array) for name, array in self._given.items()}
        self.back: Library | None = next(
            (library for library in self._libraries.values() if library is not None), None
        )

    def run(self, function: Callable[[dict[str, Array]], Any]) -> Any:
        """Call the function with each array as ours or NumPy's; its result in the user's kind."""
        hosts: dict[str, Array] = {}
        there: dict[str, Array] = {}
        for name, array in self._given.items():
            library = self._libraries[name]
            if is_ours(array) if library is None else library.on_device(array):
                there[name] = array
            else:
                hosts[name] = array if library is None else library.host(array, name)
        if not there:
            return self._result(function(hosts), hosts)
        require_gpu(self._name)
        return self._on_device(there, hosts, function)

    def _on_device(
        self,
        there: dict[str, Array],
        hosts: dict[str, Array],
        function: Callable[[dict[str, Array]], Any],
    ) -> Any:
        arrays, device_memory, driver, strided = _on_gpus()
        views: dict[str, View] = {}
        ordinals: dict[str, int | None] = {}
        for name, array in there.items():
            library = self._libraries[name]
            if library is None:
                ordinals[name] = array.where.ordinal
            else:
                views[name] = view = library.view(array, name)
                ordinals[name] = view.ordinal
        ordinal = _same(ordinals)
        where = driver.follow() if ordinal is None else driver.of(ordinal)
        chosen = driver.chosen_on()
        if chosen is not None and chosen is not where:
            raise ValueError(
                f"the stream in use is on GPU {chosen.ordinal}, and the data on GPU "
                f"{where.ordinal}: use a stream of that GPU"
            )
        handles = {view.handle for view in views.values() if view.handle is not None}
        lender = self._lender(where.ordinal)
        stream = None
        if lender is not None and self.back is not None:
            handle = self.back.handle(where.ordinal) or 0
            stream = driver.stream_of(where, handle)
            handles.add(handle)  # its memory has that stream's order
        recording = device_memory.recording()
        if recording is not None:
            recording.libraries |= {x for x in self._libraries.values() if x is not None}
        own = [array for name, array in there.items() if name not in views]
        with driver.at(where, stream):
            now = driver.handle()
            others = [driver.handle_from(handle) for handle in handles]
            if not arrays.recorded():
                for other in others:
                    driver.wait_for(now, other)
                arrays.order(*own)
            old = device_memory.lender()
            if lender is not None:  # within another operation: that one's
                device_memory.set_lender(lender)
            try:
                ours = {
                    name: strided.contiguous(views[name], array, name, where)
                    if name in views
                    else array
                    for name, array in there.items()
                }
                return self._result(function({**hosts, **ours}), {**hosts, **ours})
            finally:
                device_memory.set_lender(old)
                if not arrays.recorded():
                    for other in others:
                        driver.wait_for(other, now)
                    arrays.used(*own)
                    if not all(view.keeps_time for view in views.values()):
                        driver.stream().sync()

    def _lender(self, ordinal: int) -> Callable[[int], Any] | None:
        library = self.back
        if library is None or type(library).allocate is Library.allocate:
            return None
        return lambda size: library.allocate(size, ordinal)

    def _result(self, result: Any, taken: dict[str, Array]) -> Any:
        """In the user's kind; the very `out` that was given where that is the result."""
        if isinstance(result, tuple):
            return tuple(self._result(part, taken) for part in result)
        if is_ours(result) or isinstance(result, np.ndarray):
            return self._array(result, taken)
        if dataclasses.is_dataclass(result) and not isinstance(result, type):
            parts = (getattr(result, field.name) for field in dataclasses.fields(result))
            return type(result)(*(self._result(part, taken) for part in parts))
        return result

    def _array(self, result: Array, taken: dict[str, Array]) -> Array:
        for name, array in taken.items():
            if result is array:
                return self._given[name]
        if self.back is None:
            return result
        return self.back.give(result) if is_ours(result) else self.back.give_host(result)


@functools.cache
def _on_gpus() -> tuple[Any, ...]:
    """The modules that need numba-cuda."""
    from llcuda_kernels.cuda.primitives import strided
    from llcuda_kernels.cuda.runtime import array, device_memory, driver

    return array, device_memory, driver, strided


def _same(ordinals: dict[str, int | None]) -> int | None:
    """The one GPU that all lie on; None of empty ones. Raises ValueError where there are two."""
    known = [(name, ordinal) for name, ordinal in ordinals.items() if ordinal is not None]
    if not known:
        return None
    (first, ordinal), *rest = known
    for name, other in rest:
        if other != ordinal:
            raise ValueError(
                f"{first} lies on GPU {ordinal}, and {name} on GPU {other}: move one of them"
            )
    return ordinal
