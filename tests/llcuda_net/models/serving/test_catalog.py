"""Which models a server runs, and by which names."""

from __future__ import annotations

from pathlib import Path

import pytest
import structlog.testing

from llcuda_net.config.models import ModelSpec
from llcuda_net.config.settings import Settings
from llcuda_net.models.serving import catalog
from llcuda_net.models.serving.catalog import describe_all
from tests.support.models.sources import tiny_gguf


def put(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(tiny_gguf())
    return path


def test_what_was_pulled_by_a_short_name_answers_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {name: put(tmp_path / f"{name}.gguf") for name in ("a", "b", "c")}
    short = {files["a"]: "tiny", files["b"]: "mine", files["c"]: "a"}
    monkeypatch.setattr(catalog, "short_names", lambda folder: short)
    mine = ModelSpec("mine", str(files["c"]))
    found = describe_all(Settings(model=(mine,), models=str(tmp_path)))
    names = {one.name: one.spec.aliases for one in found}
    assert names == {"mine": (), "a": ("tiny",), "b": ()}  # a name that is taken stays where it is


def test_the_demonstration_model_beside_a_folder_that_is_not_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    demo = put(tmp_path / "demo.gguf")
    monkeypatch.setattr(catalog, "default_folder", lambda: tmp_path / "models")
    with structlog.testing.capture_logs() as logs:
        assert [one.name for one in describe_all(Settings(), demo)] == ["demo"]
    assert logs == []
    put(tmp_path / "models/a.gguf")
    with structlog.testing.capture_logs() as logs:
        assert [one.name for one in describe_all(Settings(), demo)] == ["demo"]
    assert [(line["event"], line["models"]) for line in logs] == [("models_folder_not_served", 1)]
