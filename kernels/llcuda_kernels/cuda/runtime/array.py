"""Arrays in the GPU's memory, as lean as a launch needs them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from llcuda_kernels.arrays import Array, host, on_device

from . import shim

if not shim.SIMULATED:
    from . import device_memory, driver


class DeviceArray:
    """Contiguous numbers in the GPU's memory.

    CuPy, PyTorch and Numba take it as it is (``__cuda_array_interface__``). It is ready when the
    work queued on the stream that it was made on is done; the interface names that stream. Who
    reads it on another stream keeps it until that is done. `address` is what kernels take.
    """

    __slots__ = ("address", "dtype", "keeps", "shape", "size", "where")

    def __init__(
        self, address: Any, shape: tuple[int, ...], dtype: Any, keeps: Any, where: Any = None
    ) -> None:
        self.address, self.shape, self.dtype = address, shape, np.dtype(dtype)
        self.size = math.prod(shape)
        self.keeps = keeps  # whatever owns the memory
        self.where = where  # the GPU, as the driver has it; None in the simulator

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
        home = getattr(self.keeps, "home", None)
        unknown = home is None or device_memory.recording() is not None
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (0 if not self.size else self.address, False),
            "strides": None,
            "stream": None if unknown else int(driver.handle_of(home)) or 1,
            "version": 3,
        }

    @property
    def at_home(self) -> bool:
        """Whether nothing is to be done before the current stream works with it, nor afterwards."""
        return not shim.SIMULATED and device_memory.at_home(self.keeps)

    def __len__(self) -> int:
        return self.shape[0]

    def reshape(self, *shape: int) -> DeviceArray:
        """The same numbers in another shape; no copy."""
        if math.prod(shape) != self.size:
            raise ValueError(f"{self.shape} cannot become {shape}")
        return DeviceArray(self.address, shape, self.dtype, self.keeps, self.where)

    def view(self, dtype: Any, shape: tuple[int, ...]) -> DeviceArray:
        """The same bytes as other numbers; no copy."""
        if math.prod(shape) * np.dtype(dtype).itemsize != self.nbytes:
            raise ValueError(f"{self.nbytes} bytes cannot become {shape} {np.dtype(dtype)}")
        address = self.address.view(dtype) if shim.SIMULATED else self.address
        return DeviceArray(address, shape, dtype, self.keeps, self.where)

    def copy_to_host(self) -> np.ndarray[Any, Any]:
        """A copy in the host's memory; waits for what was queued with the array.

        Raises RuntimeError while a graph is recorded: nothing runs then.
        """
        if shim.SIMULATED:
            return np.array(self.address).reshape(self.shape)
        if recorded():
            raise RuntimeError("a copy to the host cannot be recorded: use it after the replay")
        out = np.empty(self.shape, self.dtype)
        with driver.at(self.where or driver.place()):
            order(self)
            driver.copy_out(out, self.address)
        return out


def recorded() -> bool:
    """Whether what is queued now is recorded in a graph, and not run."""
    if shim.SIMULATED:
        return False
    found = device_memory.recording()
    return found is not None and found.records


def order(*arrays: DeviceArray) -> None:
    """Let the current stream wait for whatever other streams do with the arrays."""
    stream = driver.stream()
    for array in arrays:
        memory = array.keeps
        if type(memory) is device_memory.Memory:
            memory.ready(stream)


def used(*arrays: DeviceArray) -> None:
    """The current stream has worked with the arrays: their memory does not go back before."""
    stream = driver.stream()
    for array in arrays:
        memory = array.keeps
        if type(memory) is device_memory.Memory and memory.home is not stream:
            memory.used(stream)


def empty(shape: tuple[int, ...], dtype: Any) -> DeviceArray:
    """Memory that nobody has written to yet (in the simulator: NaN, or large numbers)."""
    kind = np.dtype(dtype)
    size = math.prod(shape)
    if shim.SIMULATED:
        from .simulator import _poisoned

        memory = _poisoned(size, kind)
        return DeviceArray(memory, shape, kind, None)
    where = driver.place()
    if not size:
        return DeviceArray(0, shape, kind, None, where)
    buffer = device_memory.allocate(size * kind.itemsize)
    return DeviceArray(buffer.handle, shape, kind, buffer, where)


def fill(array: DeviceArray, value: float) -> DeviceArray:
    """Set all numbers, whose words of 32 bits must be alike; nothing is copied from the host."""
    if shim.SIMULATED:
        array.address[:] = value
    elif array.size:
        word = np.full(1, value, array.dtype).view(np.uint32)
        driver.fill_words(array.address, int(word[0]), array.nbytes // 4)
    return array


def filled(shape: tuple[int, ...], dtype: Any, value: float) -> DeviceArray:
    """A new array of one number, as `fill` can set it."""
    return fill(empty(shape, dtype), value)


def to_device(array: np.ndarray[Any, Any], out: DeviceArray | None = None) -> DeviceArray:
    """A copy of a contiguous host array."""
    made = empty(array.shape, array.dtype) if out is None else out
    if shim.SIMULATED:
        made.address[:] = array.reshape(-1)
        return made
    if recorded():
        raise RuntimeError("a copy from the host cannot be recorded: copy before `capture`")
    driver.copy_in(made.address, array)
    return made


def _where(array: Any) -> str:
    return "a GPU's memory" if isinstance(array, DeviceArray) else "the host's memory"


class Call:
    """The arrays of one operation: brought to the device if none is there, and the result back.

    Arrays of other libraries have become `DeviceArray` or NumPy's before (`runtime.boundary`).
    """

    __slots__ = ("_back",)

    def __init__(self, *arrays: Array | None) -> None:
        self._back = True
        for a in arrays:
            if type(a) is DeviceArray:
                self._back = False
        if self._back and not shim.SIMULATED:
            driver.follow()

    def take(self, array: Array, dtype: Any, name: str, ndim: int | None = None) -> DeviceArray:
        """An input as a device array of this type. Raises TypeError, ValueError."""
        if isinstance(array, DeviceArray):
            if array.dtype != dtype:
                raise TypeError(f"{name} is {array.dtype}, and must be {np.dtype(dtype)}")
            if ndim is not None and array.ndim != ndim:
                raise ValueError(f"{name} has {array.ndim} dimensions, and must have {ndim}")
            return array
        return to_device(host(array, dtype, name, ndim))

    def make(self, out: Array | None, shape: tuple[int, ...], dtype: Any) -> DeviceArray:
        """Where a result goes: the array given, or new memory."""
        if out is None:
            return empty(shape, dtype)
        if on_device(out) == self._back:
            raise TypeError(f"out lies in {_where(out)}, and the inputs do not")
        if out.dtype != dtype or tuple(out.shape) != shape:
            raise ValueError(f"out must be a {np.dtype(dtype)} array of shape {shape}")
        if not self._back:
            found: DeviceArray = out
            return found
        if not (out.flags.c_contiguous and out.flags.writeable):
            raise ValueError("out must be contiguous and writeable")
        return empty(shape, dtype)

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


def realigned(array: DeviceArray) -> DeviceArray:
    """The same numbers where loads of 16 bytes may begin; a copy if need be."""
    if aligned(array):
        return array
    made = empty(array.shape, array.dtype)
    driver.copy_within(made.address, array.address, array.nbytes)
    return made


def at(array: DeviceArray, index: int) -> Any:
    """The address of the number at an index."""
    if shim.SIMULATED:
        return array.address[index:]
    return array.address + index * array.dtype.itemsize
