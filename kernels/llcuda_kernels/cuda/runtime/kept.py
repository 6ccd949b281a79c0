"""Compiled kernels kept on the disk, so that no process compiles what another has compiled.

A file is the machine code of one kernel for one architecture. It is named by a hash of all that the
code was made of: the source of this whole library, the kernel's name, signature and bounds, the
architecture, and the versions of the compilers. So nothing is ever out of date, only unused.

1. A file holds a hash of itself. One that is torn, changed or another's is ignored, then replaced.
2. Files are written beside and renamed, so that who reads sees a whole one or none.
3. They are code: the folder is the user's alone (0700), and one that others could write to is left.
4. What was not used for longest goes when all take more than `MOST_BYTES`.
5. No trouble with the disk is an error: the kernel is compiled, as if nothing were kept.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import os
import stat
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple, Protocol

log = logging.getLogger(__name__)

#: Some forty versions of this library's kernels for one architecture.
MOST_BYTES = 64 << 20
_MAGIC = b"llcuda kernel 1"
_DAY = 86400.0
_NEW = ".new-"
#: What else changes the code that Numba makes.
_SETTINGS = (
    "NUMBA_CUDA_",
    "NUMBA_OPT",
    "NUMBA_DEBUG",
    "NUMBA_BOUNDSCHECK",
    "NUMBA_LOOP",
    "NUMBA_SLP",
)


class Source(Protocol):
    """What code is made of: a `kernel.Kernel`."""

    name: str
    function: Any
    signature: list[Any]
    bounds: Any

    def ptx(self, cc: tuple[int, int]) -> str:
        """The PTX for a compute capability."""


class Code(NamedTuple):
    """A compiled kernel: the name it is found by, and a cubin (or PTX, which is never kept)."""

    entry: str
    data: bytes

    @property
    def assembled(self) -> bool:
        """Whether it is a cubin."""
        return self.data[:4] == b"\x7fELF"


def folder() -> Path:
    """Where they are kept: ``$XDG_CACHE_HOME/llcuda/cubins``, or below ``~/.cache``."""
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    root = named if named.is_absolute() else Path.home() / ".cache"
    return root / "llcuda" / "cubins"


def key(kernel: Source, cc: tuple[int, int], compilers: str) -> str:
    """What a kernel for an architecture is kept under. Raises OSError where there is no source."""
    settings = [f"{k}={v}" for k, v in sorted(os.environ.items()) if k.startswith(_SETTINGS)]
    parts = [
        _source(),
        f"{kernel.function.__module__}.{kernel.name}",
        repr(kernel.signature),
        repr(kernel.bounds),
        repr(cc),
        compilers,
        *settings,
    ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


@functools.cache
def _source() -> str:
    """The hash of this library's source, all of it: that is simple, and takes some 4 ms."""
    root = Path(__file__).parents[2]
    found = hashlib.sha256()
    paths = sorted(root.rglob("*.py"))
    if not paths:
        raise FileNotFoundError(f"no source in {root}")
    for path in paths:
        found.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes() + b"\0")
    return found.hexdigest()


def get(name: str) -> Code | None:
    """What is kept under a key, or None."""
    where = _private()
    if where is None:
        return None
    path = where / name
    try:
        code = _unpack(path.read_bytes(), name)
        if code is not None and path.stat().st_mtime < time.time() - _DAY:
            os.utime(path)  # it is in use
    except FileNotFoundError:
        return None
    except OSError as error:
        _say(error)
        return None
    if code is None:
        log.debug("ignored, since it is damaged: %s", path)
    return code


def put(name: str, code: Code) -> None:
    """Keep a cubin."""
    where = _private(make=True)
    if where is None:
        return
    try:
        handle, new = tempfile.mkstemp(dir=where, prefix=_NEW)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(_pack(code, name))
            Path(new).replace(where / name)
        except BaseException:
            Path(new).unlink(missing_ok=True)
            raise
        _bound(where)
    except OSError as error:
        _say(error)


class Total(NamedTuple):
    """What is kept: how many kernels, and their bytes."""

    kernels: int
    bytes: int


def total() -> Total:
    """Of all versions and architectures."""
    where = _private()
    sizes: list[int] = []
    with contextlib.suppress(OSError):
        sizes = [] if where is None else [size for _, size, path in _files(where) if _whole(path)]
    return Total(len(sizes), sum(sizes))


def _pack(code: Code, name: str) -> bytes:
    body = b"\n".join([name.encode(), code.entry.encode(), code.data])
    return b"\n".join([_MAGIC, hashlib.sha256(body).hexdigest().encode(), body])


def _unpack(text: bytes, name: str) -> Code | None:
    magic, _, rest = text.partition(b"\n")
    digest, _, body = rest.partition(b"\n")
    if magic != _MAGIC or hashlib.sha256(body).hexdigest().encode() != digest:
        return None
    own, _, rest = body.partition(b"\n")
    entry, _, data = rest.partition(b"\n")
    return Code(entry.decode(), data) if own == name.encode() else None


def _private(*, make: bool = False) -> Path | None:
    """The folder, if it is there and nobody else may write to it."""
    try:
        where = folder()
        if make:
            where.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = where.stat()
    except FileNotFoundError:
        return None
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no home directory
        _say(error)
        return None
    if os.name == "posix" and (found.st_uid != os.geteuid() or found.st_mode & 0o022):
        _say(f"{where} is another user's, or others may write to it")
        return None
    return where


def _files(where: Path) -> list[tuple[float, int, Path]]:
    """Each file, oldest use first, and its size."""
    found = []
    for path in where.iterdir():
        with contextlib.suppress(FileNotFoundError):  # another process bounds it, too
            status = path.stat()
            if stat.S_ISREG(status.st_mode):
                found.append((status.st_mtime, status.st_size, path))
    return sorted(found)


def _whole(path: Path) -> bool:
    return not path.name.startswith(_NEW)


def _bound(where: Path) -> None:
    """Remove what was not used for longest, and what a process that died has left."""
    files = _files(where)
    size = sum(size for _, size, _ in files)
    for used, each, path in files:
        torn = not _whole(path) and used < time.time() - _DAY
        if torn or size > MOST_BYTES:
            path.unlink(missing_ok=True)
            size -= each


@functools.cache
def _once(why: str) -> None:
    log.debug("compiled kernels are not kept: %s", why)


def _say(error: object) -> None:
    _once(str(error))
