"""GGUF files of a few hundred bytes, with a header that says what a test needs."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

Value = int | float | bool | str | list[int] | list[str]
#: Name and how many weights of type F32.
Tensors = Mapping[str, int]

LLAMA: dict[str, Value] = {
    "general.architecture": "llama",
    "general.file_type": 15,
    "llama.block_count": 2,
    "llama.context_length": 4096,
    "llama.embedding_length": 64,
    "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": 2,
    "llama.vocab_size": 300,
}


def write_gguf(
    path: Path, values: Mapping[str, Value] | None = None, tensors: Tensors | None = None
) -> Path:
    """Write a file with these keys (default: LLAMA) and tensors of zeros; return `path`."""
    values = LLAMA if values is None else values
    tensors = {"token_embd.weight": 8, "blk.0.w": 8, "blk.1.w": 8} if tensors is None else tensors
    data = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(values))
    for key, value in values.items():
        data += _text(key) + _value(value)
    offset = 0
    for name, count in tensors.items():
        data += _text(name) + struct.pack("<IQIQ", 1, count, 0, offset)
        offset += -(-count * 4 // 32) * 32
    data += bytes(-len(data) % 32)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(data)
        file.truncate(len(data) + offset)  # zeros that take no space
    return path


def write_split(folder: Path, name: str, count: int) -> list[Path]:
    """Write a model in parts; return their paths."""
    out = []
    for number in range(1, count + 1):
        keys: dict[str, Value] = {**LLAMA, "split.count": count} if number == 1 else {}
        path = folder / f"{name}-{number:05}-of-{count:05}.gguf"
        out.append(write_gguf(path, keys, {f"blk.{number - 1}.w": 8}))
    return out


def _text(value: str) -> bytes:
    encoded = value.encode()
    return struct.pack("<Q", len(encoded)) + encoded


def _value(value: Value) -> bytes:
    if isinstance(value, bool):
        return struct.pack("<I?", 7, value)
    if isinstance(value, int):
        return struct.pack("<II", 4, value) if 0 <= value < 2**32 else struct.pack("<Iq", 11, value)
    if isinstance(value, float):
        return struct.pack("<If", 6, value)
    if isinstance(value, str):
        return struct.pack("<I", 8) + _text(value)
    if value and isinstance(value[0], str):
        return struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(_text, map(str, value)))
    numbers = [int(number) for number in value]
    return struct.pack(f"<IIQ{len(numbers)}I", 9, 4, len(numbers), *numbers)
