"""The last steps before a document is written: what is personal is taken out, then its digest."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llcuda_net.bench.record.canonical import DIGEST, digest
from llcuda_net.bench.record.privacy import Scrubber, host_of, is_local
from llcuda_net.errors import EngineError
from llcuda_net.upstream.model.gguf import read_model_file

#: Bytes of a model's file that is hashed after a run: at some GB/s that is half a minute.
MOST_HASHED = 32 << 30
_BLOCK = 4 << 20


def seal(document: dict[str, Any]) -> None:
    """Make a document ready to be shown to others: in place, once, after the run.

    A model's file that lies here is hashed first, while it is known where it is.
    """
    for about in abouts(document):
        _hash(about["facts"], here=is_local(host_of(about["address"])))
    scrubber = Scrubber(hosts(document))
    command = document.pop("command")
    clean = scrubber.value(document)
    document.clear()
    document.update(clean)
    document["command"] = scrubber.command(command)
    document["served_here"] = _served_here(document)
    document[DIGEST] = digest(document)


def abouts(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What is said of each server that was asked."""
    for summary in document.get("paths", {}).values():
        yield summary["about"]
    if document.get("about"):
        yield document["about"]
    for row in document.get("rows", ()):
        for one in row["each"]:
            if one.get("about"):
                one["about"].setdefault("address", one.get("server", ""))
                yield one["about"]


def hosts(document: dict[str, Any]) -> list[str]:
    """The names of all machines that occur, in order."""
    found = [host_of(about.get("address", "")) for about in abouts(document)]
    for row in document.get("rows", ()):
        found += [one["host"] for one in row["each"] if one.get("host")]
    return list(dict.fromkeys(each for each in found if each))


def _served_here(document: dict[str, Any]) -> bool | None:
    """Whether all that was asked runs on the computer that `machine` describes."""
    addresses = [host_of(about.get("address", "")) for about in abouts(document)]
    return all(map(is_local, addresses)) if addresses else None


def _hash(told: dict[str, Any], *, here: bool) -> None:
    """Fill in the SHA-256 and the size of a model's file, where it lies on this machine."""
    model, unknown = told["model"], told["unknown"]
    path = model["file"] or ""
    if model["sha256"] is not None:
        return
    if not here or not path.startswith("/"):
        if path:
            unknown["model.sha256"] = "its file is not on the machine that measured"
        return
    found = _of_file(Path(path))
    if isinstance(found, str) and len(found) == hashlib.sha256().digest_size * 2:
        model["sha256"] = found
        del unknown["model.sha256"]
    else:
        unknown["model.sha256"] = found


def _of_file(path: Path) -> str:
    """The hash of a model's file, all parts of it; or why there is none."""
    digests = hashlib.sha256()
    try:
        file = read_model_file(path)
        if file.size > MOST_HASHED:
            return f"its file is over {MOST_HASHED >> 30} GiB, and was not hashed"
        before = [part.stat().st_mtime_ns for part in file.parts]
        for part in file.parts:
            with part.open("rb", buffering=0) as source:
                while data := source.read(_BLOCK):
                    digests.update(data)
        if before != [part.stat().st_mtime_ns for part in file.parts]:
            return "its file was changed while it was read"
    except (EngineError, OSError):
        return "its file cannot be read here"
    return digests.hexdigest()
