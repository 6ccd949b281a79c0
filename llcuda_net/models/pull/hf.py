"""`hf:OWNER/REPO`: pulls the files of one model of a repository of Hugging Face."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from pathlib import Path

from llcuda_net.errors import PullError
from llcuda_net.models.pull.choice import (
    Candidate,
    candidates,
    choose,
    choose_projector,
    is_projector,
    quant_of,
)
from llcuda_net.models.pull.hub import Hub, Listing
from llcuda_net.models.pull.reference import HubReference
from llcuda_net.models.pull.staging import (
    PARTIAL,
    WHOLE,
    Part,
    Pulled,
    Report,
    Staging,
    occupied,
    recorded,
    staging,
)


@dataclass(frozen=True, slots=True)
class ProjectorChoice:
    """Which projector for images and sound (mmproj) is pulled with a model that has one.

    Attributes:
        wanted: False: none.
        quant: its quantisation, in capitals; None: the most sensible one that is there.
    """

    wanted: bool = True
    quant: str | None = None


#: The most sensible one, if there is any.
USUAL_PROJECTOR = ProjectorChoice()


def pull_hub(
    reference: HubReference, folder: Path, report: Report, projector: ProjectorChoice
) -> list[Pulled]:
    """Pull a model into the models folder, unless it is there.

    Raises:
        PullError: it failed; one line.
        OSError: the disk refuses.
    """
    source = str(reference)
    there = recorded(folder, source)
    if there and _suits(there[0], projector):
        return there
    hub = Hub()
    try:
        with staging(folder, source) as place:
            report(source, 0, None)
            listing = hub.listing(reference.repository, reference.revision)
            parts = _parts(listing, reference, projector)
            if found := occupied(folder, parts, source):
                return [found]
            paths = _download(hub, reference.repository, listing.commit, parts, place, report)
            return [place.install(parts, paths, source, listing.commit, listing.license)]
    finally:
        hub.close()


def plan(reference: HubReference, projector: ProjectorChoice) -> tuple[int, str]:
    """How many bytes a pull would get, and under which licence; asks the server.

    Raises:
        PullError: it cannot be asked, or has no such model.
    """
    hub = Hub()
    try:
        listing = hub.listing(reference.repository, reference.revision)
        return sum(p.size for p in _parts(listing, reference, projector)), listing.license
    finally:
        hub.close()


def _suits(found: Pulled, projector: ProjectorChoice) -> bool:
    if projector.quant is None:
        return True
    return found.projector is not None and quant_of(found.projector.name) == projector.quant


def _parts(listing: Listing, reference: HubReference, projector: ProjectorChoice) -> list[Part]:
    """The files of the model that is meant, the first part before all others."""
    files = list(listing.files)
    if reference.file is not None:
        chosen = _of_file(files, reference.file, reference.repository)
    else:
        chosen = choose(files, reference.quant, reference.repository)
    names = [*chosen.files]
    if projector.wanted and not is_projector(chosen.files[0]):
        beside = choose_projector(files, projector.quant, reference.repository)
        names += [beside] if beside else []
    return [listing.files[name] for name in names]


def _of_file(files: list[str], file: str, repository: str) -> Candidate:
    """The model that a file belongs to."""
    if file not in files:
        near = difflib.get_close_matches(file, files, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise PullError(f"{repository} has no file {file}{hint}")
    for one in candidates(files):
        if file in one.files:
            return one
    return Candidate(file, (file,), quant_of(file))  # a projector, or another file that is no model


def _download(
    hub: Hub, repository: str, commit: str, parts: list[Part], place: Staging, report: Report
) -> list[Path]:
    """Get all files; one that is whole and checked is `.whole`, and is not looked at again."""
    partial = {part: place.path / f"{_key(part)}{PARTIAL}" for part in parts}
    whole = {part: place.path / f"{_key(part)}{WHOLE}" for part in parts}
    kept = {*partial.values(), *whole.values(), place.path / "lock"}
    for path in place.path.iterdir():
        if path not in kept:
            path.unlink()  # of another commit
    have = sum(path.stat().st_size for path in kept if path.exists())
    place.need(sum(part.size for part in parts) - have)
    for part in parts:
        if not whole[part].exists():
            if not partial[part].exists():
                hub.copy(repository, commit, part, partial[part])
            hub.download(repository, commit, part, partial[part], report)
            partial[part].rename(whole[part])
    return list(whole.values())


def _key(part: Part) -> str:
    """A name for its bytes: of another commit, the same bytes have the same name."""
    readable = re.sub(r"[^A-Za-z0-9._-]", "-", part.name)[:100]
    return f"{readable}.{part.checksum.partition(':')[2][:16]}"
