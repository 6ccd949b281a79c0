"""Compiled kernels kept on the disk between test runs, by what they were made of.

A key covers the source of the kernel's module and of all that it imports, the kernel's name,
signature and bounds, the architecture, and the versions of Python and of every compiler. What is
kept is the compilers' raw output, so that a budget is checked in the same way with and without it.

It lies in ``$XDG_CACHE_HOME/llcuda/kernels`` (``~/.cache/llcuda/kernels``); entries that no run has
used for `KEEP_DAYS` are removed. Where nothing can be written, everything is compiled.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import sys
import tempfile
import time
import zlib
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from tests.support.kernels.compiling import Output
from tests.support.kernels.import_graph import PACKAGE, modules, reached

KEEP_DAYS = 30
COMPILERS = (
    *("cuda-bindings", "cuda-core", "llvmlite", "numba", "numba-cuda", "numpy"),
    *("nvidia-cuda-nvcc", "nvidia-cuda-nvrtc", "nvidia-nvvm"),
)


def folder() -> Path:
    """Where the cache lies."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "llcuda" / "kernels"


@functools.cache
def compilers() -> str:
    """The versions of all that compiles, and the settings that reach it."""
    versions = []
    for name in COMPILERS:
        try:
            versions.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            versions.append(f"{name} none")
    settings = [
        f"{name}={value}"
        for name, value in sorted(os.environ.items())
        if name.startswith(("NUMBA_", "CUDA_"))
    ]
    return "\n".join([sys.version, *versions, *settings])


@functools.cache
def _source(module: str) -> str:
    """The hash of a module's source and of all that it imports."""
    found = hashlib.sha256()
    for name in sorted(reached(module)):
        found.update(name.encode() + b"\0" + modules()[name].read_bytes() + b"\0")
    return found.hexdigest()


def key(kernel: Any, cc: tuple[int, int]) -> str:
    """What a kernel for an architecture is kept under."""
    module = kernel.function.__module__.removeprefix(PACKAGE + ".")
    parts = [
        compilers(),
        _source(module),
        kernel.name,
        repr(kernel.signature),
        repr(kernel.bounds),
        repr(cc),
    ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


class CompileCache:
    """Outputs by key; no method raises because of the disk."""

    def __init__(self, where: Path) -> None:
        self._where = where

    def __repr__(self) -> str:
        return f"CompileCache({str(self._where)!r})"

    def get(self, key: str) -> Output | None:
        """What was kept, or None; a file that cannot be read counts as none."""
        path = self._where / key
        try:
            found = Output(**json.loads(zlib.decompress(path.read_bytes())))
        except (OSError, ValueError, TypeError, zlib.error):
            return None
        with contextlib.suppress(OSError):
            os.utime(path)
        return found

    def put(self, key: str, output: Output) -> None:
        """Keep an output."""
        packed = zlib.compress(json.dumps(asdict(output)).encode())
        with contextlib.suppress(OSError):
            self._where.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=self._where, prefix=".new-")
            with os.fdopen(handle, "wb") as file:
                file.write(packed)
            Path(name).replace(self._where / key)

    def forget_unused(self, now: float | None = None) -> None:
        """Remove what no run has used for `KEEP_DAYS`."""
        oldest = (time.time() if now is None else now) - KEEP_DAYS * 86400
        with contextlib.suppress(OSError):
            for path in list(self._where.iterdir()):
                with contextlib.suppress(OSError):
                    if path.stat().st_mtime < oldest:
                        path.unlink()
