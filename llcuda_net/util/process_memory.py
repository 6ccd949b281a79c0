"""The memory of this process: what it takes, what it may take, and how it gives back.

Linux has all of this. Elsewhere nothing is known, and nothing is given back on purpose.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
#: glibc's names of its parameters, in malloc.h.
_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8
#: Allocations of this many bytes get pages of their own, and give them back when they are freed.
#: Without this, glibc raises its threshold to 32 MiB as soon as one large block was freed, and the
#: next ones lie in the heap, under what lives longer.
_LARGE = 128 << 10
#: Arenas of glibc, each with free memory of its own: one for the event loop, one for all threads.
_ARENAS = 2


def resident(statm: Path = Path("/proc/self/statm")) -> int:
    """Bytes of this process in memory that the system cannot drop; 0 where that is not known.

    Pages of files are left out: the code of libraries (of numba's, 70 MiB) is read again from the
    file when memory is short, and refusing requests would not make it less.
    """
    try:
        _, every, of_files = map(int, statm.read_text("ascii").split()[:3])
    except (OSError, ValueError):
        return 0
    return (every - of_files) * os.sysconf("SC_PAGE_SIZE")


def cgroup_limit(root: Path = _CGROUP, groups: Path = Path("/proc/self/cgroup")) -> int | None:
    """The least limit of memory of our control group and those around it; None: there is none."""
    found = []
    for name, folder in _folders(root, groups):
        while True:
            with contextlib.suppress(OSError, ValueError):
                found.append(int((folder / name).read_text("ascii")))
            if folder == root or root not in folder.parents:
                break
            folder = folder.parent
    # Version 1 writes a number near 2^63 where there is no limit, and version 2 the word max.
    return min((limit for limit in found if 0 < limit < 1 << 60), default=None)


def _folders(root: Path, groups: Path) -> list[tuple[str, Path]]:
    """Where the limits are: the names of files, and their folders."""
    out = [("memory.max", root), ("memory.limit_in_bytes", root / "memory")]
    with contextlib.suppress(OSError, ValueError):
        for line in groups.read_text("utf-8", "replace").splitlines():
            _, controllers, path = line.split(":", 2)
            inside = path.lstrip("/")
            if not controllers:
                out.append(("memory.max", root / inside))
            elif "memory" in controllers.split(","):
                out.append(("memory.limit_in_bytes", root / "memory" / inside))
    return out


class Allocator:
    """The C library's malloc, where it is glibc's."""

    def __init__(self) -> None:
        self._library: ctypes.CDLL | None = None
        if sys.platform == "linux":
            with contextlib.suppress(OSError, AttributeError):
                library = ctypes.CDLL(None)
                library.malloc_trim  # noqa: B018 - not there in another C library
                self._library = library

    def __repr__(self) -> str:
        return f"<Allocator {'glibc' if self._library else 'unknown'}>"

    def configure(self) -> None:
        """Give large blocks back as soon as they are free; before threads are started."""
        if self._library is not None:
            self._library.mallopt(_M_MMAP_THRESHOLD, _LARGE)
            self._library.mallopt(_M_ARENA_MAX, _ARENAS)

    def trim(self) -> None:
        """Give what is free back to the system; some milliseconds."""
        if self._library is not None:
            self._library.malloc_trim(0)
