"""The GPUs through cuda.core: kernels loaded and launched, streams, and memory copied.

Everything happens on a device's primary context, which Numba, CuPy and PyTorch share. A thread
works on one GPU at a time, its `place`: that of the arrays it is given (`at`), or the one that its
context is on (`follow`). Its work goes to the stream that was chosen (`set_stream`), or to that of
the arrays, or to the default one.
"""

from __future__ import annotations

import ctypes
import re
import struct
import threading
from types import TracebackType
from typing import Any

import numpy as np

from . import shim
from .kept import Code
from .launch_limits import AT_ONCE, Limits
from .shim import core, native

_here = threading.local()


def _check(result: tuple[Any, ...]) -> Any:
    """The value of a driver call; raises RuntimeError with the driver's own words."""
    code, *value = result
    if int(code) != 0:
        _, name = native.cuGetErrorName(code)
        _, text = native.cuGetErrorString(code)
        raise RuntimeError(f"{name.decode()}: {text.decode()}")
    return value[0] if value else None


class Place:
    """One GPU: its primary context, and what is asked of it again and again."""

    def __init__(self, ordinal: int) -> None:
        self.ordinal = ordinal
        self.device = core.Device(ordinal)
        before = _check(native.cuCtxGetCurrent())
        self.device.set_current()
        self.context = _check(native.cuCtxGetCurrent())
        self.key = int(self.context)
        self.default_stream = self.device.default_stream
        cc = self.device.compute_capability
        self.capability = (int(cc[0]), int(cc[1]))
        asked = native.CUdevice_attribute
        self.multiprocessors = self._attribute(asked.CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)
        self.limits = Limits(
            self._attribute(asked.CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN),
            self._attribute(asked.CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR),
            (
                self._attribute(asked.CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_X),
                self._attribute(asked.CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Y),
                self._attribute(asked.CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Z),
            ),
        )
        if int(before):
            _check(native.cuCtxSetCurrent(before))

    def _attribute(self, which: Any) -> int:
        return int(_check(native.cuDeviceGetAttribute(which, self.ordinal)))


_places: dict[int, Place] = {}
_making = threading.Lock()


def of(ordinal: int) -> Place:
    """The GPU of this number."""
    found = _places.get(ordinal)
    if found is None:
        with _making:
            found = _places.get(ordinal)
            if found is None:
                core.Device()  # initialises the driver
                found = _places[ordinal] = Place(ordinal)
    return found


def count() -> int:
    """How many GPUs there are."""
    found = getattr(_here, "count", None)
    if found is None:
        core.Device()
        found = _here.count = int(_check(native.cuDeviceGetCount()))
    return found


def follow() -> Place:
    """Go to the GPU that this thread's context is on (others may have moved it), or to the first.

    With one GPU that is settled once a thread.
    """
    here: Place | None = getattr(_here, "place", None)
    if here is not None and count() == 1:
        return here
    found = of(int(core.Device().device_id))
    _check(native.cuCtxSetCurrent(found.context))
    if found is not here:
        _go(found, None)
    return found


def place() -> Place:
    """The GPU that this thread works on."""
    return getattr(_here, "place", None) or follow()


def device() -> Any:
    """The current device, as cuda.core has it; its context is current in this thread."""
    return place().device


def _go(where: Place, stream: Any) -> None:
    """Set what this thread works on: the chosen stream, the given one, or the default one."""
    _here.place = where
    if getattr(_here, "chosen", None) is not None and _here.chosen_on is where:
        stream = _here.chosen
    _here.stream = where.default_stream if stream is None else stream
    _here.handle = handle_of(_here.stream)


def handle_of(stream: Any) -> Any:
    """The driver's own name of a stream; while a graph is recorded, of its builder's."""
    real = stream.stream if hasattr(stream, "begin_building") else stream
    return native.CUstream(int(real.handle) or 1)


class at:  # noqa: N801  # reads as the statement that it is part of
    """Within it, this thread works on a GPU, and on a stream of it unless one was chosen.

    On the GPU that it works on already it keeps its stream, if none is given. The context that was
    current is again at the end.
    """

    __slots__ = ("_old", "_place", "_pushed", "_stream")

    def __init__(self, where: Place, stream: Any = None) -> None:
        self._place, self._stream = where, stream

    def __enter__(self) -> None:
        self._old = tuple(getattr(_here, name, None) for name in ("place", "stream", "handle"))
        if self._stream is not None or self._old[0] is not self._place:
            _go(self._place, self._stream)
        self._pushed = int(_check(native.cuCtxGetCurrent())) != self._place.key
        if self._pushed:
            _check(native.cuCtxPushCurrent(self._place.context))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._pushed:
            native.cuCtxPopCurrent()
        _here.place, _here.stream, _here.handle = self._old


def stream() -> Any:
    """The stream that this thread's operations go to."""
    found = getattr(_here, "stream", None)
    if found is None:
        _go(place(), None)
        found = _here.stream
    return found


def set_stream(new: Any) -> Any:
    """Choose this thread's stream, or with None none; the one that was chosen before."""
    old = getattr(_here, "chosen", None)
    _here.chosen = None
    where = follow()
    if new is not None:
        _here.chosen, _here.chosen_on = new, where
    _go(where, None)
    return old


def handle_from(number: int) -> Any:
    """The driver's name of a stream that others know by number; 0 is the legacy default one."""
    return native.CUstream(number or 1)


def stream_of(where: Place, number: int) -> Any:
    """A stream that another library has, as cuda.core's."""
    if number in (0, 1):
        return where.default_stream if int(where.default_stream.handle) in (0, 1) else _legacy()
    known = getattr(_here, "known", None)
    if known is None or len(known) > 256:
        known = _here.known = {}
    key = (where.ordinal, number)
    if key not in known:
        known[key] = core.Stream.from_handle(number)
    return known[key]


def _legacy() -> Any:
    return core.Stream.from_handle(1)


def chosen_on() -> Place | None:
    """The GPU of the stream that was chosen, if one was."""
    return _here.chosen_on if getattr(_here, "chosen", None) is not None else None


def handle() -> Any:
    """The driver's own name of the current stream."""
    return getattr(_here, "handle", None) or handle_of(stream())


def wait_for(waiting: Any, other: Any) -> None:
    """What is queued on one stream from now on waits for what is queued on the other; by handles.

    Both are streams of the current context. The host does not wait.
    """
    if int(waiting) == int(other):
        return
    events = getattr(_here, "events", None)
    if events is None:
        events = _here.events = {}
    where = place()
    event = events.get(where.ordinal)
    if event is None:
        flags = native.CUevent_flags.CU_EVENT_DISABLE_TIMING
        event = events[where.ordinal] = _check(native.cuEventCreate(int(flags)))
    _check(native.cuEventRecord(event, other))
    _check(native.cuStreamWaitEvent(waiting, event, 0))


def captured() -> bool:
    """Whether what is queued on the current stream now is recorded for a graph."""
    code, status = native.cuStreamIsCapturing(handle())
    return int(code) != 0 or int(status) != 0


def compute_capability() -> tuple[int, int]:
    """Of the current device."""
    return place().capability


def multiprocessors() -> int:
    """Of the current device."""
    return place().multiprocessors


class Loaded:
    """A kernel on the device, and how its arguments are laid out: eight bytes each."""

    def __init__(self, code: Any, function: Any, layout: str) -> None:
        self.code, self.function = code, function
        self.room = 0  # bytes of dynamic shared memory that it may take
        self.pack = struct.Struct("<" + layout).pack_into


def target() -> tuple[int, int]:
    """The compute capability that kernels are compiled for: the device's own.

    `compute_capability` chooses between kernels, and a self-check has it tell of an older device.
    """
    return place().capability


_TARGET = re.compile(r"^\.target\s+(\w+)", re.MULTILINE)


def assemble(ptx: str, cc: tuple[int, int]) -> bytes:
    """The cubin of PTX: by nvJitLink, which needs no GPU, or where it is missing by the driver."""
    if not shim.has_linker():
        device()
    named = _TARGET.search(ptx)  # sm_90a, where there is what only that has
    options = core.LinkerOptions(arch=named[1] if named else f"sm_{cc[0]}{cc[1]}")
    linker = core.Linker(core.ObjectCode.from_ptx(ptx.encode()), options=options)
    return bytes(linker.link("cubin").code)


def load(code: Code, signature: list[Any]) -> Loaded:
    """Load a compiled kernel, whose arguments have these types, on the current device."""
    made = core.ObjectCode
    whole = (made.from_cubin if code.assembled else made.from_ptx)(code.data)
    handle = native.CUkernel(int(whole.get_kernel(code.entry).handle))
    function = _check(native.cuKernelGetFunction(handle))
    sizes = {shim.I32: "i4x", shim.U32: "I4x", shim.I64: "q", shim.F32: "f4x"}
    return Loaded(whole, function, "".join(sizes.get(kind, "Q") for kind in signature))


def prepare(loaded: Loaded, static: int, dynamic: int) -> None:
    """Allow a kernel as much shared memory as a launch wants beside its own.

    What was allowed is never taken back: a larger launch that was prepared before would fail.
    """
    if static + dynamic <= AT_ONCE:
        return
    with _preparing:
        if dynamic > loaded.room:
            attribute = native.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
            _check(native.cuFuncSetAttribute(loaded.function, attribute, dynamic))
            loaded.room = dynamic


_preparing = threading.Lock()


_MOST_ARGUMENTS = 24


def launch(loaded: Loaded, grid: Any, block: Any, shared: int, args: tuple[Any, ...]) -> None:
    """Queue a kernel on the current stream; the driver copies the arguments before it returns."""
    space = getattr(_here, "space", None)
    if space is None:
        values = (ctypes.c_uint64 * _MOST_ARGUMENTS)()
        first = ctypes.addressof(values)
        each = (ctypes.c_void_p * _MOST_ARGUMENTS)(*range(first, first + 8 * _MOST_ARGUMENTS, 8))
        space = _here.space = (values, each, ctypes.addressof(each))
    loaded.pack(space[0], 0, *args)
    where = getattr(_here, "handle", None) or handle()
    code = native.cuLaunchKernel(loaded.function, *grid, *block, shared, where, space[2], 0)[0]
    if int(code):
        _check((code,))


def copy_in(to: int, array: np.ndarray[Any, Any]) -> None:
    """From the host's memory to an address, on the current stream."""
    if array.nbytes:
        _check(native.cuMemcpyHtoDAsync(to, array.ctypes.data, array.nbytes, handle()))


def copy_out(array: np.ndarray[Any, Any], source: int) -> None:
    """From an address to the host's memory; waits for the current stream."""
    if array.nbytes:
        _check(native.cuMemcpyDtoHAsync(array.ctypes.data, source, array.nbytes, handle()))
    stream().sync()


def copy_within(to: int, source: int, size: int) -> None:
    """From one address on the device to another, on the current stream."""
    if size:
        _check(native.cuMemcpyDtoDAsync(to, source, size, handle()))


def fill(to: int, byte: int, size: int) -> None:
    """Set bytes on the device, on the current stream."""
    if size:
        _check(native.cuMemsetD8Async(to, byte, size, handle()))


def fill_words(to: int, word: int, count: int) -> None:
    """Set 32-bit words on the device, on the current stream."""
    if count:
        _check(native.cuMemsetD32Async(to, word, count, handle()))


def ordinal_of(address: int) -> int:
    """Which GPU has an address."""
    which = native.CUpointer_attribute.CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL
    return int(_check(native.cuPointerGetAttribute(which, address)))


def describe() -> dict[str, Any]:
    """What `llcuda_kernels.gpu` tells of the device; raises where it cannot be used."""
    found = follow()
    version = _check(native.cuDriverGetVersion())
    free_total = _check_pair(native.cuMemGetInfo())
    return {
        "name": str(found.device.name),
        "compute_capability": found.capability,
        "driver": f"{version // 1000}.{version % 1000 // 10}",
        "runtime": shim_version(),
        "multiprocessors": found.multiprocessors,
        "memory": int(free_total[1]),
    }


def _check_pair(result: tuple[Any, ...]) -> tuple[Any, Any]:
    _check(result[:1])
    return result[1], result[2]


def shim_version() -> str:
    """Which numba-cuda and cuda.core are at work."""
    from importlib import metadata

    return ", ".join(
        f"{name} {metadata.version(name)}" for name in ("numba-cuda", "cuda-core", "cuda-bindings")
    )


def new_stream() -> Any:
    """A stream that does not wait for the default one."""
    return follow().device.create_stream(options=core.StreamOptions(nonblocking=True))


def free_memory() -> int:
    """Bytes that the device has left."""
    follow()
    return int(_check_pair(native.cuMemGetInfo())[0])
