"""The GPU through cuda.core: compiled kernels loaded, launched, streams, and memory copied.

Everything happens on the device's primary context, which Numba, CuPy and PyTorch share, and on the
current stream of the thread (`streams`).
"""

from __future__ import annotations

import ctypes
import struct
import threading
from typing import Any

import numpy as np

from . import shim
from .kept import Code
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


def device() -> Any:
    """The current device, its context made current in this thread."""
    found = getattr(_here, "device", None)
    if found is None:
        found = _here.device = core.Device()
        found.set_current()
    return found


def stream() -> Any:
    """The stream that this thread's operations go to."""
    found = getattr(_here, "stream", None)
    if found is None:
        set_stream(device().default_stream)
        found = _here.stream
    return found


def set_stream(new: Any) -> Any:
    """Make a stream this thread's; the one that was."""
    old = getattr(_here, "stream", None)
    if old is None:
        old = device().default_stream
    _here.stream = new
    # while a graph is recorded, the stream is that of its builder
    real = new.stream if hasattr(new, "begin_building") else new
    _here.handle = native.CUstream(int(real.handle))
    return old


def _handle() -> Any:
    """The driver's own name of the current stream."""
    if getattr(_here, "stream", None) is None:
        stream()
    return _here.handle


def compute_capability() -> tuple[int, int]:
    """Of the current device."""
    found = getattr(_here, "capability", None)
    if found is None:
        cc = device().compute_capability
        found = _here.capability = (int(cc[0]), int(cc[1]))
    return found


def multiprocessors() -> int:
    """Of the current device."""
    found = getattr(_here, "multiprocessors", None)
    if found is None:
        found = _here.multiprocessors = int(device().properties.multiprocessor_count)
    return found


class Loaded:
    """A kernel on the device, and how its arguments are laid out: eight bytes each."""

    def __init__(self, code: Any, function: Any, layout: str) -> None:
        self.code, self.function = code, function
        self.pack = struct.Struct("<" + layout).pack_into


def target() -> tuple[int, int]:
    """The compute capability that kernels are compiled for: the device's own.

    `compute_capability` chooses between kernels, and a self-check has it tell of an older device.
    """
    cc = device().compute_capability
    return int(cc[0]), int(cc[1])


def assemble(ptx: str, cc: tuple[int, int]) -> bytes:
    """The cubin of PTX: by nvJitLink, which needs no GPU, or where it is missing by the driver."""
    if not shim.has_linker():
        device()
    options = core.LinkerOptions(arch=f"sm_{cc[0]}{cc[1]}")
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


def prepare(loaded: Loaded, shared: int) -> None:
    """Allow a kernel as much shared memory as a launch wants."""
    if shared > 48 * 1024:
        attribute = native.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
        _check(native.cuFuncSetAttribute(loaded.function, attribute, shared))


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
    handle = getattr(_here, "handle", None) or _handle()
    code = native.cuLaunchKernel(loaded.function, *grid, *block, shared, handle, space[2], 0)[0]
    if int(code):
        _check((code,))


def allocate(size: int) -> Any:
    """Device memory from the pool in use, in the order of the current stream."""
    pool = getattr(_here, "pool", None)
    where = stream()
    if pool is not None:
        return pool.allocate(size)
    return device().memory_resource.allocate(size, stream=where)


def set_pool(new: Any) -> Any:
    """Make a pool this thread's, or none; the one that was."""
    old = getattr(_here, "pool", None)
    _here.pool = new
    return old


def copy_in(to: int, array: np.ndarray[Any, Any]) -> None:
    """From the host's memory to an address, on the current stream."""
    if array.nbytes:
        handle = _handle()
        _check(native.cuMemcpyHtoDAsync(to, array.ctypes.data, array.nbytes, handle))


def copy_out(array: np.ndarray[Any, Any], source: int) -> None:
    """From an address to the host's memory; waits for the current stream."""
    if array.nbytes:
        handle = _handle()
        _check(native.cuMemcpyDtoHAsync(array.ctypes.data, source, array.nbytes, handle))
    stream().sync()


def fill(to: int, byte: int, size: int) -> None:
    """Set bytes on the device, on the current stream."""
    if size:
        handle = _handle()
        _check(native.cuMemsetD8Async(to, byte, size, handle))


def describe() -> dict[str, Any]:
    """What `llcuda_kernels.gpu` tells of the device; raises where it cannot be used."""
    found = device()
    version = _check(native.cuDriverGetVersion())
    free_total = _check_pair(native.cuMemGetInfo())
    return {
        "name": str(found.name),
        "compute_capability": compute_capability(),
        "driver": f"{version // 1000}.{version % 1000 // 10}",
        "runtime": shim_version(),
        "multiprocessors": multiprocessors(),
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
    return device().create_stream(options=core.StreamOptions(nonblocking=True))


def memory_source(kind: str) -> Any:
    """A pool of cuda.core of our own."""
    if kind == "device":
        return core.DeviceMemoryResource(device(), core.DeviceMemoryResourceOptions())
    device()
    return core.PinnedMemoryResource(core.PinnedMemoryResourceOptions())


def record(sequence: Any, where: Any) -> tuple[Any, Any]:
    """A sequence as an executable graph, and the stream for it."""
    target = where if where is not None else new_stream()
    old = set_stream(target)
    try:
        sequence()
        target.sync()
        builder = target.create_graph_builder()
        builder.begin_building()
        # Work that is queued on the builder's stream is recorded; nothing runs.
        set_stream(builder)
        try:
            sequence()
        finally:
            set_stream(target)
            builder.end_building()
        return builder.complete(), target
    finally:
        set_stream(old)


def free_memory() -> int:
    """Bytes that the device has left."""
    device()
    return int(_check_pair(native.cuMemGetInfo())[0])
