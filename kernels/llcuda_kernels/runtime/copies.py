"""Between the host's memory and the GPU's."""

from __future__ import annotations

from typing import Any

import numpy as np

from llcuda_kernels.arrays import Array, is_ours

from .boundary import taken
from .device import require_gpu
from .libraries import library_of


def to_device(array: Array, *, out: Array | None = None) -> Array:
    """A copy of an array of the host's in the GPU's memory, a `DeviceArray`, or in `out`.

    An array on a device is given back as it is, unless there is `out`, one of the same shape and
    type. Raises BackendError where there is no GPU, TypeError, ValueError.
    """
    library = library_of(array)
    there = is_ours(array) if library is None else library.on_device(array)
    if there and out is None:
        return array
    require_gpu("to_device")
    if there:
        array = to_host(array)
    given = np.ascontiguousarray(
        array if library is None or there else library.host(array, "array")
    )
    return _copy(given, out)


def _copy(array: np.ndarray[Any, Any], out: Array | None) -> Array:
    from llcuda_kernels.cuda.runtime import array as arrays
    from llcuda_kernels.cuda.runtime import driver

    if out is None:
        driver.follow()
        return arrays.to_device(array)
    if not is_ours(out):
        raise TypeError("out must be an array that to_device or an operation has made")
    if (out.shape, out.dtype) != (array.shape, array.dtype):
        raise ValueError(f"out is {out.dtype} {out.shape}, and array {array.dtype} {array.shape}")
    with driver.at(out.where):
        arrays.order(out)
        arrays.to_device(array, out)
        arrays.used(out)
    return out


def to_host(array: Array) -> np.ndarray[Any, Any]:
    """A copy of a device's array in the host's memory, NumPy's; a host's array is not copied."""
    library = library_of(array)
    if library is None:
        return array.copy_to_host() if is_ours(array) else np.asarray(array)
    if not library.on_device(array):
        return library.host(array, "array")
    found: np.ndarray[Any, Any] = taken(array, "to_host", lambda ours: ours.copy_to_host())
    return found
