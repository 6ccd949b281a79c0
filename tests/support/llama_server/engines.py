"""The llama-servers that a server runs, as the operating system shows them."""

from __future__ import annotations

from pathlib import Path

from tests.support.processes import children


def engines_of(server: int, binary: Path) -> list[int]:
    """Process ids of the `llama-server`s below a process; not those of a stand-in's helpers."""
    found = []
    for pid in children(server):
        if _runs(pid, binary):
            found.append(pid)
        else:
            found += engines_of(pid, binary)
    return found


def _runs(pid: int, binary: Path) -> bool:
    try:
        line = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return str(binary).encode() in line.split(b"\0")[:2]
