"""Arrays in the GPU's memory, as lean as a launch needs them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from llcuda_kernels.arrays import Array, host, on_device

from . import shim

if not shim.SIMULATED:
    from . import driver


class DeviceArray:
    """Contiguous numbers in the GPU's memory.

    CuPy, PyTorch and Numba take it as it is (``__cuda_array_interface__``). It is ready when the
    work queued on the stream that it was made on is done. `address` is what kernels take.
    """

    __slots__ = ("_keeps", "address", "dtype", "shape", "size")

    def __init__(self, address: Any, shape: tuple[int, ...], dtype: Any, keeps: Any) -> None:
        self.address, self.shape, self.dtype = address, shape, np.dtype(dtype)
        self.size = math.prod(shape)
        self._keeps = keeps  # whatever owns the memory

    @property
    def ndim(self) -> int:
        """How many axes there are."""
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        """How much memory the numbers take."""
        return self.size * int(self.dtype.itemsize)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (0 if not self.size else self.address, False),
            "strides": None,
            "version": 3,
        }

    def __len__(self) -> int:
        return self.shape[0]

    def reshape(self, *shape: int) -> DeviceArray:
        """The same numbers in another shape; no copy."""
        if math.prod(shape) != self.size:
            raise ValueError(f"{self.shape} cannot become {shape}")
        return DeviceArray(self.address, shape, self.dtype, self._keeps)

    def view(self, dtype: Any, shape: tuple[int, ...]) -> DeviceArray:
        """The same bytes as other numbers; no copy."""
        if math.prod(shape) * np.dtype(dtype).itemsize != self.nbytes:
            raise ValueError(f"{self.nbytes} bytes cannot become {shape} {np.dtype(dtype)}")
        address = self.address.view(dtype) if shim.SIMULATED else self.address
        return DeviceArray(address, shape, dtype, self._keeps)

    def copy_to_host(self) -> np.ndarray[Any, Any]:
        """A copy in the host's memory; waits for the current stream."""
        if shim.SIMULATED:
            return np.array(self.address).reshape(self.shape)
        out = np.empty(self.shape, self.dtype)
        driver.copy_out(out, self.address)
        return out


def empty(shape: tuple[int, ...], dtype: Any) -> DeviceArray:
    """Memory that nobody has written to yet (in the simulator: NaN, or large numbers)."""
    kind = np.dtype(dtype)
    size = math.prod(shape)
    if shim.SIMULATED:
        from .simulator import _poisoned

        memory = _poisoned(size, kind)
        return DeviceArray(memory, shape, kind, None)
    if not size:
        return DeviceArray(0, shape, kind, None)
    buffer = driver.allocate(size * kind.itemsize)
    return DeviceArray(int(buffer.handle), shape, kind, buffer)


def to_device(array: np.ndarray[Any, Any]) -> DeviceArray:
    """A copy of a contiguous host array."""
    made = empty(array.shape, array.dtype)
    if shim.SIMULATED:
        made.address[:] = array.reshape(-1)
    else:
        driver.copy_in(made.address, array)
    return made


def wrap(array: Array, name: str) -> DeviceArray:
    """Another library's device array as ours; no copy. Raises ValueError unless contiguous."""
    if isinstance(array, DeviceArray):
        return array
    face = array.__cuda_array_interface__
    shape, kind = tuple(face["shape"]), np.dtype(face["typestr"])
    strides = face.get("strides")
    if strides is not None and math.prod(shape) > 1:
        expected = kind.itemsize
        for length, stride in zip(reversed(shape), reversed(strides), strict=True):
            if length > 1 and stride != expected:
                raise ValueError(f"{name} is not contiguous on the device: copy it first")
            expected *= length
    return DeviceArray(face["data"][0], shape, kind, array)


class Call:
    """The arrays of one operation: brought to the device if none is there, and the result back."""

    __slots__ = ("_back",)

    def __init__(self, *arrays: Array | None) -> None:
        self._back = True
        for a in arrays:
            if type(a) is DeviceArray or (a is not None and on_device(a)):
                self._back = False

    def take(self, array: Array, dtype: Any, name: str, ndim: int | None = None) -> DeviceArray:
        """An input as a device array of this type. Raises TypeError, ValueError."""
        if isinstance(array, DeviceArray) or on_device(array):
            found = wrap(array, name)
            if found.dtype != dtype:
                raise TypeError(f"{name} is {found.dtype}, and must be {np.dtype(dtype)}")
            if ndim is not None and found.ndim != ndim:
                raise ValueError(f"{name} has {found.ndim} dimensions, and must have {ndim}")
            return found
        return to_device(host(array, dtype, name, ndim))

    def make(self, out: Array | None, shape: tuple[int, ...], dtype: Any) -> DeviceArray:
        """Where a result goes: the array given, or new memory."""
        if out is None or self._back:
            return empty(shape, dtype)
        found = wrap(out, "out")
        if found.dtype != dtype or found.shape != shape:
            raise ValueError(f"out must be a {np.dtype(dtype)} array of shape {shape}")
        return found

    def give(self, result: DeviceArray, out: Array | None = None) -> Array:
        """The result where the inputs were."""
        if not self._back:
            return result if out is None else out
        found = result.copy_to_host()
        if out is None:
            return found
        np.copyto(out, found)
        return out


def aligned(*arrays: DeviceArray) -> bool:
    """Whether all begin where loads of 16 bytes may."""
    return shim.SIMULATED or all(a.address % 16 == 0 for a in arrays)


def at(array: DeviceArray, index: int) -> Any:
    """The address of the number at an index."""
    if shim.SIMULATED:
        return array.address[index:]
    return array.address + index * array.dtype.itemsize
