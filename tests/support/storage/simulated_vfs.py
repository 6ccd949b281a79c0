"""A VFS for SQLite that records what a power cut could take. It has no shared memory, so that
SQLite must hold the database exclusively; and one folder's files are told apart by their names.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import apsw

from tests.support.storage.power_cut import Recorder


class _File(apsw.VFSFile):
    def __init__(self, recorder: Recorder, name: Any, flags: list[int]) -> None:
        self._recorder = recorder
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        self._name = os.path.basename(path)  # noqa: PTH119
        self._honest = True
        if not os.path.exists(path):  # noqa: PTH110
            recorder.note("create", self._name)
            # SQLite syncs the folder itself where it matters; that is not what is tested here.
            recorder.note("sync_dir")
        super().__init__("", name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        super().xWrite(data, offset)
        self._recorder.note("change", self._name, (offset, bytes(data)))

    def xTruncate(self, newsize: int) -> None:  # noqa: N802
        super().xTruncate(newsize)
        self._recorder.note("change", self._name, (newsize, None))

    def xSync(self, flags: int) -> None:  # noqa: N802
        self._recorder.note("sync", self._name)


class _Vfs(apsw.VFS):
    def __init__(self, name: str, recorder: Recorder) -> None:
        self._recorder = recorder
        super().__init__(name, "")

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:  # noqa: N802
        return _File(self._recorder, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: N802
        super().xDelete(filename, syncdir)
        self._recorder.note("unlink", os.path.basename(filename))  # noqa: PTH119
        self._recorder.note("sync_dir")


@contextmanager
def simulated_vfs(recorder: Recorder) -> Iterator[str]:
    """The name of a VFS that is there within the block."""
    vfs = _Vfs(f"simulated-{id(recorder)}", recorder)
    try:
        yield f"simulated-{id(recorder)}"
    finally:
        vfs.unregister()
