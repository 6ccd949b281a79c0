"""A piece of work, done by our kernel and by others, and the time of both in turn.

Times on the device: the stream is held up by a kernel that only waits while all calls of a round
are queued, so that neither side is charged for what its host code costs; events stand before the
first and after the last call. Inputs are rotated: a round works through so many copies of them that
they exceed four times the L2 cache, so none is found there by the next call.

Times on the host (`host=True`) are those of whole calls that end with their results in the host's
memory.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

#: One call, on the copy of the inputs with this number.
Run = Callable[[int], Any]
ROUNDS, WARM = 15, 3
#: Cycles a second that the wait is made for; a GPU with a lower clock waits longer.
_CLOCK = 2.0e9


@dataclass
class Work:
    """What is timed. `others`: by name; `bytes`: what one call must at least move.

    check: called once with the results of ours and of each other; says whether they agree.
    """

    name: str
    size: str
    ours: Run
    others: dict[str, Run]
    copies: int = 1
    bytes: float = 0.0
    host: bool = False
    check: Callable[[Any, Any], bool] | None = None
    keeps: Any = field(default=None, repr=False)


Group = Callable[[float], Iterator[Work]]


@dataclass(frozen=True)
class Timed:
    """Milliseconds a call: the median of the rounds, the least and the greatest."""

    median: float
    least: float
    greatest: float


def spread(times: list[float]) -> Timed:
    """Of the rounds' times."""
    return Timed(statistics.median(times), min(times), max(times))


def copies_for(size: float, cache: float) -> int:
    """How many copies of inputs of this size exceed four times the cache."""
    return max(1, -int(-4 * cache // size)) if size else 1


def call(function: Callable[..., Any], *args: Any, **named: Any) -> Run:
    """A call on the same arguments each time."""
    return lambda i: function(*args, **named)


def turn(function: Callable[..., Any], first: Any, each: list[Any], **named: Any) -> Run:
    """A call on `first` and each of several in turn."""
    return lambda i: function(first, each[i], **named)


def made(make: Callable[..., Run], *args: Any) -> Run:
    """What `make` makes; where it fails, a call that says why, so that the others are timed."""
    try:
        return make(*args)
    except Exception as error:
        reason = error

    def fail(i: int) -> Any:
        raise reason

    return fail


class Clock:
    """Times calls on PyTorch's current stream, which is ours, too: the default one."""

    def __init__(self, torch: Any) -> None:
        self._torch = torch
        self.cache = float(torch.cuda.get_device_properties(0).L2_cache_size)

    def device(self, run: Run, copies: int, hold: float) -> float:
        """Milliseconds a call, over a round of all copies; `hold`: seconds to queue it in."""
        cuda = self._torch.cuda
        start, end = (cuda.Event(enable_timing=True) for _ in range(2))
        cuda._sleep(int(hold * _CLOCK))
        start.record()
        for i in range(copies):
            run(i)
        end.record()
        cuda.synchronize()
        return float(start.elapsed_time(end)) / copies

    def host(self, run: Run, copies: int) -> float:
        """Milliseconds of a whole call."""
        self._torch.cuda.synchronize()
        start = time.perf_counter()
        for i in range(copies):
            run(i)
        self._torch.cuda.synchronize()
        return (time.perf_counter() - start) * 1e3 / copies

    def pair(self, work: Work, other: Run) -> tuple[Timed, Timed, Timed]:
        """Ours, the other and the other over ours, round by round in turn."""
        runs = (work.ours, other)
        for run in runs:
            for _ in range(WARM):
                self.host(run, work.copies)
        # Twice what queueing took when nothing was held up.
        hold = 2e-3 * max(self.host(run, work.copies) for run in runs) * work.copies + 5e-4
        hold = min(hold, 0.05)
        times: tuple[list[float], list[float]] = ([], [])
        for number in range(ROUNDS):
            order = (0, 1) if number % 2 == 0 else (1, 0)
            for side in order:
                run = runs[side]
                taken = (
                    self.host(run, work.copies)
                    if work.host
                    else self.device(run, work.copies, hold)
                )
                times[side].append(taken)
        ratios = [theirs / ours for ours, theirs in zip(*times, strict=True)]
        return spread(times[0]), spread(times[1]), spread(ratios)


def on_host(result: Any) -> np.ndarray[Any, Any]:
    """A result of any library as a NumPy array."""
    if hasattr(result, "copy_to_host"):
        return np.asarray(result.copy_to_host())
    if hasattr(result, "cpu"):
        result = result.cpu()
        return np.asarray(result.float() if result.is_floating_point() else result)
    if hasattr(result, "get"):
        return np.asarray(result.get())
    return np.asarray(result)


def near(ours: Any, theirs: Any, share: float = 2e-2) -> bool:
    """Whether two arrays differ by less than a share of the other's norm."""
    a = on_host(ours).astype(np.float64).ravel()
    b = on_host(theirs).astype(np.float64).ravel()
    return a.shape == b.shape and bool(np.linalg.norm(a - b) <= share * np.linalg.norm(b))
