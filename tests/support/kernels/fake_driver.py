"""A driver with GPUs that are the host's memory: copies are made, kernels are not run, all is told.

It stands for cuda.core and cuda.bindings in the modules that use them, so that the order in which
work is queued, and where, can be tested without a GPU.
"""

from __future__ import annotations

import ctypes
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

_ATTRIBUTES = {97: 232_448, 16: 132, 81: 233_472, 5: 2**31 - 1, 6: 65_535, 7: 65_535}
_ENUMS = ("CUdevice_attribute", "CUevent_flags", "CUpointer_attribute", "CUfunction_attribute")


class Stream:
    """Of cuda.core: a handle, and what was waited for."""

    made = 100

    def __init__(self, handle: int | None = None) -> None:
        Stream.made += 1
        self.handle = Stream.made if handle is None else handle
        self.is_closed = False

    def sync(self) -> None:
        pass

    def close(self) -> None:
        self.is_closed = True

    def create_graph_builder(self) -> Any:
        return _Builder(self)

    @staticmethod
    def from_handle(handle: int) -> Stream:
        return Stream(handle)


class _Builder:
    def __init__(self, stream: Stream) -> None:
        self.stream = stream

    def begin_building(self) -> None:
        pass

    def end_building(self) -> None:
        pass

    def complete(self) -> Any:
        return self

    def launch(self, stream: Stream) -> None:
        self.stream.launched = stream.handle  # type: ignore[attr-defined]


class _Buffer:
    def __init__(self, owner: FakeDriver, size: int, stream: Any) -> None:
        self._memory = ctypes.create_string_buffer(size + 16)
        self.handle = (ctypes.addressof(self._memory) + 15) // 16 * 16
        self._owner, self._home = owner, stream

    def close(self) -> None:
        pass

    def __del__(self) -> None:
        self._owner.log.append(("free", int(self._home.handle)))


class FakeDriver:
    """So many GPUs. `log`: waits as ("wait", who, for whom), launches as ("launch", stream)."""

    def __init__(self, gpus: int) -> None:
        self.gpus, self.log = gpus, list[tuple[Any, ...]]()
        self.contexts: list[int] = []  # the stack; a GPU's context is its number plus 500
        self.where: dict[int, int] = {}  # GPUs of addresses, if not the first
        self._recorded: dict[int, int] = {}
        self._real: Any = None

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from llcuda_kernels.cuda.runtime import compiled, device_memory, driver, kernel, shim
        from llcuda_kernels.runtime import device

        self._real = shim.native
        core = SimpleNamespace(
            Device=self.device, Stream=Stream, StreamOptions=lambda **_: None,
            DeviceMemoryResource=lambda *_: self, DeviceMemoryResourceOptions=lambda: None,
        )  # fmt: skip
        self.devices = [self._device(number) for number in range(self.gpus)]
        for module in (driver, device_memory):
            monkeypatch.setattr(module, "core", core)
        monkeypatch.setattr(driver, "native", self)
        monkeypatch.setattr(driver, "_here", SimpleNamespace())
        monkeypatch.setattr(device_memory, "_here", driver._here)
        monkeypatch.setattr(driver, "_places", {})
        kinds = {shim.I32: "i4x", shim.U32: "I4x", shim.I64: "q", shim.F32: "f4x"}
        monkeypatch.setattr(
            compiled, "load",
            lambda made: driver.Loaded(
                None, 1, "".join(kinds.get(kind, "Q") for kind in made.signature)
            ),
        )  # fmt: skip
        for made in kernel.REGISTRY.values():
            monkeypatch.setattr(made, "_loaded", {})
            monkeypatch.setattr(made, "_configs", {})
        monkeypatch.setattr(device, "gpu", lambda: device.Gpu(True, compute_capability=(9, 0)))

    def _device(self, number: int) -> Any:
        def set_current() -> None:
            self.contexts[-1:] = [500 + number]

        return SimpleNamespace(
            compute_capability=(9, 0), device_id=number, default_stream=Stream(1), name="fake",
            memory_resource=self, set_current=set_current, create_stream=lambda options: Stream(),
        )  # fmt: skip

    def device(self, number: int | None = None) -> Any:
        current = self.contexts[-1] - 500 if self.contexts else 0
        return self.devices[current if number is None else number]

    def allocate(self, size: int, *, stream: Any) -> _Buffer:
        return _Buffer(self, size, getattr(stream, "stream", stream))

    def __getattr__(self, name: str) -> Any:
        if name in _ENUMS or name in ("CUstream", "CUkernel"):
            return getattr(self._real, name)
        if name.startswith("cu"):
            return lambda *given: self._call(name, *given)
        raise AttributeError(name)

    def _call(self, name: str, *given: Any) -> tuple[Any, ...]:
        if name == "cuCtxGetCurrent":
            return 0, self.contexts[-1] if self.contexts else 0
        if name == "cuCtxSetCurrent":
            self.contexts[-1:] = [int(given[0])]
        elif name == "cuCtxPushCurrent":
            self.contexts.append(int(given[0]))
        elif name == "cuCtxPopCurrent":
            return 0, self.contexts.pop()
        elif name == "cuDeviceGetAttribute":
            return 0, _ATTRIBUTES[int(given[0])]
        elif name == "cuDeviceGetCount":
            return 0, self.gpus
        elif name == "cuStreamIsCapturing":
            return 0, 0
        elif name == "cuEventCreate":
            return 0, 77
        elif name == "cuPointerGetAttribute":
            return 0, self.where.get(int(given[1]), 0)
        elif name == "cuMemGetInfo":
            return 0, 1 << 30, 1 << 30
        elif name == "cuEventRecord":
            self._recorded[int(given[0])] = int(given[1])
        elif name == "cuStreamWaitEvent":
            self.log.append(("wait", int(given[0]), self._recorded[int(given[1])]))
        elif name == "cuLaunchKernel":
            self.log.append(("launch", int(given[8])))
        elif name in ("cuMemcpyHtoDAsync", "cuMemcpyDtoHAsync"):
            ctypes.memmove(int(given[0]), int(given[1]), int(given[2]))
            self.log.append(("copy", int(given[3])))
        return 0, None


class Interface:
    """An array with ``__cuda_array_interface__`` and nothing else."""

    def __init__(self, array: np.ndarray[Any, Any], stream: int | None = None) -> None:
        self._array, self._stream = array, stream

    @property
    def address(self) -> int:
        return self._array.ctypes.data if self._array.size else 0

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "shape": self._array.shape,
            "typestr": self._array.dtype.str,
            "data": (self.address, not self._array.flags.writeable),
            "strides": self._array.strides,
            "stream": self._stream,
            "version": 3,
        }
