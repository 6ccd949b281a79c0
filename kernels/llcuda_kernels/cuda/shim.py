"""The only importer of numba.cuda, cuda.core and cuda.bindings.

numba-cuda is in maintenance mode; what replaces it will be let in here. With NUMBA_ENABLE_CUDASIM
set, the kernels get `simulator` instead and numba-cuda is not imported at all.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

__all__ = [
    "F16",
    "F32",
    "F64",
    "I8",
    "I32",
    "I64",
    "SIMULATED",
    "U8",
    "U16",
    "U32",
    "core",
    "cuda",
    "device",
    "intrinsic",
    "ir",
    "native",
    "pointer",
    "ptx",
    "signature",
    "types",
]

F = TypeVar("F", bound=Callable[..., Any])

SIMULATED = os.environ.get("NUMBA_ENABLE_CUDASIM", "0") not in ("", "0")

if SIMULATED:
    from .simulator import cuda

    core = native = ir = types = intrinsic = signature = None
    F16, F32, F64 = np.dtype(np.float16), np.dtype(np.float32), np.dtype(np.float64)
    I8, U8, U16 = np.dtype(np.int8), np.dtype(np.uint8), np.dtype(np.uint16)
    I32, U32, I64 = np.dtype(np.int32), np.dtype(np.uint32), np.dtype(np.int64)

    def pointer(kind: Any) -> Any:
        """The type of an address: a flat array stands for it here."""
        return [kind]

    def device(function: F) -> F:
        """A function that kernels call."""
        return function

else:
    if not hasattr(np, "row_stack"):  # NumPy 2.5 dropped the name, and numba-cuda 0.30 uses it
        np.row_stack = np.vstack  # type: ignore[attr-defined]

    from cuda import core
    from cuda.bindings import driver as native
    from llvmlite import ir
    from numba import cuda
    from numba.cuda import types
    from numba.cuda.extending import intrinsic
    from numba.cuda.typing import signature

    F16, F32, F64 = types.float16, types.float32, types.float64
    I8, U8, U16 = types.int8, types.uint8, types.uint16
    I32, U32, I64 = types.int32, types.uint32, types.int64

    def pointer(kind: Any) -> Any:
        """The type of an address of numbers of one kind."""
        return types.CPointer(kind)

    def device(function: F) -> F:
        """A function that kernels call: it becomes part of each of them."""
        return cuda.jit(device=True, inline="always")(function)  # type: ignore[no-any-return]


def ptx(function: Any, signature: list[Any], cc: tuple[int, int], bounds: Any) -> str:
    """Compile a kernel for an architecture; no driver is needed."""
    text, _ = cuda.compile_ptx(
        function, types.void(*signature), cc=cc, launch_bounds=bounds, fastmath=False
    )
    return str(text)


def literal_needed(given: Any) -> Exception:
    """What a compiler says of an argument that must be written as a number."""
    from numba.cuda.core.errors import RequireLiteralValue

    return RequireLiteralValue(given)
