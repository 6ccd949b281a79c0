"""Kernels compiled for the GPU ahead of their first call, and kept on the disk.

A kernel is compiled when it is first launched, which takes up to several seconds; then it is kept
(`cuda.runtime.kept`), for all processes of this user. `warm` does that for all of them at once.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import pkgutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import connection, get_context
from typing import Any

from llcuda_kernels.errors import BackendError

from .device import gpu

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Kept:
    """What is kept, of all versions and architectures: where, how many kernels, their bytes."""

    folder: str
    kernels: int
    bytes: int


@dataclass(frozen=True)
class Warmed:
    """What `warm` did. `failed`: the kernels that did not compile, and why, in one line each."""

    compiled: int
    already: int
    seconds: float
    failed: dict[str, str]


def kernels() -> dict[str, Any]:
    """Every kernel by name."""
    import llcuda_kernels.cuda as package
    from llcuda_kernels.cuda.runtime.kernel import REGISTRY

    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if not module.name.startswith(f"{package.__name__}.runtime"):
            importlib.import_module(module.name)
    return dict(REGISTRY)


def kept() -> Kept:
    """Look at the disk; nothing heavy is imported."""
    from llcuda_kernels.cuda.runtime import kept as disk

    found = disk.total()
    return Kept(str(disk.folder()), found.kernels, found.bytes)


def warm(
    progress: Progress | None = None,
    *,
    architecture: tuple[int, int] | None = None,
    processes: int | None = None,
) -> Warmed:
    """Compile whatever kernel is not kept yet, over the cores.

    progress: called with a kernel's name when it is done, how many are, and how many there are in
    all. architecture: a compute capability, by default that of the GPU here. Raises BackendError
    where there is none.
    """
    start = time.perf_counter()
    if architecture is None:
        if not gpu().usable:
            raise BackendError(f"warm: no CUDA here: {gpu().reason}")
        from llcuda_kernels.cuda.runtime import driver

        architecture = driver.target()
    from llcuda_kernels.cuda.runtime import compiled

    there = {name: k for name, k in kernels().items() if k.runs_on(architecture)}
    missing = [n for n, k in there.items() if compiled.kept_code(k, architecture) is None]
    failed: dict[str, str] = {}
    if missing:
        workers = processes or min(len(missing), 16, _cores())
        with ProcessPoolExecutor(
            workers, mp_context=get_context("spawn"), initializer=end_with_parent
        ) as pool:
            waiting = {pool.submit(_compile, name, architecture): name for name in missing}
            for number, done in enumerate(as_completed(waiting), 1):
                name = waiting[done]
                reason = done.result()
                if reason:
                    failed[name] = reason
                if progress is not None:
                    progress(name, number, len(missing))
    already = len(there) - len(missing)
    return Warmed(len(missing) - len(failed), already, time.perf_counter() - start, failed)


def end_with_parent() -> None:
    """In a process of the pool: end when the one that started it has been killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_wait_for_end, args=(parent.sentinel,), daemon=True).start()


def _wait_for_end(parent: int) -> None:
    connection.wait([parent])
    os._exit(1)


def _compile(name: str, architecture: tuple[int, int]) -> str:
    """In a process of the pool: compile and keep one; why it failed, or nothing."""
    from llcuda_kernels.cuda.runtime import compiled

    kernel = kernels()[name]
    try:
        code = compiled.compile_code(kernel, architecture)
    except Exception as error:
        return (str(error).strip().splitlines() or [type(error).__name__])[0]
    if not code.assembled:
        return "no linker here takes its PTX, so the driver compiles it"
    if compiled.kept_code(kernel, architecture) is None:
        return f"it cannot be kept in {kept().folder}"
    return ""


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
