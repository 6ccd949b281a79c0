"""How far a model has been loaded, as far as that can be known.

xllamacpp reports no progress, and llama.cpp's own count jumps from 0 to 1 when it maps a file.
What takes the time is reading the file, so ask the kernel how much of it is in memory (mincore).
Where that is of no use (the file was cached already, or another user owns it, or there is no
mincore), only the seconds are shown.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import trio

from llcuda_net.upstream.model.gguf import ModelFile

_TICK = 0.1
_SAMPLES = 256


async def show_progress(model: ModelFile, show: Callable[[str], None]) -> None:
    """Call `show` with a short text whenever it changed, until cancelled."""
    start = trio.current_time()
    about = f"loading {model.parts[0].name}, {human_size(model.size)}"
    shown = about
    show(shown)
    with Residency(model.parts) as residency:
        cached = residency.fraction() in (None, 1.0)
        best = 0.0
        while True:
            await trio.sleep(_TICK)
            text = f"{about} … {trio.current_time() - start:.0f} s"
            if not cached:
                best = max(best, residency.fraction() or 0.0)
                text = f"{about} … {best:.0%} read, {trio.current_time() - start:.0f} s"
            if text != shown:
                shown = text
                show(text)


def human_size(size: int) -> str:
    """`size` in the unit that a person would use."""
    value = float(size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


class Residency:
    """What part of some files is in the page cache, sampled from a few pages of each."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._libc: Any = None
        self._maps: list[tuple[int, int]] = []
        self._page = ctypes.create_string_buffer(1)
        try:
            libc = ctypes.CDLL(None)
            libc.mmap.restype = ctypes.c_void_p
            flag: Any = ctypes.c_int
            whole: Any = ctypes.c_size_t
            offset: Any = ctypes.c_longlong
            libc.mmap.argtypes = [ctypes.c_void_p, whole, flag, flag, flag, offset]
            libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
            libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p]
            self._libc = libc
            for path in paths:
                self._map(path)
        except (OSError, AttributeError, TypeError):
            self.close()

    def _map(self, path: Path) -> None:
        # libc's mmap, not Python's: that gives no address for a read-only mapping. The pages are
        # never touched, so a file that shrinks meanwhile does no harm.
        with path.open("rb") as file:
            size = file.seek(0, 2)
            address = self._libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, file.fileno(), 0)
        if address in (None, ctypes.c_void_p(-1).value):
            raise OSError("mmap")
        self._maps.append((address, size))

    def fraction(self) -> float | None:
        """The part that is in memory, 0.0 to 1.0, or None where it cannot be known."""
        if not self._maps:
            return None
        there = asked = 0
        for address, size in self._maps:
            pages = -(-size // mmap.PAGESIZE)
            for page in {pages * i // _SAMPLES for i in range(_SAMPLES)}:
                if self._libc.mincore(address + page * mmap.PAGESIZE, 1, self._page) != 0:
                    return None
                asked += 1
                there += self._page.raw[0] & 1
        return there / asked

    def close(self) -> None:
        """Give the mappings back; idempotent."""
        maps, self._maps = self._maps, []
        for address, size in maps:
            self._libc.munmap(address, size)

    def __enter__(self) -> Residency:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
