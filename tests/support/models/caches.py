"""Folders of models as other programs lay them out."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from tests.support.models.gguf_files import write_gguf


def hub_file(hub: Path, repository: str, name: str, commit: str = "c0ffee", ref: str = "") -> Path:
    """A model in a cache of Hugging Face: a blob, and a link to it in a snapshot."""
    at = hub / f"models--{repository.replace('/', '--')}"
    blob = at / "blobs" / hashlib.sha256(f"{repository}{name}{commit}".encode()).hexdigest()
    write_gguf(blob)
    link = at / "snapshots" / commit / name
    link.parent.mkdir(parents=True, exist_ok=True)
    up = "../" * (1 + len(Path(name).parts))
    link.symlink_to(f"{up}blobs/{blob.name}")
    if ref:
        (at / "refs").mkdir(exist_ok=True)
        (at / "refs" / ref).write_text(commit)
    return link


def ollama_model(
    folder: Path, name: str, blob: Path, *, host: str = "registry.ollama.ai", **layers: Path
) -> Path:
    """A model of Ollama: the file moved to where its hash names it; returns its new path."""
    model, _, tag = name.partition(":")
    owner = "" if "/" in model else "library/"
    manifest = folder / "manifests" / host / f"{owner}{model}" / (tag or "latest")
    manifest.parent.mkdir(parents=True, exist_ok=True)
    (folder / "blobs").mkdir(exist_ok=True)
    listed = []
    placed = []
    for kind, file in [("model", blob), *layers.items()]:
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        file.rename(folder / "blobs" / f"sha256-{digest}")
        placed.append(folder / "blobs" / f"sha256-{digest}")
        media = f"application/vnd.ollama.image.{kind}"
        listed.append({"mediaType": media, "digest": f"sha256:{digest}", "size": 1})
    listed.append({"mediaType": "application/vnd.ollama.image.template", "digest": "sha256:0"})
    manifest.write_text(json.dumps({"schemaVersion": 2, "layers": listed}))
    return placed[0]
