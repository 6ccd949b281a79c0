"""The memory of this machine, and what a running engine takes of it.

What counts as taken: pages that are the process's own (`Anonymous`, shared memory, swapped out),
and pages of files that it maps, divided among the processes that map them (PSS). The weights are
such pages: two engines of one file count them once between them, and the page cache of files that
nobody maps does not count. Where llama.cpp copies weights into another order (Q4_0 and Q4_K on most
CPUs), the mapped original is not touched again, and is the first that the system drops when memory
is short, so it does not count beside its copy.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from llcuda_net.models.files.memory import Estimate
from llcuda_net.util.process_memory import cgroup_limit

_PROC = Path("/proc")
_SMI_SECONDS = 10
#: What is left to the rest of the machine: the larger of these.
_LEAST_LEFT, _PART_LEFT = 1 << 30, 10


def host_memory() -> int | None:
    """Bytes that this process and its children may have: the machine's, or its control group's."""
    try:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):
        return None
    limit = cgroup_limit() if sys.platform == "linux" else None
    return min(memory, limit) if limit else memory


def host_budget() -> int | None:
    """Bytes that models may take where nothing else is said; None where that is not known.

    A tenth is left to the rest of the machine, at least a gigabyte, but never more than half.
    """
    memory = host_memory()
    if memory is None:
        return None
    return max(memory // 2, memory - max(_LEAST_LEFT, memory // _PART_LEFT))


def available_memory(meminfo: Path = _PROC / "meminfo") -> int | None:
    """Bytes of the machine that could be had now without swapping; None where not known."""
    try:
        found = re.search(r"^MemAvailable:\s+(\d+) kB", meminfo.read_text("ascii"), re.MULTILINE)
    except (OSError, ValueError):
        return None
    return int(found[1]) * 1024 if found else None


def measured(pid: int, need: Estimate | None = None, proc: Path = _PROC) -> int | None:
    """Bytes of host memory that a process takes; None where that is not known, or it has ended.

    Args:
        need: what its model was estimated to need: by that, weights that were copied are told from
            other memory of the process. Without it, copied weights count twice.
    """
    found = _rollup(proc / str(pid)) or _status(proc / str(pid))
    if found is None:
        return None
    own, mapped = found
    copied = 0
    if need is not None:
        rest = need.cache.host + need.compute.host + need.overhead.host
        copied = min(need.weights.host, max(0, own - rest))
    return own + max(0, mapped - copied)


def _rollup(folder: Path) -> tuple[int, int] | None:
    """Bytes of its own, and its part of mapped files."""
    try:
        text = (folder / "smaps_rollup").read_text("ascii")
    except (OSError, ValueError):
        return None
    kilobytes = {name: int(count) for name, count in re.findall(r"^(\w+):\s+(\d+) kB", text, re.M)}
    if "Pss_Anon" not in kilobytes:
        return None
    own = sum(kilobytes.get(name, 0) for name in ("Pss_Anon", "Pss_Shmem", "SwapPss"))
    return own * 1024, kilobytes.get("Pss_File", 0) * 1024


def _status(folder: Path) -> tuple[int, int] | None:
    """The same of a kernel without smaps_rollup, or where that may not be read: not divided."""
    try:
        text = (folder / "status").read_text("utf-8", "replace")
    except OSError:
        return None
    kilobytes = {name: int(count) for name, count in re.findall(r"^(\w+):\s+(\d+) kB", text, re.M)}
    if "RssAnon" not in kilobytes:  # a process that has ended has no memory
        return None
    own = sum(kilobytes.get(name, 0) for name in ("RssAnon", "RssShmem", "VmSwap"))
    return own * 1024, kilobytes.get("RssFile", 0) * 1024


def gpu_by_process(program: str = "nvidia-smi") -> dict[int, int]:
    """Bytes of NVIDIA GPUs by process id; empty where nvidia-smi is not there, or does not say.

    In a container the ids may be those outside of it: then ours are not among them. It takes a
    tenth of a second to seconds.
    """
    found: dict[int, int] = {}
    for line in _smi(program, "--query-compute-apps=pid,used_memory"):
        match = re.fullmatch(r"\s*(\d+)\s*,\s*(\d+)\s*", line)  # memory may be [N/A]
        if match is not None:  # a process is listed once for each GPU
            found[int(match[1])] = found.get(int(match[1]), 0) + (int(match[2]) << 20)
    return found


def _smi(program: str, query: str) -> list[str]:
    """The lines that nvidia-smi answers; none where it is not there or fails."""
    path = shutil.which(program)
    if path is None:
        return []
    try:
        done = subprocess.run(
            [path, query, "--format=csv,noheader,nounits"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_SMI_SECONDS,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return done.stdout.decode("ascii", "replace").splitlines() if done.returncode == 0 else []


def gpu_memory(program: str = "nvidia-smi") -> int | None:
    """Bytes of all NVIDIA GPUs together; None where there is none, or no nvidia-smi."""
    lines = _smi(program, "--query-gpu=memory.total")
    found = [int(line) for line in lines if re.fullmatch(r"\s*\d+\s*", line)]
    return sum(found) << 20 if found else None


def users_of(paths: Iterable[Path], proc: Path = _PROC) -> list[tuple[int, str]]:
    """Processes that have one of these files mapped, as an engine has a model: ids and names.

    Only what the kernel lets us see: our own processes, on Linux. An engine that has copied all of
    a model to a GPU is not among them.
    """
    wanted = set()
    for path in paths:
        with contextlib.suppress(OSError):
            wanted.add(os.fsencode(path.resolve()))
    found = []
    for folder in sorted(proc.glob("[0-9]*")):
        try:
            maps = (folder / "maps").read_bytes()
        except OSError:
            continue
        names = {line.partition(b"/")[2] for line in maps.split(b"\n") if b"/" in line}
        if any(b"/" + name in wanted for name in names):
            with contextlib.suppress(OSError):
                found.append((int(folder.name), (folder / "comm").read_text("utf-8", "replace")))
    return [(pid, name.strip()) for pid, name in found]
