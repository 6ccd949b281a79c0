"""Our models folder: each GGUF file in it, or below it, is a model by name.

A name is the file's without `.gguf`, and without the number of a part. Where two files have the
same one, that of the upper folder keeps it, then that which comes first in the alphabet; the other
is named by its path in the folder (`sub/name`). So names do not depend on the order in which a file
system lists them, and a file that is added below never takes the name of one above it.
"""

from __future__ import annotations

import contextlib
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from llcuda_net.models.files.local_file import LocalFile, look, name_of, split_number
from llcuda_net.models.files.projectors import with_projectors
from llcuda_net.storage.data_dir import default_directory
from llcuda_net.upstream.model.gguf import Kind

SOURCE = "models"
#: How a file ends that a download has not finished.
UNFINISHED = (".part", ".partial", ".incomplete", ".download", ".downloadinprogress", ".tmp")
_MOST_FILES = 20_000
_MOST_DEPTH = 8


def default_folder() -> Path:
    """The folder of models where none is named: ~/.local/share/llcuda/models on Linux."""
    return default_directory() / "models"


def make_folder(folder: Path) -> None:
    """Make the folder; one that is made above it is ours alone, as a data directory must be.

    Raises:
        OSError: it cannot be made.
    """
    if folder == default_folder():
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.mkdir(parents=True, exist_ok=True)


def scan(folder: Path, source: str = SOURCE) -> list[LocalFile]:
    """What is in the folder and below it, by name: models, adapters (LoRA), projectors.

    A projector that belongs to a model is that model's `mmproj`, and not listed. Files that are
    broken or unfinished are listed with their `problem`. Importance matrices, control vectors and
    vocabularies are left out. A folder that does not exist is empty. Headers are read once per
    process while a file stays the same.
    """
    paths, problems = _walk(folder)
    found = [*_broken(paths, folder, source), *_whole(paths, folder, source)]
    found = with_projectors([file for file in found if file.kind is not Kind.OTHER])
    problem = [LocalFile(str(at), at, source, problem=why) for at, why in problems]
    return sorted([*found, *problem], key=lambda file: (file.name, str(file.path)))


def stamp(folder: Path) -> frozenset[tuple[str, int, int]]:
    """What tells whether a scan would find something else: each file with its size and time."""
    found = set()
    for path in _walk(folder)[0]:
        with contextlib.suppress(OSError):
            status = path.stat()
            found.add((str(path), status.st_size, status.st_mtime_ns))
    return frozenset(found)


def models_of(files: Iterable[LocalFile]) -> dict[str, LocalFile]:
    """Those that can be loaded, by name."""
    return {file.name: file for file in files if file.is_model}


def _walk(folder: Path) -> tuple[list[Path], list[tuple[Path, str]]]:
    """The files that count, those of upper folders first; and what could not be looked into."""
    files: list[Path] = []
    problems: list[tuple[Path, str]] = []
    seen: set[tuple[int, int]] = set()
    level = [folder]
    for depth in range(_MOST_DEPTH + 1):
        below: list[Path] = []
        for at in level:
            try:
                status = at.stat()
                if (status.st_dev, status.st_ino) in seen:  # a link to a folder that was listed
                    continue
                seen.add((status.st_dev, status.st_ino))
                entries = sorted(os.scandir(at), key=lambda entry: os.fsencode(entry.name))
            except (OSError, ValueError) as error:
                if not (at == folder and isinstance(error, FileNotFoundError)):
                    why = getattr(error, "strerror", None) or error
                    problems.append((at, f"the folder cannot be read: {why}"))
                continue
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if _is_folder(entry):
                    below.append(at / entry.name)
                elif _counts(entry.name):
                    files.append(at / entry.name)
            if len(files) > _MOST_FILES:
                return files[:_MOST_FILES], [(folder, f"only {_MOST_FILES:,} files are listed")]
        if below and depth == _MOST_DEPTH:
            problems.append((below[0], f"folders more than {_MOST_DEPTH} deep are not listed"))
        level = below
    return files, problems


def _counts(name: str) -> bool:
    return name.lower().endswith((".gguf", *(f".gguf{end}" for end in UNFINISHED)))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _broken(paths: list[Path], folder: Path, source: str) -> Iterator[LocalFile]:
    """Downloads that have not ended, and split models without their first part."""
    parts: defaultdict[tuple[Path, str, int], list[Path]] = defaultdict(list)
    for path in paths:
        split = split_number(path)
        if path.suffix.lower() != ".gguf":
            why = "its download has not finished: pull it again, or remove the file"
            yield LocalFile(_relative(path, folder), path, source, problem=why)
        elif split:
            parts[path.parent, split[0], split[2]].append(path)
    for (at, name, count), there in parts.items():
        first = at / f"{name}-00001-of-{count:05}.gguf"
        if first not in there:
            why = f"of {count} parts, the first is missing: {first.name}"
            yield LocalFile(_relative(there[0], folder), there[0], source, problem=why)


def _whole(paths: list[Path], folder: Path, source: str) -> Iterator[LocalFile]:
    taken: dict[str, Path] = {}
    for path in paths:
        split = split_number(path)
        if path.suffix.lower() != ".gguf" or (split and split[1] > 1):
            continue
        name = name_of(path)
        note = ""
        if name in taken:
            note = f"{_relative(taken[name], folder)} has the name {name} already"
            name = next(
                name
                for name in (
                    str(path.relative_to(folder).with_name(name)),
                    str(path.relative_to(folder).with_suffix("")),
                    _relative(path, folder),
                )
                if name not in taken
            )
        taken[name] = path
        yield replace(look(path, name, source), note=note)


def _relative(path: Path, folder: Path) -> str:
    text = str(path.relative_to(folder))
    return text if text.isprintable() else repr(text)
