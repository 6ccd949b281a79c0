"""Models that other programs have on this machine. Only read: nothing here changes a file.

    Hugging Face   HUB/models--OWNER--REPO/snapshots/COMMIT/FILE, a link to ../../blobs/HASH;
                   refs/main names the commit
    LM Studio      HOME/models/OWNER/REPO/FILE
    Ollama         MODELS/manifests/HOST/OWNER/MODEL/TAG, a JSON object whose layers are
                   MODELS/blobs/sha256-HASH
    llama.cpp      CACHE/OWNER_REPO_FILE, and manifest=OWNER=REPO=TAG.json; since 2026 it uses the
                   hub of Hugging Face

What other programs write is not trusted: names, sizes and links may be anything.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from llcuda_net.models.files.folder import SOURCE, scan
from llcuda_net.models.files.local_file import LocalFile
from llcuda_net.models.files.manifests import llama_cache_names, ollama_models
from llcuda_net.upstream.model.gguf import Kind

HUGGING_FACE, LM_STUDIO, OLLAMA, LLAMA_CPP = "huggingface", "lmstudio", "ollama", "llama.cpp"
#: Where models may come from, our folder first.
SOURCES = (SOURCE, HUGGING_FACE, LM_STUDIO, OLLAMA, LLAMA_CPP)

_MOST_REPOSITORIES = 5000
#: Where a package of Linux has Ollama's models.
_OLLAMA_SERVICE = Path("/usr/share/ollama/.ollama/models")


def everything(folder: Path, environ: Mapping[str, str] | None = None) -> list[LocalFile]:
    """What is in our folder, and what other programs have."""
    return [*scan(folder), *elsewhere(environ)]


def elsewhere(
    environ: Mapping[str, str] | None = None, home: Path | None = None
) -> list[LocalFile]:
    """What other programs have: models, adapters, and what is broken, by source and name.

    A file that two of them share is listed once. Blocks; folders that are not there are empty.
    """
    environ = os.environ if environ is None else environ
    if home is None:
        home = Path(environ.get("HOME") or "/nonexistent")
    found: list[LocalFile] = []
    for hub in _hubs(environ, home):
        found += _hugging_face(hub)
    for folder in _lm_studio_folders(home):
        found += scan(folder, LM_STUDIO)
    for folder in _ollama_folders(environ, home):
        found += ollama_models(folder, OLLAMA)
    found += _llama_cpp(_llama_cache(environ, home))
    return list(_once(found))


def find(name: str, files: list[LocalFile]) -> LocalFile | None:
    """The model of that name, ours first; `SOURCE:NAME` names one of another program."""
    source, _, rest = name.partition(":")
    for file in files:
        if file.name == name or (source == file.source and rest == file.name):
            return file
    return None


def _once(files: list[LocalFile]) -> Iterator[LocalFile]:
    seen: set[tuple[int, int]] = set()
    for file in files:
        try:
            status = file.path.stat()
        except (OSError, ValueError):
            yield file  # its problem is in it
            continue
        if (status.st_dev, status.st_ino) not in seen:
            seen.add((status.st_dev, status.st_ino))
            yield file


def _path(text: str, home: Path) -> Path:
    """A path out of an environment variable."""
    return home / text[2:] if text.startswith("~/") else Path(text)


def _cache(environ: Mapping[str, str], home: Path) -> Path:
    named = environ.get("XDG_CACHE_HOME")
    return _path(named, home) if named else home / ".cache"


# -- Hugging Face ------------------------------------------------------------------------------


def _hubs(environ: Mapping[str, str], home: Path) -> list[Path]:
    direct = environ.get("HF_HUB_CACHE") or environ.get("HUGGINGFACE_HUB_CACHE")
    if direct:
        hub = _path(direct, home)
    elif environ.get("HF_HOME"):
        hub = _path(environ["HF_HOME"], home) / "hub"
    else:
        hub = _cache(environ, home) / "huggingface" / "hub"
    llama = environ.get("LLAMA_CACHE")  # llama.cpp takes it for the hub
    return list(dict.fromkeys([hub, *([_path(llama, home)] if llama else [])]))


def _hugging_face(hub: Path) -> Iterator[LocalFile]:
    for at in _folders(hub)[:_MOST_REPOSITORIES]:
        if not at.name.startswith("models--"):
            continue
        repository = at.name.removeprefix("models--").replace("--", "/")
        names: set[str] = set()
        for snapshot in _snapshots(at):
            for file in scan(snapshot, HUGGING_FACE):
                if file.kind is Kind.PROJECTOR:
                    continue  # of a model that is not here
                name = file.name if file.path == snapshot else f"{repository}/{file.name}"
                if name in names:  # of another commit
                    name = f"{name}@{snapshot.name[:8]}"
                names.add(name)
                yield _plain(replace(file, name=name))


def _snapshots(repository: Path) -> list[Path]:
    """The folders of its commits, that of its main branch first."""
    found = _folders(repository / "snapshots")
    try:
        with (repository / "refs" / "main").open("rb") as file:
            main = file.read(100).strip().decode("ascii", "replace")
    except (OSError, ValueError):
        main = ""
    return sorted(found, key=lambda path: path.name != main)


def _folders(at: Path) -> list[Path]:
    try:
        return sorted(Path(entry.path) for entry in os.scandir(at) if entry.is_dir())
    except (OSError, ValueError):
        return []


def _plain(file: LocalFile) -> LocalFile:
    """The file with a name that can be printed and typed."""
    if file.name.isprintable():
        return file
    shown = ascii(file.name)[1:-1]
    return replace(file, name=shown, model=None, problem="its name is not plain text: rename it")


# -- the others --------------------------------------------------------------------------------


def _lm_studio_folders(home: Path) -> list[Path]:
    homes = [home / ".lmstudio", home / ".cache" / "lm-studio"]
    try:
        with (home / ".lmstudio-home-pointer").open("rb") as file:
            homes.insert(0, Path(os.fsdecode(file.read(4096).strip())))
    except (OSError, ValueError):
        pass
    return [at / "models" for at in homes if at.is_absolute()]


def _ollama_folders(environ: Mapping[str, str], home: Path) -> list[Path]:
    if environ.get("OLLAMA_MODELS"):
        return [_path(environ["OLLAMA_MODELS"], home)]
    return [home / ".ollama" / "models", _OLLAMA_SERVICE]


def _llama_cache(environ: Mapping[str, str], home: Path) -> Path:
    if environ.get("LLAMA_CACHE"):
        return _path(environ["LLAMA_CACHE"], home)
    if sys.platform == "darwin":
        return home / "Library" / "Caches" / "llama.cpp"
    return _cache(environ, home) / "llama.cpp"


def _llama_cpp(folder: Path) -> Iterator[LocalFile]:
    names = llama_cache_names(folder)
    for file in scan(folder, LLAMA_CPP):
        top = file.path.relative_to(folder).parts[:1]
        if top and re.fullmatch(r"(models|datasets|spaces)--.*", top[0], re.DOTALL):
            continue  # a hub in the same folder
        name = names.get(file.path.name)
        yield _plain(replace(file, name=name) if name else file)
