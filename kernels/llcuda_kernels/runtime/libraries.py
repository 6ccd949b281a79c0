"""The libraries whose arrays operations take, and how each is asked for what is in one.

A `Library` sees an array as a `View` where it lies on a GPU, as NumPy's where it lies in the host's
memory, and makes its own kind of a result. None is imported here: who passes an array of CuPy's has
imported CuPy.

=========  ==========================================  ==============================
given      stream that its work is queued on           results
=========  ==========================================  ==============================
NumPy      none                                        NumPy
PyTorch    ``torch.cuda.current_stream``               PyTorch, from its allocator
CuPy       ``cupy.cuda.get_current_stream``            CuPy, from its allocator
Numba      the array's                                 Numba
others     what ``__cuda_array_interface__`` names,    `DeviceArray`, or NumPy
           or ours, told to ``__dlpack__``
=========  ==========================================  ==============================
"""

from __future__ import annotations

import math
import sys
from typing import Any, NamedTuple

import numpy as np

from llcuda_kernels.arrays import Array


class View(NamedTuple):
    """An array on a GPU: strides in bytes, None where contiguous; `handle`: of the stream.

    ordinal: the GPU's number; None of an empty array that is nowhere. keeps_time: whether whoever
    owns the memory gives it away only after what is queued on the stream.
    """

    address: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    strides: tuple[int, ...] | None
    ordinal: int | None
    handle: int | None
    writeable: bool = True
    keeps_time: bool = True

    @property
    def contiguous(self) -> bool:
        """Whether its numbers lie one after the other."""
        if self.strides is None or math.prod(self.shape) < 2:
            return True
        expected = int(self.dtype.itemsize)
        for length, stride in zip(reversed(self.shape), reversed(self.strides), strict=True):
            if length > 1 and stride != expected:
                return False
            expected *= length
        return True


class Memory:
    """Memory of a library's own allocator, for results: `handle` is its address."""

    __slots__ = ("handle", "owner")

    def __init__(self, handle: int, owner: Any) -> None:
        self.handle, self.owner = handle, owner


class Library:
    """Whatever has ``__cuda_array_interface__``, ``__dlpack__`` or becomes NumPy's."""

    def on_device(self, array: Array) -> bool:
        """Whether the array lies in a GPU's memory."""
        if hasattr(array, "__cuda_array_interface__"):
            return True
        if hasattr(array, "__dlpack_device__"):
            return int(array.__dlpack_device__()[0]) in (2, 13)  # CUDA, and managed memory
        return False

    def host(self, array: Array, name: str) -> np.ndarray[Any, Any]:
        """A NumPy array over the same memory, or a copy where there is no other way."""
        if hasattr(array, "__dlpack__") and not hasattr(array, "__array__"):
            return np.from_dlpack(array)
        return np.asarray(array)

    def view(self, array: Array, name: str) -> View:
        """Where it lies on a GPU. Raises TypeError where it does not say so."""
        from llcuda_kernels.cuda.runtime import driver

        if not hasattr(array, "__cuda_array_interface__"):
            return _dlpack(array)
        face = array.__cuda_array_interface__
        if face.get("mask") is not None:
            raise TypeError(f"{name} has a mask, which is not supported")
        shape, kind = tuple(face["shape"]), np.dtype(face["typestr"])
        address, readonly = face["data"]
        ordinal = driver.ordinal_of(address) if address else None
        strides = face.get("strides")
        strides = None if strides is None else tuple(strides)
        return View(address, shape, kind, strides, ordinal, face.get("stream"), not readonly)

    def handle(self, ordinal: int) -> int | None:
        """The stream on which the library queues what it does now, if that can be known."""
        return None

    def allocate(self, size: int, ordinal: int) -> Memory | None:
        """Memory from the library, on its current stream; None where it has none to give."""
        return None

    def give_host(self, result: np.ndarray[Any, Any]) -> Array:
        """A result in the host's memory, in the library's kind."""
        return result

    def give(self, result: Any) -> Array:
        """A `DeviceArray` in the library's kind."""
        return result


def _dlpack(array: Array) -> View:
    from llcuda_kernels.cuda.runtime import driver, shim

    where = driver.of(int(array.__dlpack_device__()[1]))
    with driver.at(where):
        # the library makes its stream's work come before what is queued on ours
        handle = int(driver.handle())
        found = shim.core.utils.StridedMemoryView.from_dlpack(array, stream_ptr=handle)
    kind = np.dtype(found.dtype)
    strides = None if found.strides is None else tuple(n * kind.itemsize for n in found.strides)
    shape = tuple(found.shape)
    return View(found.ptr, shape, kind, strides, where.ordinal, handle, not found.readonly, False)


class Torch(Library):
    """PyTorch's. bfloat16 counts as its bits, uint16."""

    def __init__(self) -> None:
        self._torch = sys.modules["torch"]

    def on_device(self, array: Array) -> bool:
        """As `Library.on_device`."""
        if array.device.type not in ("cpu", "cuda"):
            raise TypeError(f"a tensor on {array.device}: move it to the CPU or to CUDA")
        return bool(array.device.type == "cuda")

    def _plain(self, array: Array, name: str) -> Array:
        if array.requires_grad:
            raise TypeError(f"{name} requires grad, and operations have none: {name}.detach()")
        if array.layout != self._torch.strided:
            raise TypeError(f"{name} is {array.layout}, and must be strided: {name}.to_dense()")
        if array.is_conj() or array.is_neg():
            array = array.resolve_conj().resolve_neg()
        return array.view(self._torch.uint16) if array.dtype == self._torch.bfloat16 else array

    def host(self, array: Array, name: str) -> np.ndarray[Any, Any]:
        """As `Library.host`."""
        found: np.ndarray[Any, Any] = self._plain(array, name).numpy()
        return found

    def view(self, array: Array, name: str) -> View:
        """As `Library.view`."""
        given = self._plain(array, name)
        try:
            kind = np.dtype(str(given.dtype).removeprefix("torch."))
        except TypeError:
            raise TypeError(f"{name} is {given.dtype}, which no operation takes") from None
        strides = tuple(n * kind.itemsize for n in given.stride())
        ordinal = int(given.device.index)
        address = int(given.data_ptr())
        return View(address, tuple(given.shape), kind, strides, ordinal, self.handle(ordinal))

    def handle(self, ordinal: int) -> int | None:
        """As `Library.handle`."""
        return int(self._torch.cuda.current_stream(ordinal).cuda_stream)

    def allocate(self, size: int, ordinal: int) -> Memory | None:
        """As `Library.allocate`."""
        made = self._torch.empty(size, dtype=self._torch.uint8, device=f"cuda:{ordinal}")
        return Memory(int(made.data_ptr()), made)

    def give_host(self, result: np.ndarray[Any, Any]) -> Array:
        """As `Library.give_host`."""
        return self._torch.from_numpy(result)

    def give(self, result: Any) -> Array:
        """As `Library.give`."""
        kind = getattr(self._torch, result.dtype.name)
        device = f"cuda:{result.where.ordinal}"
        if not result.size:
            return self._torch.empty(result.shape, dtype=kind, device=device)
        if isinstance(result.keeps, Memory):
            return result.keeps.owner.view(kind).reshape(result.shape)
        return self._torch.as_tensor(result, device=device)


class Cupy(Library):
    """CuPy's; always on a GPU."""

    def __init__(self) -> None:
        self._cupy = sys.modules["cupy"]

    def on_device(self, array: Array) -> bool:
        """As `Library.on_device`."""
        return True

    def view(self, array: Array, name: str) -> View:
        """As `Library.view`."""
        ordinal = int(array.device.id)
        kind, shape, strides = np.dtype(array.dtype), tuple(array.shape), tuple(array.strides)
        return View(int(array.data.ptr), shape, kind, strides, ordinal, self.handle(ordinal))

    def handle(self, ordinal: int) -> int | None:
        """As `Library.handle`."""
        return int(self._cupy.cuda.get_current_stream(ordinal).ptr)

    def allocate(self, size: int, ordinal: int) -> Memory | None:
        """As `Library.allocate`."""
        made = self._cupy.cuda.alloc(size)  # on the current GPU, which is this one
        return Memory(int(made.ptr), made)

    def give(self, result: Any) -> Array:
        """As `Library.give`."""
        if isinstance(result.keeps, Memory):
            return self._cupy.ndarray(result.shape, result.dtype, memptr=result.keeps.owner)
        if not result.size:
            with self._cupy.cuda.Device(result.where.ordinal):
                return self._cupy.empty(result.shape, result.dtype)
        return self._cupy.asarray(result)


class Numba(Library):
    """Numba's device arrays."""

    def give(self, result: Any) -> Array:
        """As `Library.give`."""
        return sys.modules["numba.cuda"].as_cuda_array(result)


_others = Library()
_by_name: dict[str, Library] = {}
_by_type: dict[type, Library | None] = {np.ndarray: None, type(None): None}
_KINDS: dict[str, type[Library]] = {
    "torch": Torch, "cupy": Cupy, "numba": Numba, "numba_cuda": Numba,
}  # fmt: skip


def library_of(array: Array) -> Library | None:
    """Whose array it is; None for NumPy's and ours."""
    kind = type(array)
    try:
        return _by_type[kind]
    except KeyError:
        pass
    found: Library | None = _others
    for base in kind.__mro__:
        name = base.__module__.split(".")[0]
        if base is np.ndarray or (base.__name__ == "DeviceArray" and name == "llcuda_kernels"):
            found = None
            break
        if name in _KINDS:
            found = _by_name.setdefault(name, _KINDS[name]())
            break
    _by_type[kind] = found
    return found
