"""The tool that compares estimates of memory: its models, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from llcuda_net.upstream.model.gguf import read_model_file
from tools.eval_memory import main
from tools.model_memory.shapes import SHAPES, write


@pytest.mark.parametrize("name", ["gemma3-270m", "qwen2-0.5b-q4_0"])
def test_models_of_zeros_take_no_disk(name: str, tmp_path: Path) -> None:
    path = write(tmp_path / "x.gguf", *SHAPES[name]())
    model = read_model_file(path)
    assert model.architecture == name.split("-")[0]
    assert model.parameters > 250_000_000
    assert model.vocabulary > 150_000
    assert path.stat().st_blocks * 512 < model.size / 10


def test_what_it_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--program", str(tmp_path / "absent")]) == 2
    assert "there is no program" in capsys.readouterr().err
    assert main(["--program", "true", "--shape", "x"]) == 2
    assert "no shape x: llama-mha, " in capsys.readouterr().err


def test_a_program_that_loads_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "x.gguf", *SHAPES["llama-mha"]())
    assert main(["--program", "true", "--model", str(path)]) == 1
    assert "x.gguf was not loaded: no output" in capsys.readouterr().out
