"""Where a model is while it is pulled, and how it becomes one of the folder: whole, or not at all.

The models folder has a hidden folder `.pull`. In it are a folder per source that is being pulled,
locked by the process that pulls, and `NAME.json` per model that was pulled: from where, and which
bytes. A source's folder survives Ctrl-C and `kill -9`, so that the next pull goes on there.

A model of one file becomes NAME.gguf; one of several (split, or with a projector) becomes a folder
NAME with its files, as llama-server's `--models-dir` has them. Either appears by one rename, after
all of it is on the disk.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from llcuda_net.errors import EngineError, PullError
from llcuda_net.models.files.folder import make_folder
from llcuda_net.models.pull.choice import is_projector, stem_of
from llcuda_net.upstream.model.gguf import read_model_file

#: The hidden folder.
HIDDEN = ".pull"
#: In a source's folder: the files of a model that is about to appear.
READY = "ready"
#: How names of files there end that are not yet whole, and that are whole and checked.
PARTIAL, WHOLE = ".partial", ".whole"
#: Bytes that a disk must have free beyond what is pulled.
MARGIN = 64 << 20
#: Most bytes of a file's name; file systems have 255, and some endings are ours.
_MOST_NAME = 200

#: Called while bytes come: what is being done, how many are there, of how many (None: unknown).
Report = Callable[[str, int, int | None], None]


@dataclass(frozen=True, slots=True)
class Pulled:
    """A model that was pulled.

    Attributes:
        name: by which it can be used.
        file: its GGUF file, the first one if it was split.
        projector: its file for images and sound (mmproj), if it has one.
        size: bytes of all its files.
        source: the reference.
        revision: of the repository, or version of the package.
        license: as the source states it; empty where it does not.
        fresh: whether it came just now; False: it was there.
    """

    name: str
    file: Path
    projector: Path | None
    size: int
    source: str
    revision: str
    license: str
    fresh: bool


@dataclass(frozen=True, slots=True)
class Part:
    """A file of a model, as its source describes it.

    Attributes:
        origin: its path in the repository or wheel.
        size: bytes.
        checksum: "sha256:" and the hash of its bytes in hexadecimal; or "git:" and the SHA-1 by
            which Git has them, which is what sources state for small files.
    """

    origin: str
    size: int
    checksum: str

    @property
    def name(self) -> str:
        """Its name in the models folder; that of a projector begins as llama-server expects it."""
        name = self.origin.rpartition("/")[2]
        return (
            f"mmproj-{name}"
            if is_projector(name) and not name.lower().startswith("mmproj")
            else name
        )


class Staging:
    """The folder of one source, while this process pulls it.

    Attributes:
        folder: the models folder.
        path: the source's own folder in it, for its partial files.
    """

    def __init__(self, folder: Path, path: Path) -> None:
        self.folder = folder
        self.path = path

    def __repr__(self) -> str:
        return f"<Staging {self.path}>"

    def need(self, size: int) -> None:
        """Refuse what does not fit on the disk.

        Raises:
            PullError: fewer than `size` bytes, and a margin, are free.
        """
        free = shutil.disk_usage(self.path).free
        if free < size + MARGIN:
            raise PullError(
                f"{self.folder} has {size_text(free)} free, and {size_text(size)} are needed:"
                " make room, or give another folder with --models DIR"
            )

    def install(
        self,
        parts: Sequence[Part],
        paths: Sequence[Path],
        source: str,
        revision: str,
        license_: str,
        together: int = 1,
    ) -> Pulled:
        """Make a model of files that are whole.

        Args:
            parts: its files, the first part of the model before all others.
            paths: where each is, in the source's own folder; they are moved.
            together: how many models the source has in all.

        Raises:
            PullError: another model has its name, or it is none that can be read.
            OSError: the disk refuses.
        """
        name = stem_of(parts[0].name)
        single = len(parts) == 1
        target = self.folder / (f"{name}.gguf" if single else name)
        if there := occupied(self.folder, parts, source):
            return there
        for path in paths:
            _sync(path)
        ready = self.path / READY
        shutil.rmtree(ready, ignore_errors=True)
        ready.mkdir()
        for part, path in zip(parts, paths, strict=True):
            path.rename(ready / part.name)
        try:
            read_model_file(ready / parts[0].name)
        except EngineError as error:
            shutil.rmtree(ready)
            raise PullError(f"{source} was pulled, and is of no use: {error}") from None
        _sync(ready)
        record = {
            "source": source,
            "revision": revision,
            "license": license_,
            "models": together,
            "files": _files(parts),
        }
        # The record comes first: without its model it says nothing, and a model without its record
        # would be in the way of the next pull.
        _write(record_of(self.folder, name), record)
        (ready / parts[0].name if single else ready).rename(target)
        _sync(self.folder)
        return replace(_pulled(self.folder, name, record), fresh=True)


@contextlib.contextmanager
def staging(folder: Path, source: str) -> Iterator[Staging]:
    """Make the models folder and the source's own folder, and lock that.

    It is taken away at the end where nothing is in it from which a pull could go on.

    Raises:
        PullError: it cannot be made, or another process pulls this source.
    """
    path = _place(folder, source)
    try:
        make_folder(folder)
        lock = _lock(path)
    except OSError as error:
        raise PullError(f"the models folder {folder} cannot be written: {error.strerror}") from None
    if lock is None:
        raise PullError(f"another process is pulling {source} into {folder} now")
    try:
        yield Staging(folder, path)
    finally:
        _tidy(path)
        os.close(lock)


def _lock(path: Path) -> int | None:
    """The locked lock of a source's own folder, which is made; None: another process has it."""
    while True:
        path.mkdir(parents=True, exist_ok=True)
        try:
            lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except FileNotFoundError:  # whoever had it has just tidied up
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(lock), (path / "lock").stat()):
                return lock
        except BlockingIOError:
            os.close(lock)
            return None
        except FileNotFoundError:
            pass
        except BaseException:
            os.close(lock)
            raise
        os.close(lock)  # of a file that is gone: whoever comes next makes another one


def kept(folder: Path, source: str) -> int:
    """How many bytes are there of what is not yet whole."""
    with contextlib.suppress(OSError):
        return sum(
            entry.stat().st_size
            for entry in _place(folder, source).iterdir()
            if entry.suffix in (PARTIAL, WHOLE)
        )
    return 0


def _place(folder: Path, source: str) -> Path:
    """A source's own folder."""
    name = re.sub(r"[^A-Za-z0-9._=@+-]", "--", source.replace(":", "-", 1))
    if len(name) > _MOST_NAME:
        name = f"{name[:100]}-{hashlib.sha256(source.encode()).hexdigest()[:32]}"
    return folder / HIDDEN / name


def _tidy(path: Path) -> None:
    with contextlib.suppress(OSError):
        shutil.rmtree(path / READY, ignore_errors=True)
        for entry in path.iterdir():
            if entry.name != "lock" and entry.is_file() and not entry.stat().st_size:
                entry.unlink()
        if [entry.name for entry in path.iterdir()] == ["lock"]:
            (path / "lock").unlink()
            path.rmdir()


def record_of(folder: Path, name: str) -> Path:
    """The file that says from where a model was pulled."""
    return folder / HIDDEN / f"{name}.json"


def recorded(folder: Path, source: str) -> list[Pulled]:
    """The models that were pulled from a source; none unless all files of all of them are there.

    A package without a version is there if any of its versions is.
    """
    found, models = [], 0
    for path in sorted((folder / HIDDEN).glob("*.json")):
        # A record that is damaged, or of another version, is as none.
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
            record = json.loads(path.read_bytes())
            if _is_from(record["source"], source) and _whole(folder, record["files"]):
                found.append(_pulled(folder, path.stem, record))
                models = record["models"]
    return found if len(found) >= models else []


def _is_from(recorded_: str, source: str) -> bool:
    return recorded_ == source or (
        source.startswith("pypi:") and "==" not in source and recorded_.startswith(f"{source}==")
    )


def occupied(folder: Path, parts: Sequence[Part], source: str) -> Pulled | None:
    """The model that these files make, where it is there by the same bytes of another source.

    Raises:
        PullError: another model has its name, or the name of a file cannot be used.
    """
    name = stem_of(parts[0].name)
    for part in parts:
        long = len(part.name.encode("utf-8", "surrogateescape")) > _MOST_NAME
        if long or part.name.startswith(".") or not part.name.isprintable():
            raise PullError(f"{source} has a file whose name cannot be used here: {part.origin!r}")
    for target in (folder / f"{name}.gguf", folder / name):
        if target.exists() or target.is_symlink():
            with contextlib.suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
                record = json.loads(record_of(folder, name).read_bytes())
                if record["files"] == _files(parts) and _whole(folder, record["files"]):
                    return _pulled(folder, name, record)
            raise PullError(
                f"{target} is there already, and not as {source} has it: `llcuda models rm {name}`"
                " first, or give another folder with --models DIR"
            )
    return None


def _files(parts: Sequence[Part]) -> dict[str, Any]:
    """By their paths in the models folder."""
    within = f"{stem_of(parts[0].name)}/" if len(parts) > 1 else ""
    return {
        f"{within}{part.name}": {"bytes": part.size, "checksum": part.checksum} for part in parts
    }


def _whole(folder: Path, files: dict[str, Any]) -> bool:
    return bool(files) and all(
        (folder / name).is_file() and (folder / name).stat().st_size == has["bytes"]
        for name, has in files.items()
    )


def _pulled(folder: Path, name: str, record: dict[str, Any]) -> Pulled:
    names = list(record["files"])
    projectors = [n for n in names if n.rpartition("/")[2].lower().startswith("mmproj")]
    return Pulled(
        name=name,
        file=folder / names[0],
        projector=folder / projectors[0] if projectors and projectors[0] != names[0] else None,
        size=sum(has["bytes"] for has in record["files"].values()),
        source=record["source"],
        revision=str(record["revision"]),
        license=str(record["license"]),
        fresh=False,
    )


def _write(path: Path, record: dict[str, Any]) -> None:
    beside = path.with_name(path.name + ".new")
    beside.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    _sync(beside)
    beside.rename(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def size_text(count: int) -> str:
    """A size for people."""
    return f"{count / 10**9:.1f} GB" if count >= 10**9 else f"{count / 10**6:.0f} MB"
