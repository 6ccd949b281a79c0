"""The only importer of numba.cuda, cuda.core and cuda.bindings.

numba-cuda is in maintenance mode; what replaces it will be let in here. With NUMBA_ENABLE_CUDASIM
set, the kernels get `simulator` instead and numba-cuda is not imported at all.
"""

from __future__ import annotations

import contextlib
import functools
import os
import warnings
from collections.abc import Callable
from importlib import metadata
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
    "compilers",
    "core",
    "cuda",
    "device",
    "has_linker",
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

#: As their modules have them; mypy knows nothing of these.
cuda: Any
core: Any
native: Any
ir: Any
types: Any
signature: Any

if SIMULATED:
    from .simulator import cuda as _simulated

    cuda = _simulated
    core = native = ir = types = signature = None
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
        setattr(np, "row_stack", np.vstack)  # noqa: B010  # mypy knows that it is gone

    from cuda import core as _core
    from cuda.bindings import driver as _driver
    from llvmlite import ir as _ir
    from numba import cuda as _cuda
    from numba.cuda import types as _types
    from numba.cuda.extending import intrinsic as _intrinsic
    from numba.cuda.typing import signature as _signature

    cuda, core, native, ir, types = _cuda, _core, _driver, _ir, _types
    signature = _signature

    F16, F32, F64 = types.float16, types.float32, types.float64
    I8, U8, U16 = types.int8, types.uint8, types.uint16
    I32, U32, I64 = types.int32, types.uint32, types.int64

    def pointer(kind: Any) -> Any:
        """The type of an address of numbers of one kind."""
        return types.CPointer(kind)

    def device(function: F) -> F:
        """A function that kernels call: it becomes part of each of them."""
        compiled: F = cuda.jit(device=True, inline="always")(function)
        return compiled

    def intrinsic(function: F) -> F:
        """A function that says which code a call of it is."""
        made: Any = _intrinsic(function)
        return made  # type: ignore[no-any-return]


def ptx(function: Any, signature: list[Any], cc: tuple[int, int], bounds: Any) -> str:
    """Compile a kernel for an architecture; no driver is needed."""
    text, _ = cuda.compile_ptx(
        function, types.void(*signature), cc=cc, launch_bounds=bounds, fastmath=False
    )
    return str(text)


@functools.cache
def has_linker() -> bool:
    """Whether nvJitLink is installed; where it is not, the driver makes cubins."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the driver is taken is no news to anybody
        return str(core.Linker.which_backend()) == "nvJitLink"


@functools.cache
def compilers() -> str:
    """The versions of all that has a part in a cubin."""
    from cuda.bindings import nvrtc

    parts = [f"{name} {metadata.version(name)}" for name in ("numba-cuda", "numba", "llvmlite")]
    parts.append(f"toolkit {nvrtc.nvrtcVersion()[1:]}")
    if has_linker():
        from cuda.bindings import nvjitlink

        parts.append(f"nvJitLink {nvjitlink.version()}")
    else:
        with contextlib.suppress(Exception):  # no driver: nothing is assembled here
            parts.append(f"driver {native.cuDriverGetVersion()[1]}")
    return ", ".join(parts)


def literal_needed(given: Any) -> Exception:
    """What a compiler says of an argument that must be written as a number."""
    from numba.cuda.core.errors import RequireLiteralValue

    made: Exception = RequireLiteralValue(given)
    return made
