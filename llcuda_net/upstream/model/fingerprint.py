"""Which model an upstream has: enough to know whether what is continued or repeated is the same.

A fingerprint is a map of what is known: `name`, `build` (of the upstream's software) and `context`
(tokens per slot) from the upstream itself, and where its file can be read here also `hash` (SHA-256
in hexadecimal, of all parts of a split model in their order), `size` (bytes) and `quantisation`.

Hashing takes seconds per gigabyte, so it is done in a thread, and nobody waits for it: until it is
computed, there is no hash. Hashes are cached in a small file, under the model file's path, size,
time of change and inode.
"""

from __future__ import annotations

import contextlib
import hashlib
import ipaddress
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import structlog
import trio

from llcuda_net.errors import EngineError
from llcuda_net.upstream.interface import Properties, Upstream
from llcuda_net.upstream.model.gguf import ModelFile, read_model_file

log = structlog.get_logger(__name__)

#: The file of hashes, in the data directory, and how many it holds.
CACHE = "models.json"
_MAX_CACHED = 64
_BLOCK = 4 << 20
#: llama.cpp's descriptions of file types, where they are not the names that everybody uses.
_SIZES = {" - Small": "_S", " - Medium": "_M", " - Large": "_L"}


def plain_fingerprint(properties: Properties | None) -> dict[str, Any]:
    """What an upstream reports of its model; empty where it has not been asked."""
    if properties is None:
        return {}
    out: dict[str, Any] = {
        "name": properties.model,
        "build": properties.build,
        "context": properties.context,
    }
    if properties.quantisation:
        out["quantisation"] = _short_name(properties.quantisation)
    return out


def same_model(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Whether two fingerprints are of one model, as far as they show.

    By their hashes where both have one; else by name, and by size and quantisation as far as both
    have them.
    """
    if a.get("hash") and b.get("hash"):
        return bool(a["hash"] == b["hash"])
    if not a.get("name") or a["name"] != b.get("name"):
        return False
    return all(a[key] == b[key] for key in ("size", "quantisation") if key in a and key in b)


class ReportedFingerprint:
    """The fingerprint of which nothing is known but what the upstream reports."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream

    def __call__(self) -> dict[str, Any]:
        """What is known now."""
        return plain_fingerprint(self._upstream.properties)

    async def settled(self) -> None:
        """Return when nothing more will be known."""
        await trio.lowlevel.checkpoint()


def file_of(model: dict[str, Any], folder: Path) -> Path | None:
    """The file of a fingerprint's model, among those whose hashes are cached in a folder."""
    wanted = model.get("hash")
    for key, value in _cached(folder).items():
        path = Path(key.partition("\n")[0].rsplit(" ", 3)[0])
        if value == wanted:
            with contextlib.suppress(EngineError, OSError):
                if _key(read_model_file(path)) == key:
                    return path
    return None


def hash_of_file(path: Path) -> str:
    """The hash in the fingerprint of a small model's file. Raises EngineError, OSError."""
    digest = hashlib.sha256()
    for part in read_model_file(path).parts:
        digest.update(part.read_bytes())
    return digest.hexdigest()


def _short_name(description: str) -> str:
    """Q4_K_M for llama.cpp's "Q4_K - Medium", and its like."""
    name = description.removeprefix("(guessed) ").removeprefix("all ")
    for long, short in _SIZES.items():
        name = name.replace(long, short)
    return name


@dataclass(frozen=True)
class _Facts:
    """What is known of a file; `key` is the same as long as the file is."""

    key: str
    model: ModelFile
    hash: str | None = None


class Fingerprint:
    """The fingerprint of an upstream's model, to be called at any time: `fingerprint()`.

    Args:
        upstream: whose.
        folder: where hashes are cached; None: nowhere.
        model: the model's file, where it is known; else the path that the upstream reports, if it
            is on this machine.
    """

    def __init__(self, upstream: Upstream, folder: Path | None, model: Path | None = None) -> None:
        self._upstream = upstream
        self._folder = folder
        self._model = model
        self._seen: Properties | None = None
        self._facts: _Facts | None = None
        self._hashes: dict[str, str] = {}  # by key
        self._news = trio.Event()
        self._news.set()
        self._running = False
        self._settled = trio.Event()
        self._settled.set()

    async def settled(self) -> None:
        """Return when nothing more will be known of the model that the upstream has now."""
        self()
        await self._settled.wait()

    def __call__(self) -> dict[str, Any]:
        """What is known now; never waits."""
        properties = self._upstream.properties
        if properties is not None and properties is not self._seen:
            # It was asked again, since it had gone: it may have come back with another file.
            if self._seen is not None:
                self._facts = None
            self._seen = properties
            self._news.set()
            if self._running and self._settled.is_set():
                self._settled = trio.Event()
        out = plain_fingerprint(self._seen)
        facts = self._facts
        if out and facts is not None:
            out["size"] = facts.model.size
            if facts.model.quantisation:
                out["quantisation"] = facts.model.quantisation
            if facts.hash is not None:
                out["hash"] = facts.hash
        return out

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Look at the file, and again whenever it may be another one; until cancelled."""
        self._running = True
        if self._settled.is_set():
            self._settled = trio.Event()
        task_status.started()
        while True:
            await self._news.wait()
            self._news = trio.Event()
            self()
            path = self._path()
            if path is not None:
                await self._look(path, self._seen)
            if not self._news.is_set():
                self._settled.set()

    def _path(self) -> Path | None:
        if self._model is not None:
            return self._model
        reported = self._seen.path if self._seen is not None else ""
        # A relative path is relative to a folder that we do not know.
        if reported.startswith("/") and _is_here(self._upstream.base_url):
            return Path(reported)
        return None

    async def _look(self, path: Path, seen: Properties | None) -> None:
        try:
            facts = await trio.to_thread.run_sync(_facts_of, path)
            if facts.key not in self._hashes:
                if self._seen is seen:
                    self._facts = facts
                found = await trio.to_thread.run_sync(_hash_of, facts, self._folder)
                if found is None:
                    self._facts = None
                    return
                self._hashes = {facts.key: found}
            if self._seen is seen:
                self._facts = replace(facts, hash=self._hashes[facts.key])
        except (EngineError, OSError) as error:
            log.info("model_file_not_read", reason=str(error))


def _is_here(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


# -- in threads ---------------------------------------------------------------------------------


def _facts_of(path: Path) -> _Facts:
    model = read_model_file(path)
    return _Facts(_key(model), model)


def _key(model: ModelFile) -> str:
    parts = []
    for part in model.parts:
        found = part.stat()
        parts.append(f"{part.resolve()} {found.st_size} {found.st_mtime_ns} {found.st_ino}")
    return "\n".join(parts)


def _hash_of(facts: _Facts, folder: Path | None) -> str | None:
    """The file's hash; None if the file was changed meanwhile."""
    if folder is not None and (known := _cached(folder).get(facts.key)):
        return known
    found = _computed(facts)
    if _key(facts.model) != facts.key:
        return None
    if folder is not None:
        _keep(folder, facts.key, found)
    return found


def _computed(facts: _Facts) -> str:
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(_BLOCK))
    for part in facts.model.parts:
        with part.open("rb", buffering=0) as file:
            while read := file.readinto(buffer):
                trio.from_thread.check_cancelled()
                digest.update(buffer[:read])
    return digest.hexdigest()


def _cached(folder: Path) -> dict[str, str]:
    """The cached hashes, oldest first; none where the file is missing or damaged."""
    try:
        found = msgspec.json.decode((folder / CACHE).read_bytes(), type=dict[str, str])
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return {}
    return {key: value for key, value in found.items() if re.fullmatch("[0-9a-f]{64}", value)}


def _keep(folder: Path, key: str, value: str) -> None:
    known = _cached(folder)
    known.pop(key, None)
    known[key] = value
    kept = dict(list(known.items())[-_MAX_CACHED:])
    fresh = folder / f"{CACHE}.new"
    with contextlib.suppress(OSError, UnicodeEncodeError):  # it is only a cache
        fresh.unlink(missing_ok=True)
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.encode(kept))
        fresh.replace(folder / CACHE)
