"""A model that loads at once, and a stand-in for the engine's native code."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.upstream.tiny_model import write_tiny_model


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny.gguf")


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Have the child import this in place of xllamacpp."""

    def install(source: str) -> None:
        head = """
            from types import SimpleNamespace

            class CommonParams(SimpleNamespace):
                def __init__(self):
                    super().__init__(model=SimpleNamespace(), cpuparams=SimpleNamespace(),
                                     cpuparams_batch=SimpleNamespace())

            llama_pooling_type = SimpleNamespace(LLAMA_POOLING_TYPE_MEAN=1)
        """
        (tmp_path / "path").mkdir()
        module = textwrap.dedent(head) + textwrap.dedent(source)
        (tmp_path / "path" / "xllamacpp.py").write_text(module)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path / "path"))

    return install
