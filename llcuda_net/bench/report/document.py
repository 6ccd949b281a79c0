"""What --json writes: one versioned document, enough to judge and to repeat the run."""

from __future__ import annotations

import json
import os
import platform
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from llcuda_net.errors import ConfigError
from llcuda_net.util.terminal import echo

#: Grows when a program that reads the documents would have to be changed.
VERSION = 1
#: Distributions whose versions bear on the figures.
_PARTS = (
    *("llcuda-net", "trio", "httptools", "msgpack", "numpy", "scipy", "hdrhistogram"),
    "xllamacpp",
)


def machine() -> dict[str, Any]:
    """The machine that the tool ran on: processor, cores it may use, memory, system."""
    return {
        "processor": _processor(),
        "cores": cores(),
        "memory_gib": _memory(),
        "system": f"{platform.system()} {platform.release()}",
        "load_average": _load(),
    }


def cores() -> int:
    """The cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        return os.cpu_count() or 1


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _memory() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError):
        return None


def _load() -> float | None:
    try:
        return round(os.getloadavg()[0], 2)
    except OSError:
        return None


def versions() -> dict[str, str]:
    """The software that bears on the figures."""
    found = {"python": platform.python_version()}
    for name in _PARTS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def begin(tool: str, argv: Sequence[str], seed: int, settings: dict[str, Any]) -> dict[str, Any]:
    """A document before the run: everything but the figures.

    Args:
        tool: its file, or the words of its command.
        argv: its arguments, as they were given; without user and password of URLs.
        settings: what the run was asked to do; two runs of equal settings may be compared.
    """
    return {
        "format": "llcuda-measure",
        "version": VERSION,
        "tool": tool,
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": [*tool.split(), *(re.sub(r"(?<=://)[^/\s]*@", "", each) for each in argv)],
        "seed": seed,
        "settings": settings,
        "machine": machine(),
        "versions": versions(),
        "problems": [],
        "cautions": [],
    }


def write(path: Path, document: dict[str, Any]) -> None:
    """Write it; `-` is standard output.

    Raises:
        ConfigError: the file cannot be written.
    """
    text = json.dumps(document, indent=1, allow_nan=False) + "\n"
    if str(path) == "-":
        echo(text, end="")
        return
    try:
        path.write_text(text, "utf-8")
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror or error}") from None


def read(path: Path) -> dict[str, Any]:
    """A document that a tool wrote.

    Raises:
        ConfigError: it cannot be read, is no such document, or has another version.
    """
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from None
    except (ValueError, RecursionError):
        raise ConfigError(f"{path} is not JSON") from None
    if not isinstance(found, dict) or found.get("format") != "llcuda-measure":
        raise ConfigError(f"{path} is not what a measuring tool of llcuda wrote with --json")
    if found.get("version") != VERSION:
        raise ConfigError(
            f"{path} is of version {found.get('version')}, and this tool reads {VERSION}"
        )
    return found
