"""Whether the files that a server has open are still those that their paths name.

What is written to a file that was deleted or moved away is lost when its last descriptor closes,
and nothing reports it: not the write, not the sync.
"""

from __future__ import annotations

from pathlib import Path

from llcuda_net.errors import StorageError
from llcuda_net.storage.journal.disk import Files


class Presence:
    """Remembers which file each path names. Its methods block a moment: for threads, of which
    several may call them at a time.
    """

    def __init__(self, files: Files) -> None:
        self._files = files
        self._known: dict[Path, tuple[int, int]] = {}

    def __repr__(self) -> str:
        return f"<Presence of {len(self._known)} files>"

    def watch(self, *paths: Path) -> None:
        """Remember the files of paths that were opened just now; one that is not there is not
        watched, and one that is watched stays the file that it was.
        """
        for path in paths:
            if path not in self._known:
                try:
                    self._known[path] = self._files.identity(path)
                except FileNotFoundError:
                    continue

    def forget(self, path: Path) -> None:
        """A file is about to be deleted or renamed by us."""
        self._known.pop(path, None)

    def check(self) -> None:
        """Return if each path names the same file as when it was watched first.

        Raises:
            StorageError: one does not.
        """
        for path, known in tuple(self._known.items()):
            try:
                there = self._files.identity(path) == known
                reason = "replaced"
            except OSError as error:
                there = False
                reason = "deleted" if isinstance(error, FileNotFoundError) else str(error.strerror)
            if not there and path in self._known:
                raise StorageError(
                    f"{path} is not the file any more that llcuda-server has open ({reason}): "
                    "nothing that is written now would be found again; put the data directory "
                    "back, or choose another --data-dir, and restart llcuda-server",
                    StorageError.FAILED,
                )
