"""Which GGUF files of many make a model, and which model of several is meant. Pure.

A split model is files named NAME-00001-of-00003.gguf and so on. Beside it may be its projector for
images and sound, whose file's name has `mmproj` in it. Names of quantisations are found in names of
files and folders, as llama.cpp's `-hf` finds them.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from llcuda_net.errors import PullError

#: Which quantisation where none is asked for: small with little loss, then larger, then lossy.
PREFERRED = (
    "Q4_K_M", "Q4_K_S", "Q4_K_L", "Q4_K_XL", "MXFP4", "MXFP4_MOE", "Q4_0", "Q4_1", "IQ4_NL",
    "IQ4_XS", "Q5_K_M", "Q5_K_S", "Q5_K_L", "Q5_K_XL", "Q5_0", "Q5_1", "Q6_K", "Q6_K_L", "Q6_K_XL",
    "Q8_0", "Q8_K_XL", "Q3_K_L", "Q3_K_M", "Q3_K_XL", "Q3_K_S", "IQ3_M", "IQ3_S", "IQ3_XS",
    "IQ3_XXS", "BF16", "F16", "F32", "Q2_K", "Q2_K_L", "Q2_K_XL", "IQ2_M", "IQ2_S", "IQ2_XS",
    "IQ2_XXS", "IQ1_M", "IQ1_S", "TQ2_0", "TQ1_0",
)  # fmt: skip
#: Which projector: half precision loses nothing that matters.
_PREFERRED_PROJECTORS = ("F16", "BF16", "Q8_0", "F32")

_QUANT = re.compile(
    r"(?<![A-Za-z0-9])((?:I?Q|TQ)[1-8](?:_[0-9A-Z]{1,3}){0,3}|MXFP4(?:_MOE)?|NVFP4|BF16|FP?16|FP?32)"
    r"(?![A-Za-z0-9_])",
    re.IGNORECASE,
)
_SPLIT = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})", re.IGNORECASE)
#: Files in repositories that look like models and are none that answers.
_OTHER = re.compile(r"(?<![A-Za-z0-9])(imatrix|mmproj)(?![A-Za-z0-9])", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Candidate:
    """The files of one model.

    Attributes:
        name: of its file, without .gguf and the number of a part.
        files: all parts, in their order, as named in the repository or wheel.
        quant: the quantisation, in capitals, as far as names say.
    """

    name: str
    files: tuple[str, ...]
    quant: str


def stem_of(file: str) -> str:
    """The name of a model by one of its files: without folders, .gguf and the number of a part."""
    name = file.rpartition("/")[2]
    name = name[:-5] if name.lower().endswith(".gguf") else name
    match = _SPLIT.fullmatch(name)
    return match["stem"] if match else name


def quant_of(file: str) -> str:
    """The quantisation that a path names: its file, or else its folders; empty where none does."""
    folders, _, _ = file.rpartition("/")
    for text in (stem_of(file), folders):
        if found := _QUANT.findall(text):
            return re.sub(r"^FP", "F", str(found[-1]).upper())
    return ""


def is_projector(file: str) -> bool:
    """Whether it is a projector for images and sound."""
    return "mmproj" in file.rpartition("/")[2].lower()


def candidates(files: Iterable[str]) -> list[Candidate]:
    """The models among files, in the order of their names.

    Raises:
        PullError: parts of a split model are missing.
    """
    groups: dict[str, list[str]] = {}
    for file in sorted(files):
        name = file.rpartition("/")[2]
        if name.lower().endswith(".gguf") and not _OTHER.search(name) and not is_projector(file):
            groups.setdefault(file.rpartition("/")[0] + "/" + stem_of(file), []).append(file)
    return [_candidate(group) for group in groups.values()]


def _candidate(files: list[str]) -> Candidate:
    match = _SPLIT.fullmatch(files[0].rpartition("/")[2][:-5])
    if match:
        numbers = [int(m["number"]) for m in map(_part, files) if m]
        if numbers != list(range(1, int(match["count"]) + 1)):
            raise PullError(
                f"of {match['stem']}, split in {int(match['count'])}, parts are missing"
            )
    return Candidate(stem_of(files[0]), tuple(files), quant_of(files[0]))


def _part(file: str) -> re.Match[str] | None:
    return _SPLIT.fullmatch(file.rpartition("/")[2][:-5])


def choose(files: Sequence[str], quant: str | None, of: str) -> Candidate:
    """The model of a repository that is meant.

    Args:
        files: all files of the repository.
        quant: in capitals; None: the most sensible one that is there.
        of: names the repository in errors.

    Raises:
        PullError: none is there, or several are as good; one line that names them.
    """
    found = candidates(files)
    if not found:
        raise PullError(f"{of} has no GGUF model{_elsewhere(files)}")
    if quant is None:
        return _sensible(found, of)
    named = [one for one in found if one.quant == quant or _names(one.files[0], quant)]
    if named:
        return _one_of(named, of)
    there = sorted({one.quant for one in found if one.quant})
    near = difflib.get_close_matches(quant, there, 1)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise PullError(
        f"{of} has no {quant}: it has {_listed(there or [o.name for o in found])}{hint}"
    )


def _elsewhere(files: Sequence[str]) -> str:
    if any(file.endswith(".safetensors") for file in files):
        return ": its files are safetensors; look for a repository with GGUF in its name"
    return ""


def _sensible(found: list[Candidate], of: str) -> Candidate:
    for quant in PREFERRED:
        if named := [one for one in found if one.quant == quant]:
            return _one_of(named, of)
    return _one_of(found, of)


def _names(file: str, quant: str) -> bool:
    """Whether a quantisation of a form that we do not know stands in the path."""
    return bool(
        re.search(rf"(?<![A-Z0-9_]){re.escape(quant)}(?![A-Z0-9_])", file[:-5], re.IGNORECASE)
    )


def _one_of(found: list[Candidate], of: str) -> Candidate:
    """The plainest of several with one quantisation: those of one model differ only in a mark."""
    if len({_bare(one) for one in found}) > 1:
        names = [one.files[0] for one in found]
        raise PullError(
            f"{of} has several models: name the file, hf:OWNER/REPO/FILE: {_listed(names)}"
        )
    return min(found, key=lambda one: (len(one.name), one.name))


def _bare(one: Candidate) -> str:
    """Its name without what says how it was made."""
    return (
        re.sub(r"[-_.]+(UD|I1)(?=[-_.]|$)", "", _QUANT.sub("", one.name), flags=re.I)
        .strip("-_.")
        .lower()
    )


def choose_projector(files: Sequence[str], wanted: str | None, of: str) -> str | None:
    """The projector of a repository; None where it has none.

    Args:
        wanted: its quantisation, in capitals; None: the most sensible one.

    Raises:
        PullError: the one that is wanted is not there.
    """
    found = sorted(file for file in files if file.lower().endswith(".gguf") and is_projector(file))
    by_quant = {quant_of(file): file for file in reversed(found)}
    if wanted is not None:
        if wanted in by_quant:
            return by_quant[wanted]
        has = f"it has {_listed(sorted(by_quant))}" if found else "it has none"
        raise PullError(f"{of} has no projector (mmproj) in {wanted}: {has}")
    for quant in _PREFERRED_PROJECTORS:
        if quant in by_quant:
            return by_quant[quant]
    return found[0] if found else None


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:12])
    return f"{shown} and {len(names) - 12} more" if len(names) > 12 else shown
