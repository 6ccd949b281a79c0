"""What a data directory takes on its disk."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from llcuda_net.storage.data_dir import journal_of, transient_of

#: Databases, with what SQLite keeps beside each.
_DATABASES = ("results", "derived", "objects")


def disk_usage(directory: Path) -> dict[str, int]:
    """Bytes of the files of each part; for a thread.

    Returns:
        `journal`, `transient`, `results`, `derived` (indexes, analyses) and `objects`.
    """
    sizes = {
        "journal": sum(_sizes(journal_of(directory))),
        "transient": sum(_sizes(transient_of(directory))),
    }
    for name in _DATABASES:
        sizes[name] = sum(_sizes(directory, f"{name}.db"))
    return sizes


def free_space(directory: Path) -> int:
    """Bytes that may still be written to the disk of a directory; for a thread.

    Raises:
        OSError: it is gone.
    """
    found = os.statvfs(directory)
    return found.f_bavail * found.f_frsize


def _sizes(folder: Path, prefix: str = "") -> Iterator[int]:
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(prefix):
                with contextlib.suppress(OSError):  # files come and go
                    found = entry.stat(follow_symlinks=False)
                    # Segments are made large in advance, with nothing in them.
                    yield min(found.st_size, found.st_blocks * 512)
