"""What was found damaged or lost in a data directory, until a person has seen it: `damage.log`."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import structlog

log = structlog.get_logger(__name__)

NAME = "damage.log"


def note(directory: Path, problems: list[str]) -> None:
    """Add a line for each problem; on the disk when this returns.

    Raises:
        OSError: it cannot be written.
    """
    now = datetime.now(UTC).isoformat(timespec="seconds")
    text = "".join(f"{now} {' '.join(problem.split())}\n" for problem in problems)
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
    descriptor = os.open(directory / NAME, flags, 0o600)
    try:
        os.write(descriptor, text.encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def noted(directory: Path) -> list[str]:
    """All lines that were noted and not deleted since.

    Raises:
        OSError: they cannot be read.
    """
    try:
        text = (directory / NAME).read_text("utf-8", "replace")
    except FileNotFoundError:
        return []
    return [line for line in text.splitlines() if line.strip()]


def told(directory: Path, problems: list[str]) -> list[str]:
    """Log problems that were found just now, note them, and return all that are noted."""
    for problem in problems:
        log.error("storage_damaged", detail=problem)
    try:
        if problems:
            note(directory, problems)
        return noted(directory)
    except OSError as error:
        log.error("damage_not_noted", reason=str(error))
        return problems
