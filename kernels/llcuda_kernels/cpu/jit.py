"""How the CPU paths are compiled: on first use, kept on the disk, one at a time."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numba

F = TypeVar("F", bound=Callable[..., Any])

#: Numbers so few that one core is done with them before others are awake.
FEW = 1 << 15
#: Sums may be reordered, so that they vectorise; NaN and infinity keep their meaning.
REORDER = {"reassoc", "nsz", "contract"}

# Numba's fallback threading layer ends the process when two threads are in parallel code at once,
# and one such call has all the cores anyway.
_one_at_a_time = threading.Lock()


def _stamp() -> tuple[tuple[str, int, int], ...]:
    """What the files of this folder are, to tell whether code kept on the disk is theirs."""
    found = sorted((path, path.stat()) for path in Path(__file__).parent.rglob("*.py"))
    return tuple((path.name, stat.st_mtime_ns, stat.st_size) for path, stat in found)


def _compile(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    options = {"nogil": True, "error_model": "numpy", "fastmath": REORDER, **options}
    try:
        compiled = numba.njit(cache=True, **options)(function)
        # Numba looks only at the function's own file. A helper in another one may have changed.
        index = compiled._cache._cache_file
        index._source_stamp = (index._source_stamp, _STAMP)
    except (RuntimeError, AttributeError):  # no folder to write to, or another Numba inside
        compiled = numba.njit(**options)(function)
    return compiled  # type: ignore[no-any-return]


_STAMP = _stamp()


def exact(function: F) -> F:
    """A compiled helper whose arithmetic is done in the order in which it is written."""
    return _compile(function, fastmath=False)  # type: ignore[return-value]


def serial(function: F) -> F:
    """A compiled function on one core."""
    return _compile(function)  # type: ignore[return-value]


def parallel(function: F) -> F:
    """A compiled function over all cores; its ``prange`` loops are spread."""
    compiled = _compile(function, parallel=True)

    @functools.wraps(function)
    def call(*args: Any) -> Any:
        with _one_at_a_time:
            return compiled(*args)

    return call  # type: ignore[return-value]


def threads() -> int:
    """How many cores a parallel call uses."""
    return int(numba.get_num_threads())
