"""The build of a llama-server for the tests: what is said where there is nothing to build with."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.llama_server.stand_in import stand_in
from tests.support.processes import PATIENCE, environment
from tools import build_llama_server

SCRIPT = Path(__file__).resolve().parents[2] / "tools" / "build_llama_server.py"


def _run(script: Path = SCRIPT, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        env=environment(**env),
        timeout=PATIENCE,
        check=False,
    )


def test_one_that_is_named_is_taken(tmp_path: Path) -> None:
    named = stand_in(tmp_path).path
    ended = _run(LLCUDA_TEST_LLAMA_SERVER=str(named))
    assert (ended.returncode, ended.stdout) == (0, f"{named}\n")


def test_one_that_is_named_and_does_not_run_is_an_error(tmp_path: Path) -> None:
    named = tmp_path / "no-such-server"
    ended = _run(LLCUDA_TEST_LLAMA_SERVER=str(named))
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == (
        f"build_llama_server: LLCUDA_TEST_LLAMA_SERVER={named} is no llama-server that runs here\n"
    )


def test_without_a_compiler_it_says_what_to_do(tmp_path: Path) -> None:
    copy = tmp_path / "tools" / SCRIPT.name  # so that nothing was built beside it
    copy.parent.mkdir()
    copy.write_text(SCRIPT.read_text(encoding="utf-8"), encoding="utf-8")
    ended = _run(copy, CXX="no-such-compiler", PYTHONPATH=str(SCRIPT.parents[1]))
    assert (ended.returncode, ended.stdout) == (1, "")
    (line,) = ended.stderr.splitlines()
    assert "a C++ compiler is needed, and there is no no-such-compiler" in line
    assert "LLCUDA_TEST_LLAMA_SERVER" in line


@pytest.mark.parametrize("breaks", [False, True])
def test_what_was_built_is_kept_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, breaks: bool
) -> None:
    folder = tmp_path / "cache"
    program = folder / "1" / "llama-server"

    def run(*arguments: object) -> None:
        if "--build" in arguments:
            assert arguments[-2:] == ("--parallel", 3)
            if breaks:
                build_llama_server.fail("it does not compile")
            made = Path(str(arguments[2])) / "bin"
            made.mkdir(parents=True)
            stand_in(made)

    monkeypatch.setattr(build_llama_server, "FOLDER", folder)
    monkeypatch.setattr(build_llama_server, "environment", lambda: tmp_path)
    monkeypatch.setattr(build_llama_server, "unpacked", lambda found: found / "llama.cpp")
    monkeypatch.setattr(build_llama_server, "run", run)
    monkeypatch.setenv("CXX", sys.executable)
    if breaks:
        with pytest.raises(SystemExit, match="1"):
            build_llama_server.build(program, 3)
        assert list(folder.iterdir()) == []
    else:
        build_llama_server.build(program, 3)
        assert build_llama_server.works(program)
        assert [path.name for path in folder.iterdir()] == ["1"]
