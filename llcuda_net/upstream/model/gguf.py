"""A look at a model file before an engine is started on it.

Reads a GGUF file's header only, and trusts none of it: every length is checked against the bytes
that are there, no allocation has a size that the file claims, and the work is bounded. It answers
two questions that llama.cpp answers late or vaguely: is the whole file here, and what is in it.
"""

from __future__ import annotations

import os
import re
import stat
import struct
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from llcuda_net.errors import EngineError

_MAX_STRINGS = 8_000_000  # in all arrays together; the largest vocabularies have under a million
_MAX_KEYS = 10_000
_MAX_TENSORS = 1_000_000
_MAX_KEPT_TEXT = 1024
_MAX_DIMS = 4
_DEFAULT_ALIGNMENT = 32

_STRING, _ARRAY = 8, 9
# GGUF value type: struct format
_SCALARS = {
    0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q",
    12: "<d",
}  # fmt: skip
# ggml tensor type: (elements in a block, bytes of it). A type that is not here is not measured.
_BLOCKS = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34),
    10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210),
    15: (256, 292), 16: (256, 66), 17: (256, 74), 18: (256, 98), 19: (256, 50), 20: (32, 18),
    21: (256, 110), 22: (256, 82), 23: (256, 136), 24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8),
    28: (1, 8), 29: (256, 56), 30: (1, 2), 34: (256, 54), 35: (256, 66), 39: (32, 17),
}  # fmt: skip

#: ggml tensor type: its name.
_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 10: "Q2_K",
    11: "Q3_K", 12: "Q4_K", 13: "Q5_K", 14: "Q6_K", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS",
    18: "IQ3_XXS", 19: "IQ1_S", 20: "IQ4_NL", 21: "IQ3_S", 22: "IQ2_S", 23: "IQ4_XS",
    28: "F64", 29: "IQ1_M", 30: "BF16", 34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4", 40: "NVFP4",
}  # fmt: skip
#: llama.cpp's file type (llama_ftype): its name.
_FILE_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K",
    11: "Q3_K_S", 12: "Q3_K_M", 13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S",
    17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS", 20: "IQ2_XS", 21: "Q2_K_S", 22: "IQ3_XS",
    23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S", 29: "IQ2_M",
    30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 36: "TQ1_0", 37: "TQ2_0", 38: "MXFP4_MOE", 39: "NVFP4",
}  # fmt: skip

Scalar = int | float | bool | str


@dataclass(frozen=True, slots=True)
class ModelFile:
    """What a model's header says, as far as it matters here.

    Attributes:
        parts: the files of the model: one, unless it was split.
        size: bytes of all parts together.
        architecture: `general.architecture`, empty where absent.
        name: `general.name`, or the file's own name.
        trained_context: tokens of context that the model was trained for, where the header has it.
        pooling: how embeddings are to be pooled (llama.cpp's number), where the header has it.
        quantisation: `general.file_type` by llama.cpp's name, such as Q4_K_M; where it is absent
            or new, the tensor type of most weights; empty where that is new, too.
        bytes_per_token: of context, in memory, at 16 bits; None where that is not so simple: where
            layers differ, remember only a part, or share.
    """

    parts: tuple[Path, ...]
    size: int
    architecture: str
    name: str
    trained_context: int | None
    pooling: int | None
    quantisation: str = ""
    bytes_per_token: int | None = None


def show_path(path: Path) -> str:
    """A path that is safe to print on one line."""
    text = str(path)
    return text if text.isprintable() else repr(text)


def read_model_file(path: Path) -> ModelFile:
    """Check that `path` is a GGUF model with all its bytes, and say what it holds.

    Raises:
        EngineError: it is missing, unreadable, not a regular file, not GGUF, of a version that
            llama.cpp does not read, malformed, or cut short. One line that names the file.
    """
    shown = show_path(path)
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # before open: opening a FIFO would wait
            kind = "a directory" if path.is_dir() else "not a regular file"
            raise EngineError(f"model file {shown} is {kind}; give the path of a .gguf file")
        with path.open("rb", buffering=1 << 20) as file:
            size = os.fstat(file.fileno()).st_size
            header = _Header(file, size, shown)
            found = header.read()
    except FileNotFoundError:
        raise EngineError(f"model file {shown} does not exist") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        why = getattr(error, "strerror", None) or error
        raise EngineError(f"model file {shown} cannot be read: {why}") from None
    architecture = str(found.get("general.architecture", ""))
    parts = _parts(path, found.get("split.count"))
    return ModelFile(
        parts=parts,
        size=size if len(parts) == 1 else sum(part.stat().st_size for part in parts),
        architecture=architecture,
        name=str(found.get("general.name", "")) or path.stem,
        trained_context=_positive(found.get(f"{architecture}.context_length")),
        pooling=_positive(found.get(f"{architecture}.pooling_type")),
        quantisation=_quantisation(found.get("general.file_type"), header.weights),
        bytes_per_token=_bytes_per_token(found, architecture, header.arrays),
    )


#: Where one of these is, not every layer remembers every token.
_PARTIAL = ("attention.sliding_window", "attention.kv_lora_rank", "attention.shared_kv_layers")


def _bytes_per_token(
    found: dict[str, Scalar], architecture: str, arrays: frozenset[str]
) -> int | None:
    """Of a plain transformer; see ModelFile."""

    def number(name: str) -> int | None:
        return _positive(found.get(f"{architecture}.{name}"))

    partial = any(f"{architecture}.{name}" in found.keys() | arrays for name in _PARTIAL)
    if partial or any(key.startswith(f"{architecture}.ssm.") for key in found):
        return None
    if f"{architecture}.attention.head_count_kv" in arrays:
        return None
    layers, heads, width = (
        number("block_count"),
        number("attention.head_count"),
        number("embedding_length"),
    )
    if layers is None or heads is None or width is None:
        return None
    kept = number("attention.head_count_kv") or heads
    key = number("attention.key_length") or width // heads
    value = number("attention.value_length") or width // heads
    return layers * kept * (key + value) * 2


def _quantisation(file_type: Scalar | None, weights: Counter[int]) -> str:
    name = _FILE_TYPES.get(file_type) if type(file_type) is int else None
    if name is None and weights:
        name = _TYPES.get(weights.most_common(1)[0][0])
    return name or ""


def _positive(value: Scalar | None) -> int | None:
    return value if isinstance(value, int) and value > 0 else None


def _parts(path: Path, count: Scalar | None) -> tuple[Path, ...]:
    match = re.fullmatch(r"(.*)-00001-of-(\d{5})\.gguf", path.name)
    if match is None or not isinstance(count, int) or count != int(match[2]) or count < 2:
        return (path,)
    parts = tuple(
        path.with_name(f"{match[1]}-{i:05}-of-{match[2]}.gguf") for i in range(1, count + 1)
    )
    for part in parts:
        if not part.is_file():
            raise EngineError(
                f"model file {show_path(path)} is split, and its part {part.name} is missing"
            )
    return parts


class _Header:
    """One pass over a header, with every length checked against what is left of the file."""

    def __init__(self, file: BinaryIO, size: int, shown: str) -> None:
        self._file = file
        self._size = size
        self._shown = shown
        self._strings_left = _MAX_STRINGS
        self.weights: Counter[int] = Counter()  # by tensor type
        self.arrays: frozenset[str] = frozenset()  # keys of what is not kept

    def read(self) -> dict[str, Scalar]:
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
        tensors = self._count(24, _MAX_TENSORS, "tensors")
        keys = self._count(13, _MAX_KEYS, "keys")
        found: dict[str, Scalar] = {}
        for _ in range(keys):
            key = self._text()
            value = self._value(int(self._scalar("<I")))
            if value is not None:
                found[key] = value
            else:
                self.arrays |= {key}
        self._check_extent(tensors, _positive(found.get("general.alignment")))
        if not tensors:
            raise EngineError(f"model file {self._shown} holds no tensors: it is not a whole model")
        return found

    def _check_extent(self, tensors: int, alignment: int | None) -> None:
        """Compare the file's size with where its last tensor ends."""
        extent = 0
        for _ in range(tensors):
            self._text()
            dims = int(self._scalar("<I"))
            if dims > _MAX_DIMS:
                raise self._malformed(f"a tensor of {dims} dimensions")
            elements = 1
            for _ in range(dims):
                elements *= int(self._scalar("<Q"))
            kind = int(self._scalar("<I"))
            self.weights[kind] += elements
            block, width = _BLOCKS.get(kind, (1, 0))
            extent = max(extent, int(self._scalar("<Q")) + elements // block * width)
        align = alignment or _DEFAULT_ALIGNMENT
        whole = -(-self._file.tell() // align) * align + extent
        if tensors and whole > self._size:
            raise EngineError(
                f"model file {self._shown} is truncated: {self._size:,} of {whole:,} bytes;"
                " download it again"
            )

    def _value(self, kind: int) -> Scalar | None:
        """Read a value; only scalars and short texts are kept."""
        if kind == _STRING:
            return self._text()
        if kind != _ARRAY:
            return self._scalar(self._format(kind))
        kind = int(self._scalar("<I"))
        if kind == _STRING:
            count = self._count(8, self._strings_left, "strings")
            self._strings_left -= count
            for _ in range(count):
                self._skip(int(self._scalar("<Q")))
        else:
            width = struct.calcsize(self._format(kind))
            self._skip(int(self._scalar("<Q")) * width)
        return None

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
