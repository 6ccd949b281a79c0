"""Removing models from our folder: all files of a model, and nothing that another one uses."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from llcuda_net.models.files.local_file import LocalFile, split_number

#: Where a pull notes what it has pulled, in the folder.
_NOTES = ".pull"


@dataclass(frozen=True, slots=True)
class Removal:
    """Files that would go.

    Attributes:
        files: all parts, and projectors that nothing else uses.
        size: bytes that become free; of a link, none.
        kept: projectors that stay, since another model has them.
    """

    files: tuple[Path, ...]
    size: int
    kept: tuple[Path, ...]


def plan(chosen: Iterable[LocalFile], all_files: Iterable[LocalFile]) -> Removal:
    """What removing some files of a folder means.

    Args:
        chosen: models and other files of the folder, broken ones too.
        all_files: what the folder holds.
    """
    chosen = list(chosen)
    stay = {file.mmproj for file in all_files if file.mmproj and file not in chosen}
    files: dict[Path, None] = {}
    kept: dict[Path, None] = {}
    for file in chosen:
        for path in _parts(file):
            files[path] = None
        if file.mmproj is not None:
            (kept if file.mmproj in stay else files)[file.mmproj] = None
    size = 0
    for path in files:
        with contextlib.suppress(OSError):
            size += path.lstat().st_size
    return Removal(tuple(files), size, tuple(kept))


def outside(removal: Removal, folder: Path) -> Path | None:
    """The first file that is not in the folder, but in another one that is linked there."""
    root = folder.resolve()
    for path in removal.files:
        parent = path.parent.resolve()
        if parent != root and root not in parent.parents:
            return path
    return None


def remove(removal: Removal, folder: Path, names: Iterable[str]) -> None:
    """Remove the files, notes of their pulls, and folders that have become empty.

    Raises:
        OSError: one cannot be removed; those before it are gone.
    """
    for path in removal.files:
        path.unlink(missing_ok=True)
    for name in names:
        if "/" not in name:
            (folder / _NOTES / f"{name}.json").unlink(missing_ok=True)
    for parent in sorted({path.parent for path in removal.files}, reverse=True):
        at = parent
        while at != folder and folder in at.parents:
            try:
                at.rmdir()
            except OSError:  # something is left in it
                break
            at = at.parent


def _parts(file: LocalFile) -> tuple[Path, ...]:
    if file.model is not None:
        return file.model.parts
    split = split_number(file.path)
    if split is None:
        return (file.path,)
    name, _, count = split
    every = (
        file.path.with_name(f"{name}-{number:05}-of-{count:05}.gguf")
        for number in range(1, count + 1)
    )
    return tuple(path for path in every if path.is_symlink() or path.exists())
