"""Completion, as a shell asks for it: by real processes of the installed commands."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from llcuda_net.cli.completion.command import main
from llcuda_net.cli.completion.completer import PROGRAMS, SHELLS

BIN = Path(sys.executable).parent


def fitting(line: str) -> set[str]:
    """What a command says fits at the end of a line: argcomplete's protocol, on descriptor 8."""
    read, write = os.pipe()
    script = f'exec 8>&{write}; exec "$0"'
    asked = {"_ARGCOMPLETE": "1", "_ARGCOMPLETE_IFS": "\n", "COMP_TYPE": "9"}
    try:
        subprocess.run(
            ["bash", "-c", script, str(BIN / line.split()[0])],
            env=os.environ | asked | {"COMP_LINE": line, "COMP_POINT": str(len(line))},
            pass_fds=(write,),
            check=True,
            capture_output=True,
        )
    finally:
        os.close(write)
    with os.fdopen(read, encoding="utf-8") as told:
        return {word.strip() for word in told.read().split("\n") if word.strip()}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("llcuda re", {"results"}),
        ("llcuda results pr", {"prune"}),
        ("llcuda results list --st", {"--state", "--store"}),
        ("llcuda results list --state f", {"failed"}),
        ("llcuda bench thr", {"throughput"}),
        ("llcuda bench latency --arr", {"--arrivals"}),
        ("llcuda serve --durability di", {"disk"}),
        ("llcuda chat --thi", {"--think"}),
        ("llcuda completion f", {"fish"}),
        ("llcuda-server --durability di", {"disk"}),
        ("llcuda-client --prior", {"--priority"}),
        ("llcuda-mpi --infl", {"--inflight"}),
    ],
)
def test_what_fits_is_what_the_parsers_take(line: str, words: set[str]) -> None:
    assert fitting(line) == words


@pytest.mark.parametrize("shell", SHELLS)
def test_the_code_for_a_shell(capsys: pytest.CaptureFixture[str], shell: str) -> None:
    assert main([shell]) == 0
    said = capsys.readouterr().out
    assert all(program in said for program in PROGRAMS)
    if found := shutil.which(shell):
        checked = subprocess.run([found, "-n"], input=said, text=True, capture_output=True)
        assert (checked.returncode, checked.stderr) == (0, "")


def test_a_shell_that_nobody_knows(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["bsh"])
    assert end.value.code == 2
    assert "did you mean bash?" in capsys.readouterr().err
