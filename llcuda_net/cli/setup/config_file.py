"""Files that `llcuda setup` writes: shown first, never replaced unasked, and the old one kept."""

from __future__ import annotations

import difflib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from llcuda_net.cli.common import Exit, fail


@dataclass(frozen=True, slots=True)
class File:
    """A file that is to have a text.

    Attributes:
        path: where.
        text: what.
        mode: of the file.
        what: it is, in words.
        secret: it is shown to nobody.
    """

    path: Path
    text: str
    mode: int
    what: str
    secret: bool = False

    @property
    def before(self) -> str | None:
        """What it has now; None: there is none.

        Raises:
            CommandError: it cannot be read.
        """
        try:
            return self.path.read_bytes().decode("utf-8", "backslashreplace")
        except FileNotFoundError:
            return None
        except OSError as error:
            fail(f"cannot read {self.path}: {error.strerror}", Exit.REFUSED)

    @property
    def state(self) -> str:
        """Whether it is new, changed, or already so."""
        before = self.before
        return "new" if before is None else "unchanged" if before == self.text else "changed"

    def shown(self) -> Iterator[str]:
        """What would be written: the whole of a new one, else what changes; line by line."""
        if self.secret:
            yield f"(a new secret, mode {self.mode:o})"
            return
        before = self.before
        if before is None:
            yield from self.text.splitlines()
            return
        yield from difflib.unified_diff(
            before.splitlines(),
            self.text.splitlines(),
            f"{self.path} (now)",
            f"{self.path} (new)",
            lineterm="",
        )

    def write(self) -> Path | None:
        """Write it, whole or not at all; where the old one is kept, if there was another one.

        Raises:
            OSError: it cannot be written; nothing has changed.
        """
        make_folder(self.path.parent)
        target = self.path.resolve()  # a link to somewhere stays one
        kept = _free(target) if self.before not in (None, self.text) else None
        descriptor, name = tempfile.mkstemp(prefix=f".{target.name}-", dir=target.parent)
        new = Path(name)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                os.fchmod(descriptor, self.mode)
                file.write(self.text)
                file.flush()
                os.fsync(descriptor)
            if kept is not None:
                kept.hardlink_to(target)  # the old one is never missing
            new.replace(target)
        except BaseException:
            new.unlink(missing_ok=True)
            raise
        return kept


def make_folder(folder: Path) -> None:
    """Make a folder for settings, which only its owner can read; one that is there stays as it is.

    Raises:
        OSError: it cannot be made.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)


def _free(path: Path) -> Path:
    """Where the old one is kept: .bak, or .bak.1 and so on, so that none is lost."""
    out, number = path.with_name(f"{path.name}.bak"), 0
    while out.exists() or out.is_symlink():
        number += 1
        out = path.with_name(f"{path.name}.bak.{number}")
    return out
