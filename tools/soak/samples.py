"""Samples of a soak: the server's process, its data directory, and the waits of clients."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tools.campaign.memory import on_disk
from tools.overhead.stats import percentile
from tools.overhead.usage import machine_cpu
from tools.soak.load import Load, Window


@dataclass(frozen=True, slots=True)
class Sample:
    """The measurements of a window of some seconds.

    Attributes:
        time: seconds from the beginning, at the window's end.
        rss: bytes of the server in memory.
        descriptors, threads: of the server.
        server_cpu: cores that the server used in the window.
        own_cpu: cores that the upstreams and the clients used.
        machine_cpu: cores that all processes of the machine used, these included.
        first_p50, first_p99: seconds from when a request was due to its first token.
        interval_p50, interval_p99: seconds between two tokens.
        requests, tokens: of the window.
        running: requests under way at its end.
        journal, store: bytes on the disk.
    """

    time: float
    rss: int
    descriptors: int
    threads: int
    server_cpu: float
    own_cpu: float
    machine_cpu: float
    first_p50: float | None
    first_p99: float | None
    interval_p50: float | None
    interval_p99: float | None
    requests: int
    tokens: int
    running: int
    journal: int
    store: int

    def document(self) -> dict[str, Any]:
        """For JSON: times in microseconds are enough."""
        return {k: round(v, 6) if isinstance(v, float) else v for k, v in asdict(self).items()}


class Sampler:
    """Takes samples of a server.

    Args:
        pid: the server's process.
        others: the upstreams' processes.
        folder: the server's data directory.
        load: gives the waits of clients.
    """

    def __init__(self, pid: int, others: Sequence[int], folder: Path, load: Load) -> None:
        self._pid = pid
        self._others = [*others, os.getpid()]
        self._folder = folder
        self._load = load
        self._began = self._last = time.monotonic()
        self._cpu = self._used()

    def take(self) -> Sample:
        """The sample of the window that ends now."""
        now = time.monotonic()
        window, self._load.window = self._load.window, Window()
        cpu = self._used()
        server, own, machine = (
            (new - old) / (now - self._last) for new, old in zip(cpu, self._cpu, strict=True)
        )
        self._cpu, self._last = cpu, now
        status = _status(self._pid)
        journal = on_disk(self._folder / "journal")
        return Sample(
            time=now - self._began,
            rss=int(status["VmRSS"].split()[0]) * 1024,
            descriptors=sum(1 for _ in Path(f"/proc/{self._pid}/fd").iterdir()),
            threads=int(status["Threads"]),
            server_cpu=server,
            own_cpu=own,
            machine_cpu=machine,
            first_p50=percentile(window.first, 0.5),
            first_p99=_high(window.first),
            interval_p50=percentile(window.intervals, 0.5),
            interval_p99=percentile(window.intervals, 0.99),
            requests=window.requests,
            tokens=window.tokens,
            running=len(self._load.running),
            journal=journal,
            store=on_disk(self._folder) - journal,
        )

    def _used(self) -> tuple[float, float, float]:
        """CPU seconds so far: of the server, of upstreams and clients, of all."""
        return _cpu(self._pid), sum(map(_cpu, self._others)), machine_cpu()


def _high(values: list[float]) -> float | None:
    """The 99th percentile; of fewer than a hundred values, the greatest."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]


def _cpu(pid: int) -> float:
    """CPU seconds of a process: its clock, which Linux gives in nanoseconds."""
    return time.clock_gettime((~pid << 3) | 2)


def _status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text("ascii", "replace").splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
