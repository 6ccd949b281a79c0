"""What was typed into chats, kept over starts in a file that nobody else can read."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from prompt_toolkit.history import History

#: Questions that are kept; beyond twice as many, the file is made shorter.
KEPT = 1000
#: Characters of one that is kept.
_LONGEST = 64 << 10


def default_path() -> Path:
    """Where it is: in XDG_STATE_HOME, or where the system has such things."""
    given = Path(os.environ.get("XDG_STATE_HOME", ""))
    if given.is_absolute():  # as its specification says
        return given / "llcuda" / "chat_history"
    import platformdirs

    return platformdirs.user_state_path("llcuda", appauthor=False) / "chat_history"


class ChatHistory(History):
    """Questions in a file, one in JSON a line, newest last; without it, those of this process.

    Several chats may write it at once. What cannot be written is kept in memory alone.
    """

    def __init__(self, path: Path | None) -> None:
        super().__init__()
        self._path = path

    def load_history_strings(self) -> Iterable[str]:
        """All of them, the newest first; a line that is damaged is left out."""
        lines = _read(self._path)
        if len(lines) > 2 * KEPT:
            self._shorten()
        found: list[str] = []
        for line in lines[-KEPT:]:
            with suppress(ValueError):
                text = json.loads(line)
                if isinstance(text, str) and (not found or found[-1] != text):
                    found.append(text)
        return reversed(found)

    def store_string(self, string: str) -> None:
        """Put one behind the others."""
        if self._path is None or len(string) > _LONGEST:
            return
        with suppress(OSError):
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                os.fchmod(descriptor, 0o600)
                os.write(descriptor, f"{json.dumps(string)}\n".encode())
            finally:
                os.close(descriptor)

    def _shorten(self) -> None:
        """Keep the newest. It is written in place, so that who has it open goes on with it."""
        assert self._path is not None
        with suppress(OSError), self._path.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            lines = file.read().splitlines(keepends=True)[-KEPT:]
            file.seek(0)
            file.writelines(lines)
            file.truncate()


def _read(path: Path | None) -> list[bytes]:
    if path is None:
        return []
    try:
        return path.read_bytes().splitlines()
    except OSError:
        return []
