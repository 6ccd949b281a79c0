"""The GPU of this machine, or why there is none to use. Nothing heavy is imported to find out."""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import os
from dataclasses import dataclass

from llcuda_kernels.errors import BackendError


@dataclass(frozen=True)
class Gpu:
    """What was found. `reason` says in one line why the GPU is not used, or is empty."""

    usable: bool
    reason: str = ""
    name: str = ""
    compute_capability: tuple[int, int] = (0, 0)
    driver: str = ""
    runtime: str = ""
    multiprocessors: int = 0
    memory: int = 0


def _missing() -> str:
    if os.environ.get("NUMBA_ENABLE_CUDASIM", "0") != "0":
        return "NUMBA_ENABLE_CUDASIM is set, so numba simulates a GPU"
    try:
        ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
    except OSError:
        return "no NVIDIA driver is installed (libcuda.so.1 was not found)"
    if importlib.util.find_spec("numba_cuda") is None:
        return "numba-cuda is not installed: pip install 'llcuda-net[cuda13]', or [cuda12]"
    return ""


@functools.cache
def gpu() -> Gpu:
    """The GPU that the current context uses, found once a process."""
    reason = _missing()
    if reason:
        return Gpu(False, reason)
    try:
        from llcuda_kernels.cuda.runtime import driver

        return Gpu(True, **driver.describe())
    except Exception as error:  # the driver's and the toolkit's errors have no common base
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        return Gpu(False, f"the GPU cannot be used: {first}")


def require_gpu(operation: str) -> None:
    """Raise BackendError where there is no GPU to use."""
    found = gpu()
    if not found.usable:
        raise BackendError(f"{operation}: no CUDA here: {found.reason}")
