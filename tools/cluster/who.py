"""Whose a connection on this machine is: the process that holds the other end, by /proc."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

_TABLE = Path("/proc/net/tcp")


def holder(pids: Mapping[int, str], port: int, gate: int) -> str | None:
    """The name of the process that has connected from a port of 127.0.0.1 to another one.

    Args:
        pids: the processes that it may be, with their names.
    """
    inode = _inode(_TABLE.read_text("ascii"), port, gate)
    if inode is None:
        return None
    for pid, name in pids.items():
        if _holds(pid, inode):
            return name
    return None


def _inode(table: str, port: int, gate: int) -> str | None:
    """The number of a socket, in the table of all connections."""
    local, remote = f"0100007F:{port:04X}", f"0100007F:{gate:04X}"
    for line in table.splitlines():
        fields = line.split()
        if len(fields) > 9 and fields[1] == local and fields[2] == remote:
            return fields[9]
    return None


def _holds(pid: int, inode: str) -> bool:
    """Whether a process has a socket open."""
    wanted = f"socket:[{inode}]"
    try:
        with os.scandir(f"/proc/{pid}/fd") as found:
            for entry in found:
                try:
                    if os.readlink(entry.path) == wanted:  # noqa: PTH115 - there may be hundreds
                        return True
                except OSError:  # closed meanwhile
                    continue
    except OSError:  # it has ended
        pass
    return False
