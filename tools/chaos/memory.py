"""Whether a process's memory stays flat: looked at every second, quarter compared with quarter."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

import trio

#: How much more the last quarter may have than the second, in the median: what the server keeps of
#: generations that are over (so that they can be attached to) moves with the load.
SLACK = 0.10
SLACK_BYTES = 8 << 20
#: Samples below which nothing can be said: two minutes.
FEWEST = 120
_INTERVAL = 1.0


def resident(pid: int) -> int:
    """Bytes of a process that are in memory."""
    for line in Path(f"/proc/{pid}/status").read_text("ascii", "replace").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


async def watch(pid: int, samples: list[int]) -> None:
    """Add a sample every second, until cancelled."""
    while True:
        samples.append(await trio.to_thread.run_sync(resident, pid))
        await trio.sleep(_INTERVAL)


def medians(samples: Sequence[int]) -> tuple[int, int]:
    """Of the second quarter and of the last."""
    quarter = max(1, len(samples) // 4)
    second = samples[quarter : 2 * quarter] or samples
    return int(statistics.median(second)), int(statistics.median(samples[-quarter:]))


def growth(samples: Sequence[int]) -> str | None:
    """What is wrong with the samples; None: nothing, or there are too few to tell."""
    if len(samples) < FEWEST:
        return None
    second, last = medians(samples)
    if last <= second * (1 + SLACK) + SLACK_BYTES:
        return None
    return f"the server's memory has grown, from {mib(second)} to {mib(last)}"


def mib(size: int) -> str:
    """A size for a person."""
    return f"{size / (1 << 20):.1f} MiB"
