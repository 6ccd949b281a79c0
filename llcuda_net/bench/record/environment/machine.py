"""The computer that measured: processor, memory, system, and what holds it back."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path
from typing import Any

#: Files that say what runs this system; by their first line.
_KINDS = (
    (Path("/.dockerenv"), "docker"),
    (Path("/run/.containerenv"), "podman"),
    (Path("/var/run/secrets/kubernetes.io"), "kubernetes"),
)
_CPU = Path("/sys/devices/system/cpu/cpu0/cpufreq")
_UNLIMITED = 1 << 60  # cgroups of version 1 say a number near 2**63 for no limit


def machine() -> dict[str, Any]:
    """The computer, as it is now, before the load; null with a reason in `unknown` otherwise."""
    unknown: dict[str, str] = {}

    def known(name: str, value: Any, why: str) -> Any:
        if value is None:
            unknown[name] = why
        return value

    info = _text(Path("/proc/cpuinfo"))
    return {
        "processor": known("processor", _processor(info), "the system does not name it"),
        "architecture": platform.machine(),
        "cores": cores(),
        "cores_installed": known("cores_installed", os.cpu_count(), "the system does not say"),
        "core_limit": known("core_limit", _core_limit(), "no limit of a control group is set"),
        "governor": known(
            "governor",
            _text(_CPU / "scaling_governor") or None,
            "the system does not say (no cpufreq here)",
        ),
        "clock_mhz": known("clock_mhz", _clock(info), "the system does not say"),
        "max_clock_mhz": known(
            "max_clock_mhz", _kilohertz("cpuinfo_max_freq"), "the system does not say"
        ),
        "memory_gib": known("memory_gib", _memory(), "the system does not say"),
        "memory_limit_gib": known(
            "memory_limit_gib", _memory_limit(), "no limit of a control group is set"
        ),
        "system": f"{platform.system()} {platform.release()}",
        "distribution": known("distribution", _distribution(), "the system does not say"),
        "container": known("container", _container(), "no sign of one"),
        "hypervisor": known("hypervisor", _hypervisor(info), "no sign of one"),
        "load_average": known("load_average", _load(), "the system does not say"),
        "unknown": unknown,
    }


def cores() -> int:
    """The cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        return os.cpu_count() or 1


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace").strip()
    except OSError:
        return ""


def _named(info: str, name: str) -> list[str]:
    """The values of a line of /proc/cpuinfo, one a core."""
    return re.findall(rf"^{name}\s*:\s*(.+?)\s*$", info, re.MULTILINE)


def _processor(info: str) -> str | None:
    names = _named(info, "model name")
    return names[0] if names else platform.processor() or platform.machine() or None


def _clock(info: str) -> float | None:
    clocks = [float(each) for each in _named(info, "cpu MHz")]
    return round(sum(clocks) / len(clocks), 1) if clocks else _kilohertz("scaling_cur_freq")


def _kilohertz(name: str) -> float | None:
    text = _text(_CPU / name)
    return int(text) / 1e3 if text.isdecimal() else None


def _core_limit() -> float | None:
    """Cores' worth of time that the control group allows (version 2, then 1)."""
    quota, _, period = _text(Path("/sys/fs/cgroup/cpu.max")).partition(" ")
    if not quota:
        quota = _text(Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"))
        period = _text(Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us"))
    if quota.isdecimal() and period.isdecimal() and int(period):
        return round(int(quota) / int(period), 2)
    return None


def _memory() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError):
        return None


def _memory_limit() -> float | None:
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        text = _text(Path("/sys/fs/cgroup") / name)
        if text.isdecimal() and int(text) < _UNLIMITED:
            return round(int(text) / 2**30, 1)
    return None


def _distribution() -> str | None:
    if platform.system() == "Darwin":
        return f"macOS {platform.mac_ver()[0]}"
    found = re.search(r'^PRETTY_NAME="?(.*?)"?$', _text(Path("/etc/os-release")), re.MULTILINE)
    return found[1] if found else None


def _container() -> str | None:
    for path, name in _KINDS:
        if path.exists():
            return name
    found = re.search(r"docker|kubepods|libpod|lxc", _text(Path("/proc/1/cgroup")))
    return found[0] if found else None


def _hypervisor(info: str) -> str | None:
    """Who runs this virtual machine; "unnamed" where only the processor shows that one does."""
    vendor = _text(Path("/sys/class/dmi/id/sys_vendor"))
    product = _text(Path("/sys/class/dmi/id/product_name"))
    flags = _named(info, "flags")
    if not (flags and "hypervisor" in flags[0].split()):
        return None
    return " ".join(filter(None, (vendor, product))) or "unnamed"


def _load() -> float | None:
    try:
        return round(os.getloadavg()[0], 2)
    except OSError:
        return None
