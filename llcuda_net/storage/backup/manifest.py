"""backup.json: what a backup holds, with a checksum of each file and of itself."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

import msgspec

from llcuda_net.errors import NewerFormat, StorageError
from llcuda_net.util.version import package_version

NAME = "backup.json"
#: The folder beside it that is the data directory.
DATA = "data"
#: Of the file, and of what a backup is.
FORMAT = 1
_BLOCK = 1 << 20
#: Told of bytes that were read or written.
Done = Callable[[int], None]


class Copied(msgspec.Struct):
    """A file of a backup: its path in the data directory, its size in bytes, its SHA-256 in hex."""

    path: str
    bytes: int
    sha256: str


class Manifest(msgspec.Struct, kw_only=True):
    """What a backup holds.

    Attributes:
        llcuda: the version of the program that made it.
        created: when its contents were as they are, in UTC.
        server: the address of the server that used the directory; None: none did.
        results: how many there are; None: they are not in the directory.
        running: generations that go on where it is restored.
        versions: of each database, by its name and folder.
        sha256: of all the rest.
    """

    format: int = FORMAT
    llcuda: str = ""
    created: str = ""
    server: str | None = None
    results: int | None = None
    running: int = 0
    versions: dict[str, int] = {}
    files: list[Copied] = []
    sha256: str = ""

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.bytes for file in self.files)

    def _hash(self) -> str:
        fields = {**msgspec.structs.asdict(self), "sha256": ""}
        return hashlib.sha256(msgspec.json.encode(fields, order="deterministic")).hexdigest()

    def encode(self) -> bytes:
        """The bytes of the file."""
        self.sha256 = self._hash()
        return msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n"

    @classmethod
    def read(cls, backup: Path) -> Manifest:
        """That of a backup.

        Raises:
            NewerFormat: it is of a format that this program does not know.
            StorageError: there is none, or it is damaged.
        """
        path = backup / NAME
        try:
            data = path.read_bytes()
        except OSError as error:
            raise StorageError(
                f"{backup} is no backup: {path} cannot be read ({error.strerror or error})",
                StorageError.REFUSED,
            ) from error
        try:
            head = msgspec.json.decode(data, type=_Head)
            if head.format > FORMAT:
                wrote = f"llcuda {head.llcuda}" if head.llcuda else "a newer llcuda"
                raise NewerFormat(
                    str(backup), head.format, FORMAT, wrote=wrote, ours=package_version()
                )
            found = msgspec.json.decode(data, type=cls)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise _damaged(path) from error
        if found.sha256 != found._hash() or not all(map(_is_below, found.files)):
            raise _damaged(path)
        return found


class _Head(msgspec.Struct):
    """What a manifest has in every format."""

    format: int
    llcuda: str = ""


def _is_below(file: Copied) -> bool:
    path = PurePosixPath(file.path)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts


def _damaged(path: Path) -> StorageError:
    return StorageError(f"{path} is damaged: this backup cannot be trusted", StorageError.DAMAGED)


def problems(backup: Path, manifest: Manifest, done: Done = lambda _: None) -> Iterator[str]:
    """What is wrong with the files of a backup, one line each.

    Args:
        done: told of the bytes that were read.
    """
    for file in manifest.files:
        path = backup / DATA / file.path
        try:
            size, found = checksum(path, done)
        except OSError as error:
            yield f"{file.path} cannot be read ({error.strerror or error})"
            continue
        if (size, found) != (file.bytes, file.sha256):
            yield f"{file.path} is not what was backed up"


def checksum(path: Path, done: Done = lambda _: None) -> tuple[int, str]:
    """The size of a file and its SHA-256 in hex.

    Raises:
        OSError: it cannot be read.
    """
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
            size += len(block)
            done(len(block))
    return size, digest.hexdigest()


def copy(source: Path, target: Path, done: Done = lambda _: None) -> tuple[int, str]:
    """Copy a file into a new one that only its owner can read: its size and SHA-256.

    Raises:
        OSError: it cannot be read or written.
    """
    digest, size = hashlib.sha256(), 0
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with source.open("rb") as from_, os.fdopen(os.open(target, flags, 0o600), "wb") as to:
        while block := from_.read(_BLOCK):
            to.write(block)
            digest.update(block)
            size += len(block)
            done(len(block))
        to.flush()
        os.fsync(to.fileno())
    return size, digest.hexdigest()
