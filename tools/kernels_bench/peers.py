"""The same things done by CuPy and PyTorch, where they are installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

from llcuda_kernels.cuda.runtime.array import DeviceArray

Run = Callable[[], Any]


def _module(name: str) -> Any:
    if importlib.util.find_spec(name) is None:
        return None
    try:
        return importlib.import_module(name)
    except Exception:
        return None  # installed for another CUDA


cupy = _module("cupy")
torch = _module("torch")
if torch is not None and not torch.cuda.is_available():
    torch = None
if torch is not None:
    torch.backends.cuda.matmul.allow_tf32 = False


def versions() -> dict[str, str]:
    """Of those that can be used."""
    return {m.__name__: str(m.__version__) for m in (cupy, torch) if m is not None}


def with_torch(make: Callable[[Any], Run]) -> dict[str, Run]:
    """The peer that `make` builds with torch, if it is there."""
    return {} if torch is None else {"PyTorch": make(torch)}


def with_cupy(make: Callable[[Any], Run]) -> dict[str, Run]:
    """The same with CuPy."""
    return {} if cupy is None else {"CuPy": make(cupy)}


def as_torch(array: DeviceArray) -> Any:
    """A tensor over the same memory."""
    return torch.as_tensor(array, device="cuda")
