"""Manifests in which Ollama and llama.cpp note what their files are."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from llcuda_net.models.files.local_file import LocalFile, look
from llcuda_net.upstream.model.gguf import Kind

_MOST_BYTES = 1 << 20
_MOST_MANIFESTS = 10_000
#: Ollama's: HOST/OWNER/MODEL/TAG; names of other hosts' repositories may have one part more.
_DEPTHS = (4, 5)
_LAYER = "application/vnd.ollama.image."
_HOST, _OWNER = "registry.ollama.ai", "library"


def ollama_models(folder: Path, source: str) -> Iterator[LocalFile]:
    """The models of Ollama's folder, by the names that `ollama list` shows."""
    manifests = folder / "manifests"
    for path in _files(manifests, max(_DEPTHS)):
        parts = path.relative_to(manifests).parts
        if len(parts) not in _DEPTHS or any(part.startswith(".") for part in parts):
            continue
        layers = _layers(_json_object(path))
        if "model" not in layers:  # none of a GGUF file: it runs elsewhere, or is damaged
            continue
        name = _ollama_name(parts)
        blob = _blob(folder, layers["model"])
        if blob is None:
            yield LocalFile(name, path, source, problem="its manifest names no file of a model")
            continue
        file = look(blob, name, source)
        if file.kind is not None and file.kind not in (Kind.CHAT, Kind.EMBEDDINGS, Kind.RERANK):
            continue
        projector = _blob(folder, layers["projector"]) if "projector" in layers else None
        note = "it has an adapter in Ollama, which is not used here" if "adapter" in layers else ""
        yield replace(file, mmproj=projector, note=note)


def llama_cache_names(folder: Path) -> dict[str, str]:
    """The models of llama.cpp's cache by the names of their files: OWNER/REPO:TAG."""
    found: dict[str, str] = {}
    try:
        names = sorted(path.name for path in folder.iterdir())
    except (OSError, ValueError):
        return {}
    for name in names[:_MOST_MANIFESTS]:
        match = re.fullmatch(r"manifest=([^=]+)=([^=]+)=([^=]+)\.json", name)
        if match is None:
            continue
        owner, repository, tag = match.groups()
        gguf = _json_object(folder / name).get("ggufFile")
        file = gguf.get("rfilename") if isinstance(gguf, dict) else None
        if isinstance(file, str):
            cached = f"{owner}_{repository}_{file.replace('/', '_')}"
            found.setdefault(cached, f"{owner}/{repository}:{tag}")
    return found


def _ollama_name(parts: tuple[str, ...]) -> str:
    *names, tag = parts
    if names[0] == _HOST:
        names = names[2:] if names[1] == _OWNER else names[1:]
    return f"{'/'.join(names)}:{tag}"


def _layers(manifest: dict[str, Any]) -> dict[str, str]:
    """Digests by what they are of: model, projector, adapter."""
    layers = manifest.get("layers")
    found: dict[str, str] = {}
    for layer in layers if isinstance(layers, list) else []:
        kind = layer.get("mediaType") if isinstance(layer, dict) else None
        digest = layer.get("digest") if isinstance(layer, dict) else None
        if isinstance(kind, str) and kind.startswith(_LAYER) and isinstance(digest, str):
            found.setdefault(kind.removeprefix(_LAYER), digest)
    return found


def _blob(folder: Path, digest: str) -> Path | None:
    """The file of a digest, which may not name any other."""
    match = re.fullmatch(r"sha256[:-]([0-9a-f]{64})", digest)
    return folder / "blobs" / f"sha256-{match[1]}" if match else None


def _json_object(path: Path) -> dict[str, Any]:
    """What a small file holds; empty where that is no JSON object."""
    try:
        if not path.is_file():  # opening a FIFO would wait
            return {}
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
        found = json.loads(data) if len(data) <= _MOST_BYTES else None
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _files(folder: Path, depth: int) -> Iterator[Path]:
    """The files below a folder, at most so deep; links to folders are not followed."""
    left = _MOST_MANIFESTS
    for at, folders, files in os.walk(folder):
        folders.sort()
        if len(Path(at).relative_to(folder).parts) >= depth - 1:
            folders.clear()
        for name in sorted(files):
            left -= 1
            if left < 0:
                return
            yield Path(at) / name
