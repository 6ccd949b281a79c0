"""One server a directory, and who it is."""

from __future__ import annotations

import fcntl
import os
import threading
from pathlib import Path

import pytest

from llcuda_net.errors import StorageError
from llcuda_net.storage.directory_lock import DirectoryLock, holder


def test_whoever_asks_is_told_who_holds_it(tmp_path: Path) -> None:
    assert holder(tmp_path) is None
    held = DirectoryLock(tmp_path, "127.0.0.1:9000")
    assert holder(tmp_path) == "127.0.0.1:9000"
    with pytest.raises(StorageError, match=rf"in use by process {os.getpid()}, 127.0.0.1:9000"):
        DirectoryLock(tmp_path, "elsewhere")
    held.release()
    assert holder(tmp_path) is None  # though its file is still there
    held = DirectoryLock(tmp_path)
    assert holder(tmp_path) == ""
    held.release()


def test_whoever_only_looks_keeps_no_server_from_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    DirectoryLock(tmp_path).release()
    looking = os.open(tmp_path / "lock", os.O_RDONLY)
    fcntl.flock(looking, fcntl.LOCK_SH | fcntl.LOCK_NB)
    tried = threading.Event()

    def pause(_: float) -> None:
        assert not tried.is_set()
        tried.set()
        os.close(looking)

    monkeypatch.setattr("llcuda_net.storage.directory_lock.time.sleep", pause)
    held = DirectoryLock(tmp_path)
    assert tried.is_set()
    held.release()
