"""Processors and their memory, by RAPL as Linux shows it: /sys/class/powercap/intel-rapl:*.

Intel's Running Average Power Limit, and the same counters of AMD since Zen. A package's joules hold
its cores; those of memory ("dram") are beside them, so both are added. "psys", the whole board,
holds the packages and is left out.

Sources: Linux, Documentation/power/powercap/powercap.rst; K. Khan et al., "RAPL in Action" (2018).
"""

from __future__ import annotations

import sys
from pathlib import Path

from llcuda_net.bench.energy.meters import MeterError, Missing

ROOT = Path("/sys/class/powercap")


class RaplMeter:
    """One zone's joules. Its counter starts again at `max_energy_range_uj`, after minutes.

    Args:
        zone: its folder.

    Raises:
        OSError, ValueError: it cannot be read.
    """

    method = "energy counter"
    blocks = False

    def __init__(self, zone: Path, name: str, kind: str) -> None:
        self.name = name
        self.kind = kind
        self._file = zone / "energy_uj"
        self._range = _number(zone / "max_energy_range_uj")
        self._last = _number(self._file)
        self._sum = 0

    def __repr__(self) -> str:
        return f"<RaplMeter of {self.name}>"

    def joules(self, now: float) -> float:
        """See `Meter`: to be read more often than the counter starts again."""
        try:
            found = _number(self._file)
        except (OSError, ValueError) as error:
            raise MeterError(f"{self.name}: {error}") from None
        gone = found - self._last
        self._sum += gone if gone >= 0 else gone + self._range
        self._last = found
        return self._sum / 1e6


def meters(root: Path = ROOT) -> tuple[list[RaplMeter], list[Missing]]:
    """The processors and memories that tell their energy, and why there are none."""
    if sys.platform != "linux":
        return [], [Missing("cpu", "RAPL is read on Linux only")]
    found: list[RaplMeter] = []
    refused: list[str] = []
    for zone in sorted(root.glob("intel-rapl:*")):
        try:
            called = (zone / "name").read_text("utf-8").strip()
            if called.startswith("package-"):
                name, kind = f"processor {called.removeprefix('package-')}", "cpu"
            elif called == "dram":
                name, kind = f"memory of processor {zone.name.split(':')[1]}", "memory"
            else:
                continue
            found.append(RaplMeter(zone, name, kind))
        except PermissionError:
            refused.append(str(zone / "energy_uj"))
        except (OSError, ValueError) as error:
            refused.append(f"{zone}: {error}")
    if found:
        return found, [Missing("cpu", f"cannot read {path}") for path in refused]
    if refused:
        why = f"cannot read {refused[0]}"
        if refused[0].endswith("energy_uj"):
            # An attacker could tell from it what others compute.
            why += (
                " (only root may, since CVE-2020-8694): sudo chmod a+r"
                f" {root}/intel-rapl:*/energy_uj"
            )
        return [], [Missing("cpu", why)]
    return [], [
        Missing("cpu", f"no {root}/intel-rapl:*: a virtual machine, or a kernel without RAPL")
    ]


def _number(file: Path) -> int:
    return int(file.read_text("ascii"))
