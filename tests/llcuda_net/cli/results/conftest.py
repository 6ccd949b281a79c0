"""Fixtures of the tests of `llcuda results`: a filled data directory, and the command."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from llcuda_net.storage.results.sqlite import SqliteStore
from tests.support.cli.results import Llcuda, everything


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with results; tests get copies of it."""
    directory = tmp_path_factory.mktemp("filled")
    store = SqliteStore(directory, write=True)
    store.put(everything())
    while store.update_index():
        pass
    store.close()
    return directory


@pytest.fixture
def directory(filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data directory with results, which LLCUDA_DATA_DIR names."""
    directory = tmp_path / "data"
    shutil.copytree(filled, directory)
    monkeypatch.setenv("LLCUDA_DATA_DIR", str(directory))
    return directory


@pytest.fixture
def llcuda(capsys: pytest.CaptureFixture[str]) -> Llcuda:
    return Llcuda(capsys)


@pytest.fixture(autouse=True)
def _utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()
