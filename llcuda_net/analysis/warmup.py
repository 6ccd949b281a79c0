"""Compiling the kernels in a process of their own, at the lowest priority.

Numba compiles a function when it is first called, which takes seconds, and caches it on disk. In a
thread of the server that would hold up the event loop again and again, by as much as a quarter of a
second at once.
"""

from __future__ import annotations

import os
import subprocess
import sys

import structlog
import trio

log = structlog.get_logger(__name__)


async def compile_kernels() -> None:
    """Compile the kernels and cache them on disk; if that fails, they are compiled here later."""
    done = await trio.run_process(
        [sys.executable, "-m", __name__],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    if done.returncode:
        log.info("kernels_not_compiled", exit_code=done.returncode)


def main() -> None:
    """Call each kernel that the server uses on the CPU once; compile those for the GPU, if any."""
    os.nice(19)
    os.umask(0o077)  # the cache is code: nobody else may write to it
    import numpy as np

    from llcuda_kernels import VectorStore, gpu, list_statistics, normalize_quantize
    from llcuda_kernels.runtime.kept import warm

    list_statistics(np.full((2, 2), -1, np.float32), np.full(2, -1, np.float32))
    codes, scales = normalize_quantize(np.ones((2, 8), np.float32), backend="cpu")
    store = VectorStore(8, backend="cpu")
    store.append_codes(codes, scales)
    store.search(np.ones(8, np.float32), 1)
    if gpu().usable:
        warm()


if __name__ == "__main__":
    main()
