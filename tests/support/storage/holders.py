"""Which files of a data directory have a text."""

from __future__ import annotations

import contextlib
from pathlib import Path


def holders(directory: Path, text: str) -> list[str]:
    """Files, whatever they are, that have these bytes; a short text is compressed in none."""
    found = []
    for path in directory.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
            if path.is_file() and text.encode() in path.read_bytes():
                found.append(str(path.relative_to(directory)))
    return sorted(found)
