"""The data directory: its default place, and its preparation."""

from __future__ import annotations

from pathlib import Path

import platformdirs

from llcuda_net.errors import StorageError


def default_directory() -> Path:
    """The platform's folder for a user's data: ~/.local/share/llcuda on Linux."""
    return platformdirs.user_data_path("llcuda", appauthor=False)


def prepare(directory: Path) -> Path:
    """Make a data directory that only its owner can read, and the journal's folder in it.

    Returns:
        The journal's folder.

    Raises:
        StorageError: it cannot be made.
    """
    journal = directory / "journal"
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        journal.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise StorageError(
            f"the data directory {directory} cannot be used ({error.strerror}): "
            "choose another --data-dir",
            StorageError.REFUSED,
        ) from error
    return journal
