"""What processes and the machine used so far, from /proc: CPU, wake-ups and peak memory."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Usage:
    """The resources that a process and its children used so far.

    Attributes:
        cpu: seconds.
        main_cpu: those of each process's first thread, which runs the event loop.
        switches: voluntary context switches of each thread, by its id.
        pids: of the processes; a process's first thread has its id.
        peak_bytes: sum of the peaks of resident memory.
    """

    cpu: float = 0.0
    main_cpu: float = 0.0
    switches: Mapping[int, int] = field(default_factory=dict)
    pids: frozenset[int] = frozenset()
    peak_bytes: int = 0

    @classmethod
    def of(cls, pid: int) -> Usage:
        """The process's usage and its children's."""
        cpu, main_cpu, peak = 0.0, 0.0, 0
        switches: dict[int, int] = {}
        pids = [pid, *_children(pid)]
        for each in pids:
            # Linux: the CPU clock of any process, in nanoseconds. /proc/PID/stat counts in ticks of
            # 10 ms, and its split into user and kernel time is skewed by work that comes in ticks.
            cpu += time.clock_gettime((~each << 3) | 2)
            main_cpu += (
                int(Path(f"/proc/{each}/task/{each}/schedstat").read_text().split()[0]) / 1e9
            )
            for task in Path(f"/proc/{each}/task").iterdir():
                try:
                    switches[int(task.name)] = int(_status(task)["voluntary_ctxt_switches"])
                except (FileNotFoundError, ProcessLookupError):
                    continue  # the thread has ended
            peak += int(_status(Path(f"/proc/{each}")).get("VmHWM", "0").split()[0]) * 1024
        return cls(cpu, main_cpu, switches, frozenset(pids), peak)

    def wakeups(self, since: Usage, *, main: bool = False) -> int:
        """Voluntary context switches since then, of all threads or of the processes' first."""
        return sum(
            count - since.switches.get(thread, 0)
            for thread, count in self.switches.items()
            if not main or thread in self.pids
        )


def machine_cpu() -> float:
    """CPU seconds that all processes of the machine used, the hypervisor's steal included."""
    line = Path("/proc/stat").read_text("ascii").partition("\n")[0].split()
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, line[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def _status(folder: Path) -> dict[str, str]:
    lines = (folder / "status").read_text("ascii", "replace").splitlines()
    return {name: value for name, _, value in (line.partition(":") for line in lines)}


def _children(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text("ascii").split():
            found += [int(child), *_children(int(child))]
    return found
