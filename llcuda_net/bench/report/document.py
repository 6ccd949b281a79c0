"""What --json writes: one versioned document, enough to judge and to repeat the run.

It is a record by `bench/record/schema.json`: begun before the run, filled with figures by the
measurement, sealed and written after it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from llcuda_net.bench.record import schema
from llcuda_net.bench.record.canonical import DIGEST, digest
from llcuda_net.bench.record.environment.graphics import gpus
from llcuda_net.bench.record.environment.machine import cores, machine
from llcuda_net.bench.record.environment.source import source, versions
from llcuda_net.errors import ConfigError
from llcuda_net.util.terminal import echo

__all__ = [
    "VERSION",
    "begin",
    "cores",
    "faults",
    "machine",
    "measurement",
    "read",
    "versions",
    "write",
]

#: Grows when a program that reads the documents would have to be changed.
VERSION = 2
#: Bytes of a document that is read: those of long runs have some megabytes.
MOST = 1 << 28


def measurement(tool: str) -> str:
    """What a tool measures: "latency" of tools/bench_latency.py and of `llcuda bench latency`."""
    return tool.split()[-1].rpartition("/")[2].removeprefix("bench_").removesuffix(".py")


def begin(
    tool: str,
    argv: Sequence[str],
    seed: int,
    settings: dict[str, Any],
    *,
    sent: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """A document before the run: everything but the figures.

    Args:
        tool: its file, or the words of its command.
        argv: its arguments, as they were given; without user and password of URLs.
        settings: what the run was asked to do; two runs of equal settings may be compared.
        sent: what is sent, with a digest; None where no server is asked.
    """
    return {
        "$schema": schema.ID,
        "format": "llcuda-measure",
        "version": VERSION,
        "measurement": measurement(tool),
        "tool": tool,
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": [*tool.split(), *(re.sub(r"(?<=://)[^/\s]*@", "", each) for each in argv)],
        "seed": seed,
        "settings": settings,
        "sent": sent,
        "machine": machine(),
        "gpus": gpus(),
        "versions": versions(),
        "source": source(),
        "problems": [],
        "cautions": [],
    }


def write(path: Path, document: dict[str, Any]) -> None:
    """Write it; `-` is standard output.

    Raises:
        ConfigError: the file cannot be written.
    """
    text = json.dumps(document, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    if str(path) == "-":
        echo(text, end="")
        return
    try:
        path.write_text(text, "utf-8")
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror or error}") from None


def read(path: Path, *, trusting: bool = False) -> dict[str, Any]:
    """A document that a tool wrote.

    Args:
        trusting: do not look whether it is as the schema says, and as it was written.

    Raises:
        ConfigError: it cannot be read, is no such document, has another version, or was changed.
    """
    try:
        if path.stat().st_size > MOST:
            raise ConfigError(f"{path} has more than {MOST >> 20} MiB: it is no record")
        found = json.loads(path.read_text("utf-8"), parse_constant=_no_number)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror or error}") from None
    except (ValueError, RecursionError):
        raise ConfigError(f"{path} is not JSON, or was cut off") from None
    if not isinstance(found, dict) or found.get("format") != "llcuda-measure":
        raise ConfigError(f"{path} is not what a measuring tool of llcuda wrote with --json")
    if found.get("version") != VERSION:
        raise ConfigError(
            f"{path} is of version {json.dumps(found.get('version'))[:20]}, and this tool reads"
            f" {VERSION}: measure again"
        )
    if not trusting:
        wrong = faults(found)
        if wrong:
            raise ConfigError(f"{path}: {wrong[0]} (llcuda bench verify says more)")
    return found


def faults(document: dict[str, Any]) -> list[str]:
    """Where a document is not as its schema says, or not as it was written: one line each."""
    found = schema.faults(document)
    try:
        if not found and document[DIGEST] != digest(document):
            found.append("it was changed after it was written: its digest is another")
    except ValueError as error:
        found.append(f"its digest cannot be computed: {error}")
    return found


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no JSON")
