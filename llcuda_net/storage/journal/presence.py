"""Whether the files that a server has open are still those that their paths name.

What is written to a file that was deleted or moved away is lost when its last descriptor closes,
and nothing reports it: not the write, not the sync.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import trio

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


class Lookout:
    """Looks now and then whether files are still there, even if nothing is written.

    Args:
        paths: those that are there are watched, and those that come.
        every: seconds between two looks.
    """

    def __init__(self, presence: Presence, paths: Sequence[Path], every: float) -> None:
        self._presence = presence
        self._paths = paths
        self._every = every

    def __repr__(self) -> str:
        return f"<Lookout every {self._every:g} s, {self._presence!r}>"

    def begin(self) -> None:
        """Watch the files that are there. Blocks a moment: for a thread."""
        self._presence.watch(*self._paths)

    def _look(self) -> StorageError | None:
        try:
            self._presence.check()
        except StorageError as error:
            return error
        self.begin()  # one that was not there before
        return None

    async def run(self, gone: Callable[[StorageError], None]) -> None:
        """Look until one is gone, and say so."""
        error = None
        while error is None:
            await trio.sleep(self._every)
            error = await trio.to_thread.run_sync(self._look)
        gone(error)
