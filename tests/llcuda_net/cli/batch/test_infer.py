"""llcuda infer and llcuda batch, with a llama-server that is not one and with the engine."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

import pytest

from llcuda_net.cli.main import main
from tools import synthetic_upstream


@pytest.fixture(scope="module")
def upstream() -> Iterator[str]:
    with synthetic_upstream.running("--rate", "0", "--slots", "8") as url:
        yield url


class Done(NamedTuple):
    """A command that has ended."""

    returncode: int
    stdout: str
    stderr: str


class Command(Protocol):
    """Runs a command of llcuda in this process."""

    def __call__(self, *arguments: str, stdin: str = "") -> Done:
        """What became of it."""


@pytest.fixture
def llcuda(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    def run(*arguments: str, stdin: str = "") -> Done:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        code = main(arguments)
        return Done(code, *capsys.readouterr())

    return run


def test_infer(upstream: str, llcuda: Command) -> None:
    done = llcuda("infer", "--upstream", upstream, "--n_predict", "4", "--stats", "hello")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) == 4
    assert "4 tokens; ended by length" in done.stderr
    piped = llcuda("infer", "--upstream", upstream, "--n-predict", "4", "-", stdin="hello")
    assert piped.stdout == done.stdout
    found = json.loads(
        llcuda("infer", "--upstream", upstream, "--n-predict", "4", "--json", "hello").stdout
    )
    assert found["text"] == done.stdout.rstrip("\n")
    assert found["usage"]["completion_tokens"] == 4


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--upstream", "http://127.0.0.1:1", "x"], 3, "cannot be reached"),
        (["--upstream", "127.0.0.1:1", "x"], 2, "is no URL"),
        (["--model", "/nowhere", "x"], 2, "/nowhere"),
        (["--raw", "--system", "s", "x"], 2, "chat template"),
        (["--ctx", "0", "x"], 2, "ctx must be at least 1"),
        (["--upstream", "http://a", "--ctx", "5", "x"], 2, "--ctx is for the built-in engine"),
        ([" "], 2, "the prompt is empty"),
    ],
)
def test_infer_says_what_is_wrong(
    arguments: list[str], code: int, said: str, llcuda: Command
) -> None:
    done = llcuda("infer", *arguments)
    assert done.returncode == code
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_infer_has_a_limit_and_says_when_it_cuts(upstream: str, llcuda: Command) -> None:
    cut = "llcuda infer: the answer was cut after 2,048 tokens, the limit where none is given"
    done = llcuda("infer", "--upstream", upstream, "hello")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) == 2048
    assert done.stderr.startswith(cut)
    assert "--max-tokens N (-1: until" in done.stderr
    assert llcuda("infer", "--upstream", upstream, "-", "--n-predict", "3", stdin="x").stderr == ""


def test_a_constraint_that_the_server_ignores_is_an_error(
    tmp_path: Path, upstream: str, llcuda: Command
) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    line = {"raw": "hi", "n_predict": 4, "grammar": 'root ::= "x"'}
    source.write_text(json.dumps(line) + "\n")
    llcuda("batch", "--upstream", upstream, str(source), "--output", str(target))
    (found,) = map(json.loads, target.read_text().splitlines())
    assert "the answer does not keep the grammar" in found["error"]["message"]


def test_batch(tmp_path: Path, upstream: str, llcuda: Command) -> None:
    given, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    given.write_text('"a"\n{"prompt": "b", "id": 7}\nwrong\n')
    command = ["batch", str(given), "-o", str(output), "--upstream", upstream, "--n-predict", "3"]
    done = llcuda(*command, "--json")
    assert done.returncode == 1
    assert "line 3: not JSON" in done.stderr
    assert json.loads(done.stdout)["written"] == 3
    first, second, third = (json.loads(line) for line in output.read_text().splitlines())
    assert first["usage"]["completion_tokens"] == 3
    assert second["id"] == 7
    assert third["error"]["code"] == "bad_line"
    given.write_text('"a"\n{"prompt": "b", "id": 7}\n"c"\n')
    assert llcuda(*command).returncode == 2  # line 3 is another now
    output.unlink()
    assert llcuda(*command).returncode == 0


def test_the_engine_answers_both(tmp_path: Path, llcuda: Command) -> None:
    question = "What is a slot?"
    told = llcuda("infer", "--temperature", "0", "--n-predict", "40", question)
    assert told.returncode == 0, told.stderr
    given, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    given.write_text(json.dumps({"prompt": question, "temperature": 0}) + "\n")
    done = llcuda("batch", str(given), "-o", str(output), "--n-predict", "40")
    assert done.returncode == 0, done.stderr
    (result,) = (json.loads(line) for line in output.read_text().splitlines())
    assert result["text"].strip() == told.stdout.strip()
    assert "slot" in result["text"]
    assert result["client"]["server"] == "built-in engine"


def test_a_model_by_a_name_that_there_is_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("LLCUDA_MODELS", str(tmp_path))
    assert main(["infer", "--model", "smolm2", "Hi"]) == 2
    assert "there is no model smolm2" in capsys.readouterr().err
    assert main(["infer", "--model", "smollm2", "Hi"]) == 2
    assert "`llcuda models pull smollm2` gets it" in capsys.readouterr().err
