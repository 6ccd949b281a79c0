"""Whether a process's memory stays flat: sampled every second, quarter compared with quarter."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import trio

#: How much the median of the last quarter may exceed that of the second: the server keeps ended
#: generations for a while (so that clients can attach), and their number follows the load.
SLACK = 0.10
SLACK_BYTES = 4 << 20
#: In addition, memory may grow as much as the store, up to this: SQLite caches its pages.
PAGE_CACHE = 24 << 20
#: With fewer samples there is no verdict: two minutes.
FEWEST = 120
_INTERVAL = 1.0


class Look(NamedTuple):
    """One sample: bytes in memory, and bytes of the store on the disk."""

    resident: int
    store: int


def resident(pid: int) -> int:
    """Bytes of a process that are in memory."""
    for line in Path(f"/proc/{pid}/status").read_text("ascii", "replace").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


def on_disk(folder: Path) -> int:
    """Bytes of all files in a folder; files that vanish meanwhile are left out."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_blocks * 512
        except FileNotFoundError:
            continue
    return total


def look(pid: int, folder: Path) -> Look:
    """A sample of a server and its data directory, without the journal."""
    return Look(resident(pid), on_disk(folder) - on_disk(folder / "journal"))


async def watch(pid: int, folder: Path, samples: list[Look]) -> None:
    """Add a sample every second, until cancelled."""
    while True:
        samples.append(await trio.to_thread.run_sync(look, pid, folder))
        await trio.sleep(_INTERVAL)


def medians(samples: Sequence[Look]) -> tuple[Look, Look]:
    """Of the second quarter and of the last."""
    quarter = max(1, len(samples) // 4)
    second = samples[quarter : 2 * quarter] or samples
    return _median(second), _median(samples[-quarter:])


def _median(samples: Sequence[Look]) -> Look:
    return Look(*(int(statistics.median(column)) for column in zip(*samples, strict=True)))


def allowed(second: Look, last: Look) -> int:
    """Bytes that may be in memory in the last quarter."""
    pages = min(PAGE_CACHE, max(0, last.store - second.store))
    return int(second.resident * (1 + SLACK)) + SLACK_BYTES + pages


def growth(samples: Sequence[Look]) -> str | None:
    """What is wrong with the samples; None: nothing, or there are too few."""
    if len(samples) < FEWEST:
        return None
    second, last = medians(samples)
    if last.resident <= allowed(second, last):
        return None
    return f"the server's memory has grown, from {mib(second.resident)} to {mib(last.resident)}"


def mib(size: int) -> str:
    """A size as text."""
    return f"{size / (1 << 20):.1f} MiB"
