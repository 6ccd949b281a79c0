"""A server that speaks Hugging Face's API, and an environment that names it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.models.hub_server import Hub, Repository, serving
from tests.support.models.sources import tiny_gguf

#: Of several pieces of the library's downloads.
BIG = tiny_gguf(7, 4 << 20)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """With one repository, `tiny/model-GGUF`."""
    for name in [n for n in os.environ if n.startswith("HF_") or n.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    # The library waits before it tries again.
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    files = {
        "README.md": b"# Tiny",
        "x-Q4_K_M.gguf": BIG,
        "x-Q8_0.gguf": tiny_gguf(8),
    }
    with serving({"tiny/model-GGUF": Repository(files)}) as served:
        monkeypatch.setenv("HF_ENDPOINT", served.url)
        yield served
