"""What an array must be before an operation takes it, and where it lies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

#: Of NumPy, CuPy, PyTorch or Numba, or anything with ``__cuda_array_interface__`` or
#: ``__dlpack__``: see `runtime.libraries`.
Array: TypeAlias = Any


def on_device(array: Array) -> bool:
    """Whether the array lies in a GPU's memory."""
    kind = type(array)
    if kind is np.ndarray:
        return False
    return is_ours(array) or hasattr(array, "__cuda_array_interface__")


def is_ours(array: Array) -> bool:
    """Whether it is a `DeviceArray`, which cannot be imported here."""
    return type(array).__name__ == "DeviceArray"


def host(array: Array, dtype: Any, name: str, ndim: int | None = None) -> np.ndarray[Any, Any]:
    """A C-contiguous array of `dtype` in the host's memory; no copy where it is one already.

    Numbers are converted only where no value changes its kind: float64 to float32 and between
    integers that fit is fine, float to integer is not. Raises TypeError or ValueError.
    """
    if on_device(array):
        raise TypeError(f"{name} lies on the device: copy it to the host, or use backend='cuda'")
    given = np.asarray(array)
    wanted = np.dtype(dtype)
    if given.dtype != wanted:
        if given.size and not np.can_cast(given.dtype, wanted, "same_kind"):
            raise TypeError(f"{name} is {given.dtype}, and must be {wanted}")
        with np.errstate(over="ignore"):
            given = given.astype(wanted)
    if ndim is not None and given.ndim != ndim:
        raise ValueError(f"{name} has {given.ndim} dimensions, and must have {ndim}")
    return np.ascontiguousarray(given) if given.ndim else given


def rows(array: np.ndarray[Any, Any], name: str) -> tuple[np.ndarray[Any, Any], tuple[int, ...]]:
    """The array as (rows, length), with the shape to go back to. The last axis is the row."""
    if array.ndim == 0:
        raise ValueError(f"{name} is a single number, and must have at least one axis")
    length = array.shape[-1]
    count = array.size // length if length else int(np.prod(array.shape[:-1], dtype=np.int64))
    return array.reshape(count, length), array.shape


def same_shape(arrays: Sequence[Array], names: str) -> None:
    """Raise ValueError unless all shapes are the same."""
    if len({tuple(a.shape) for a in arrays}) > 1:
        shapes = ", ".join(str(tuple(a.shape)) for a in arrays)
        raise ValueError(f"{names} must have one shape, not {shapes}")


def output(out: Array | None, shape: tuple[int, ...], dtype: Any) -> np.ndarray[Any, Any]:
    """The host array that a result goes to: the given one, checked, or a new one."""
    if out is None:
        return np.empty(shape, dtype)
    if not isinstance(out, np.ndarray) or out.dtype != dtype or out.shape != shape:
        raise ValueError(f"out must be a {np.dtype(dtype)} array of shape {shape}")
    if not (out.flags.c_contiguous and out.flags.writeable):
        raise ValueError("out must be contiguous and writeable")
    return out
