"""A model file of this machine, and looking into many of them quickly."""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

from llcuda_net.errors import EngineError
from llcuda_net.upstream.model.gguf import MODELS, Kind, ModelFile, read_model_file

_SPLIT = re.compile(r"(.+)-(\d{5})-of-(\d{5})", re.DOTALL)
#: Headers that are kept in memory: a few kilobytes each.
_MOST_KEPT = 4096

_Stamp = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A GGUF file (of a split one, all parts), or what was to become one.

    Attributes:
        name: of the model; unique among those of one scan.
        path: the file; of a split model, its first part.
        source: whose it is, such as "models" for our folder.
        model: what its header says; None where it cannot be used.
        mmproj: the projector that belongs to it.
        problem: why it cannot be used, in one line; empty where it can.
        note: what else is to be known, such as why its name is not the file's; or empty.
    """

    name: str
    path: Path
    source: str
    model: ModelFile | None = None
    mmproj: Path | None = None
    problem: str = ""
    note: str = ""

    @property
    def kind(self) -> Kind | None:
        """What it is for; None where it cannot be used."""
        return None if self.model is None else self.model.kind

    @property
    def is_model(self) -> bool:
        """Whether it can be loaded by its name."""
        return self.kind in MODELS


def split_number(path: Path) -> tuple[str, int, int] | None:
    """Of a part of a split model: the model's name, which part, of how many. Else None."""
    match = _SPLIT.fullmatch(path.stem) if path.suffix == ".gguf" else None
    if match is None or not 1 <= int(match[2]) <= int(match[3]):
        return None
    return match[1], int(match[2]), int(match[3])


def name_of(path: Path) -> str:
    """A model's name by its file: without `.gguf` and the number of a part."""
    split = split_number(path)
    return split[0] if split else path.stem


class Headers:
    """What was read of files, for as long as they are the same. May be used from threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[Path, tuple[_Stamp, ModelFile]] = OrderedDict()

    def read(self, path: Path) -> ModelFile:
        """As `read_model_file`, for files without tensors as well.

        Raises:
            EngineError: it cannot be used.
        """
        with self._lock:
            found = self._kept.get(path)
        if found is not None and _stamp(found[1].parts) == found[0]:
            return found[1]
        before = _stamp((path,))
        model = read_model_file(path, whole=False)
        stamp = _stamp(model.parts)
        if stamp is not None and before == stamp[:1]:  # else it is written just now
            with self._lock:
                self._kept[path] = (stamp, model)
                self._kept.move_to_end(path)
                if len(self._kept) > _MOST_KEPT:
                    self._kept.popitem(last=False)
        return model


#: Of this process.
HEADERS = Headers()


def look(path: Path, name: str, source: str) -> LocalFile:
    """Read a file's header; what is wrong with it is said in the answer."""
    if not name.isprintable():  # escapes, line breaks, bytes that are no UTF-8
        shown = name.encode("utf-8", "backslashreplace").decode()
        shown = shown if shown.isprintable() else repr(shown)[1:-1]
        return LocalFile(shown, path, source, problem="its name is not plain text: rename it")
    try:
        return LocalFile(name, path, source, HEADERS.read(path))
    except EngineError as error:
        return LocalFile(name, path, source, problem=str(error))


def _stamp(parts: tuple[Path, ...]) -> _Stamp | None:
    try:
        found = [part.stat() for part in parts]
    except (OSError, ValueError):
        return None
    return tuple((status.st_size, status.st_mtime_ns, status.st_ino) for status in found)
