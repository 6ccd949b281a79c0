"""Which path an operation takes: CPU or CUDA.

1. An array on a device decides for CUDA: it is not copied behind anybody's back.
2. With arrays in the host's memory, "auto" takes CUDA where this machine has it and a measurement
   on this machine says that it is faster, both copies included (`crossover`).
3. Results lie where the inputs lie.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np

from llcuda_kernels.arrays import Array, on_device

from . import device

Backend: TypeAlias = Literal["auto", "cpu", "cuda"]


def use_cuda(backend: str, operation: str, arrays: tuple[Array | None, ...], work: int) -> bool:
    """Whether the operation takes the CUDA path.

    `work` is the operation's size in bytes moved, which the measured crossover is told in. Raises
    BackendError where CUDA is asked for and cannot be used, ValueError for an unknown name, and
    TypeError where the CPU path is asked for and data lies on a device.
    """
    there = False
    for array in arrays:  # a loop: this is on the way of every launch
        if array is not None and type(array) is not np.ndarray and on_device(array):
            there = True
    if there and backend == "auto":
        return _usable(operation)
    if backend == "cpu":
        if there:
            raise TypeError(f"{operation}: backend='cpu', but the data lies on the device")
        return False
    if backend not in ("auto", "cuda"):
        raise ValueError(f"backend must be 'auto', 'cpu' or 'cuda', not {backend!r}")
    if backend == "cuda":
        return _usable(operation)
    from . import crossover

    return crossover.cuda_is_faster(operation, work)


def _usable(operation: str) -> bool:
    device.require_gpu(operation)
    return True
