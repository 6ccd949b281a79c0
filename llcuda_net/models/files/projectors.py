"""Which projector (mmproj file: images or sound) belongs to which model.

Nothing in the files says so: a repository has the model in several quantisations, and beside them
one projector, or the same in several. So it goes by the folder and by the names.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from llcuda_net.models.files.local_file import LocalFile
from llcuda_net.upstream.model.gguf import Kind

#: Of several of the same model, the first of these: no smaller than needed, and fast everywhere.
_PREFERRED = ("F16", "BF16", "Q8_0", "F32")
#: Words of a file's name that do not say which model it is of.
_NO_NAME = re.compile(r"mmproj|model|gguf|fp?16|bf16|fp?32|i?q\d")

_Words = tuple[str, ...]


def with_projectors(files: Iterable[LocalFile]) -> list[LocalFile]:
    """The files, each model with its projector; of projectors only those that belong to none.

    In a folder with one model, a projector is its own, unless their names and widths both differ.
    In one with several, it is of those whose name begins with the projector's
    (`mmproj-NAME-f16.gguf`); one whose name says nothing (`mmproj-F16.gguf`) is of all of them, if
    they are one model in several quantisations.
    """
    files = list(files)
    folders: defaultdict[Path, list[LocalFile]] = defaultdict(list)
    for file in files:
        folders[file.path.parent].append(file)
    chosen: dict[Path, Path] = {}
    used: set[Path] = set()
    for beside in folders.values():
        models = [file for file in beside if file.is_model]
        projectors = {f: _words(f.path) for f in beside if f.kind is Kind.PROJECTOR}
        for model in models if projectors else ():
            mine = _of(model, models, projectors)
            used.update(projector.path for projector in mine)
            if mine:
                chosen[model.path] = min(mine, key=lambda p: (-len(projectors[p]), *_order(p))).path
    return [replace(file, mmproj=chosen.get(file.path)) for file in files if file.path not in used]


def _of(
    model: LocalFile, models: list[LocalFile], projectors: dict[LocalFile, _Words]
) -> list[LocalFile]:
    """The projectors that are the model's."""
    name = _words(model.path)
    if len(models) == 1:
        return [
            projector
            for projector, words in projectors.items()
            if not words or not name or words[0] == name[0] or _fits(projector, model)
        ]
    same = len({_shape(file) for file in models}) == 1
    return [
        projector
        for projector, words in projectors.items()
        if (name[: len(words)] == words if words else same)
    ]


def _words(path: Path) -> _Words:
    """What a file's name says of the model: without precision, and the mark of a projector."""
    words = re.split(r"[^a-z0-9]+", path.stem.lower())
    return tuple(word for word in words if word and not _NO_NAME.fullmatch(word))


def _fits(projector: LocalFile, model: LocalFile) -> bool:
    """Whether what it makes of an image is as wide as what the model takes."""
    assert projector.model is not None
    assert model.model is not None
    widths = {projector.model.number(f"{of}.projection_dim") for of in ("vision", "audio")}
    return model.model.embedding_length in widths - {0}


def _shape(file: LocalFile) -> tuple[str, int, int, int]:
    model = file.model
    assert model is not None
    return model.architecture, model.layers, model.embedding_length, model.vocabulary


def _order(projector: LocalFile) -> tuple[int, str]:
    name = projector.model.quantisation if projector.model else ""
    place = _PREFERRED.index(name) if name in _PREFERRED else len(_PREFERRED)
    return place, projector.path.name
