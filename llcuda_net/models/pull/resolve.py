"""What `--model NAME` means: a file, a model of the folder, or one that can be pulled.

In this order: a file that is there; a name in the models folder, or a short name (`known.py`) or
reference by which one there was pulled; a model that another program has on this machine. Then the
short name or reference is pulled, after asking.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from llcuda_net.errors import ConfigError, PullError
from llcuda_net.models.files.elsewhere import elsewhere, find
from llcuda_net.models.files.folder import models_of, scan
from llcuda_net.models.files.local_file import LocalFile, name_of
from llcuda_net.models.pull.hf import USUAL_PROJECTOR, plan
from llcuda_net.models.pull.known import KNOWN
from llcuda_net.models.pull.pull import pull, quiet
from llcuda_net.models.pull.reference import HubReference, Reference, is_reference, parse
from llcuda_net.models.pull.staging import Report, recorded, size_text

#: Asks a person a question that is answered by yes or no.
Ask = Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class Found:
    """A model that is on this machine.

    Attributes:
        file: its GGUF file, the first one if it was split.
        mmproj: the projector for images and sound that belongs to it.
    """

    file: Path
    mmproj: Path | None = None


def resolve(
    name: str,
    folder: Path,
    *,
    yes: bool = False,
    ask: Ask | None = None,
    report: Report = quiet,
    elsewhere: Callable[[], list[LocalFile]] = elsewhere,
) -> Found:
    """The model that a person means by what stands behind `--model`. Blocks, for long if it pulls.

    Args:
        folder: the models folder; it need not exist.
        yes: pull without asking.
        ask: asks a person; None: nobody is there to be asked.
        report: is called while bytes come.
        elsewhere: the models that other programs have here; only called where it matters.

    Raises:
        ConfigError: there is no such model, it is not wanted, or it cannot be pulled; one line.
    """
    path = Path(name).expanduser()
    if _is_file(path):
        return Found(path)
    here = models_of(scan(folder))
    if (there := here.get(name)) is not None:
        return Found(there.path, there.mmproj)
    reference = _reference(name)
    if reference is not None and (pulled := recorded(folder, str(reference))):
        return Found(pulled[0].file, pulled[0].projector)
    others = [file for file in elsewhere() if file.is_model]
    if (other := find(name, others)) is not None:
        return Found(other.path, other.mmproj)
    if reference is not None:
        return _pulled(name, reference, folder, yes, ask, report)
    raise ConfigError(_unknown(name, folder, [*here, *KNOWN, *(file.name for file in others)]))


def by_file_name(name: str, folder: Path) -> Found | None:
    """The model of the folder whose file is called so, such as `NAME.gguf`; None: there is none."""
    if "/" in name or not name.lower().endswith(".gguf") or _is_file(Path(name)):
        return None
    there = models_of(scan(folder)).get(name_of(Path(name)))
    return Found(there.path, there.mmproj) if there is not None else None


def short_names(folder: Path) -> dict[Path, str]:
    """The models of the folder that were pulled by a short name, or could have been, by file."""
    return {file: name for name in KNOWN if (file := pulled_as(name, folder)) is not None}


def pulled_as(name: str, folder: Path) -> Path | None:
    """The file in the folder that was pulled by a short name or reference; None: there is none."""
    try:
        reference = _reference(name)
    except ConfigError:
        return None
    pulled = recorded(folder, str(reference)) if reference is not None else []
    return pulled[0].file if pulled else None


def _reference(name: str) -> Reference | None:
    """What a name would be pulled by; None where it is no such name."""
    if name in KNOWN:
        return KNOWN[name].reference
    return parse(name) if is_reference(name) else None


def is_path(name: str) -> bool:
    """Whether it is meant as the path of a file, be that there or not."""
    if is_reference(name):
        return False
    if name.lower().endswith(".gguf") or name.startswith(("/", "./", "../", "~")):
        return True
    return _is_file(Path(name))


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long a name, or a NUL in it
        return False


def _pulled(
    name: str, reference: Reference, folder: Path, yes: bool, ask: Ask | None, report: Report
) -> Found:
    """Pull it, if that is wanted."""
    try:
        if not yes:
            what = _described(name, reference, asked=ask is not None)
            if ask is None:
                raise ConfigError(
                    f"the model {name} is not in {folder}: `llcuda models pull {name}` gets it"
                    f" ({what}), and so does --yes"
                )
            if not ask(f"The model {name} is not in {folder}. Pull it ({what})?"):
                raise ConfigError(f"the model {name} was not pulled: give a file, or another name")
        first = pull(reference, folder, report)[0]
    except PullError as error:
        raise ConfigError(str(error)) from error
    return Found(first.file, first.projector)


def _described(name: str, reference: Reference, *, asked: bool) -> str:
    """What a person should know before it is pulled."""
    if name in KNOWN:
        known = KNOWN[name]
        return f"{known.title}, {size_text(known.size)}, licence {known.license}, {reference}"
    if isinstance(reference, HubReference) and asked:
        size, license_ = plan(reference, USUAL_PROJECTOR)
        return f"{size_text(size)}, licence {license_ or 'not stated'}"
    return "its size and licence are not known here"


def _unknown(name: str, folder: Path, names: Sequence[str]) -> str:
    if is_path(name):
        return f"model file {name} does not exist, or is no file"
    near = difflib.get_close_matches(name, names, 2, 0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else "see llcuda models list"
    if _is_folder(name):
        hint = f"it is a folder here: --models {name} serves all in it"
    elif _may_be_repository(name):
        hint = f"that of Hugging Face is hf:{name}"
    return f"there is no model {name}: no file, nothing in {folder}, no short name; {hint}"


def _is_folder(name: str) -> bool:
    try:
        return Path(name).is_dir()
    except (OSError, ValueError):
        return False


def _may_be_repository(name: str) -> bool:
    try:
        return name.count("/") == 1 and bool(parse(f"hf:{name}"))
    except ConfigError:
        return False
