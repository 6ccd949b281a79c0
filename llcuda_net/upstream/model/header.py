"""One pass over the header of a GGUF file, which trusts nothing in it.

Every length is checked against the bytes that are there, no allocation has a size that the file
claims, and the work is bounded. What the keys mean is `gguf.py`'s.
"""

from __future__ import annotations

import math
import os
import re
import stat
import struct
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

from llcuda_net.errors import EngineError

_MAX_STRINGS = 8_000_000  # in all arrays together; the largest vocabularies have under a million
_MAX_KEYS = 10_000
_MAX_TENSORS = 1_000_000
_MAX_KEPT_TEXT = 1024
_MAX_KEPT_NUMBERS = 1024  # of one array: a number for each layer fits
_MAX_KEPT_ARRAYS = 256
#: A layer's number is believed below this; the largest models have under 200.
MOST_LAYERS = 1024
EMBEDDING, OUTPUT, OTHER = "token_embd.weight", "output.weight", ""
_MAX_DIMS = 4
_DEFAULT_ALIGNMENT = 32
_CHUNK = 1 << 20
_LENGTH = struct.Struct("<Q")

_STRING, _ARRAY = 8, 9
# GGUF value type: struct format
_SCALARS = {
    0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q",
    12: "<d",
}  # fmt: skip
# ggml tensor type: (elements in a block, bytes of it). A type that is not here is not measured.
BLOCKS = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34),
    10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210),
    15: (256, 292), 16: (256, 66), 17: (256, 74), 18: (256, 98), 19: (256, 50), 20: (32, 18),
    21: (256, 110), 22: (256, 82), 23: (256, 136), 24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8),
    28: (1, 8), 29: (256, 56), 30: (1, 2), 34: (256, 54), 35: (256, 66), 39: (32, 17),
}  # fmt: skip

Scalar = int | float | bool | str


@dataclass(frozen=True, slots=True)
class Tensor:
    """Where one tensor's weights lie.

    Attributes:
        kind: the number of its ggml type.
        shape: numbers along each axis; the first is a row's.
        start: of its data, in bytes from the beginning of the file.
        size: bytes of its data; 0 where its type is new.
    """

    name: str
    kind: int
    shape: tuple[int, ...]
    start: int
    size: int


@dataclass(slots=True)
class Header:
    """What one file's header says.

    Attributes:
        size: bytes of the file.
        values: of the keys that have one value; texts are cut after a kilobyte.
        lists: of the keys that have a short list of numbers.
        counts: how many values every list has, kept or not.
        tensors: how many there are.
        elements: how many weights there are, by the number of their ggml type.
        layers: bytes of weights by layer.
        others: bytes of the weights that are in no layer: EMBEDDING, OUTPUT and OTHER.
        embedding_type: the number of the embedding's ggml type.
        places: where each tensor lies, where that was asked for.
    """

    size: int
    values: dict[str, Scalar] = field(default_factory=dict)
    lists: dict[str, tuple[int | float, ...]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    tensors: int = 0
    elements: Counter[int] = field(default_factory=Counter)
    layers: Counter[int] = field(default_factory=Counter)
    others: Counter[str] = field(default_factory=Counter)
    embedding_type: int | None = None
    places: list[Tensor] = field(default_factory=list)


def show_path(path: Path) -> str:
    """A path that is safe to print on one line."""
    text = str(path)
    return text if text.isprintable() else repr(text)


def read_header(path: Path, *, places: bool = False) -> Header:
    """Check that `path` is a GGUF file with all its bytes, and read its header.

    Args:
        places: keep where each tensor lies.

    Raises:
        EngineError: it is missing, unreadable, not a regular file, not GGUF, of a version that
            llama.cpp does not read, malformed, or cut short. One line that names the file.
    """
    shown = show_path(path)
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # before open: opening a FIFO would wait
            kind = "a directory" if path.is_dir() else "not a regular file"
            raise EngineError(f"model file {shown} is {kind}; give the path of a .gguf file")
        with path.open("rb", buffering=_CHUNK) as file:
            return _Reader(file, os.fstat(file.fileno()).st_size, shown).read(places)
    except FileNotFoundError:
        raise EngineError(f"model file {shown} does not exist") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        why = getattr(error, "strerror", None) or error
        raise EngineError(f"model file {shown} cannot be read: {why}") from None


class _Reader:
    """The pass, with every length checked against what is left of the file."""

    def __init__(self, file: BinaryIO, size: int, shown: str) -> None:
        self._file = file
        self._size = size
        self._shown = shown
        self._strings_left = _MAX_STRINGS
        self._found = Header(size)

    def read(self, places: bool) -> Header:
        magic = self._file.read(4)
        if magic != b"GGUF":
            hint = ""
            if magic == b"vers" and self._file.read(20) == b"ion https://git-lfs.":
                hint = ": it is a Git LFS pointer, fetch the model with `git lfs pull`"
            raise EngineError(f"model file {self._shown} is not a GGUF file{hint}")
        version = int(self._scalar("<I"))
        if version not in (2, 3):
            other_end = version and not version & 0xFFFF
            what = "a big-endian GGUF file" if other_end else f"GGUF version {version}"
            raise EngineError(
                f"model file {self._shown} is {what}, which llama.cpp cannot load here"
            )
        found = self._found
        found.tensors = self._count(24, _MAX_TENSORS, "tensors")
        for _ in range(self._count(13, _MAX_KEYS, "keys")):
            key = self._text()
            kind = int(self._scalar("<I"))
            if kind == _ARRAY:
                self._array(key)
            elif kind == _STRING:
                found.values[key] = self._text()
            else:
                found.values[key] = self._scalar(self._format(kind))
        self._check_extent(found.values.get("general.alignment"), places)
        return found

    def _check_extent(self, alignment: Scalar | None, places: bool) -> None:
        """Read what tensors there are, and compare the file's size with where the last one ends."""
        extent = 0
        for _ in range(self._found.tensors):
            name = self._text()
            dims = int(self._scalar("<I"))
            if dims > _MAX_DIMS:
                raise self._malformed(f"a tensor of {dims} dimensions")
            shape = tuple(int(self._scalar("<Q")) for _ in range(dims))
            elements = math.prod(shape)
            kind = int(self._scalar("<I"))
            block, width = BLOCKS.get(kind, (1, 0))
            size = elements // block * width
            offset = int(self._scalar("<Q"))
            extent = max(extent, offset + size)
            self._add(name, kind, elements, size)
            if places:
                self._found.places.append(Tensor(name, kind, shape, offset, size))
        align = alignment if isinstance(alignment, int) and alignment > 0 else _DEFAULT_ALIGNMENT
        begin = -(-self._file.tell() // align) * align
        whole = begin + extent
        self._found.places = [replace(t, start=begin + t.start) for t in self._found.places]
        if self._found.tensors and whole > self._size:
            raise EngineError(
                f"model file {self._shown} is truncated: {self._size:,} of {whole:,} bytes;"
                " download it again"
            )

    def _add(self, name: str, kind: int, elements: int, size: int) -> None:
        found = self._found
        found.elements[kind] += elements
        match = re.match(r"blk\.([0-9]{1,4})\.", name)
        if match is not None and int(match[1]) < MOST_LAYERS:
            found.layers[int(match[1])] += size
        else:
            found.others[name if name in (EMBEDDING, OUTPUT) else OTHER] += size
        if name == EMBEDDING:
            found.embedding_type = kind

    def _array(self, key: str) -> None:
        """Read a list; only a short one of numbers is kept."""
        kind = int(self._scalar("<I"))
        if kind == _STRING:
            count = self._count(8, self._strings_left, "strings")
            self._strings_left -= count
            self._skip_strings(count)
        else:
            fmt = self._format(kind)
            count = int(self._scalar("<Q"))
            if count > _MAX_KEPT_NUMBERS or len(self._found.lists) >= _MAX_KEPT_ARRAYS:
                self._skip(count * struct.calcsize(fmt))
            else:
                self._found.lists[key] = tuple(self._scalar(fmt) for _ in range(count))
        self._found.counts[key] = count

    def _skip_strings(self, count: int) -> None:
        # A vocabulary has hundreds of thousands: no call of a method for each of them.
        length = _LENGTH.unpack_from
        while count:
            start = self._file.tell()
            data = self._file.read(_CHUNK)
            at, last = 0, len(data) - _LENGTH.size
            while count and at <= last:
                at += _LENGTH.size + length(data, at)[0]
                count -= 1
            if not at or start + at > self._size:
                raise self._cut()
            self._file.seek(start + at)

    def _format(self, kind: int) -> str:
        try:
            return _SCALARS[kind]
        except KeyError:
            raise self._malformed(f"a value of unknown type {kind}") from None

    def _scalar(self, fmt: str) -> int | float | bool:
        width = struct.calcsize(fmt)
        data = self._file.read(width)
        if len(data) < width:
            raise self._cut()
        value: int | float | bool = struct.unpack(fmt, data)[0]
        return value

    def _text(self) -> str:
        length = int(self._scalar("<Q"))
        kept = self._file.read(min(length, _MAX_KEPT_TEXT))
        self._skip(length - len(kept))
        return kept.decode("utf-8", "replace")

    def _skip(self, length: int) -> None:
        if length > self._size - self._file.tell():
            raise self._cut()
        self._file.seek(length, os.SEEK_CUR)

    def _count(self, smallest: int, most: int, what: str) -> int:
        """Read how many things follow, each of at least `smallest` bytes."""
        count = int(self._scalar("<Q"))
        if count > most:
            raise self._malformed(f"{count:,} {what}")
        if count * smallest > self._size - self._file.tell():
            raise self._cut()
        return count

    def _cut(self) -> EngineError:
        return EngineError(
            f"model file {self._shown} is truncated: it ends inside its header,"
            f" at {self._size:,} bytes; download it again"
        )

    def _malformed(self, what: str) -> EngineError:
        return EngineError(f"model file {self._shown} is malformed: its header claims {what}")
