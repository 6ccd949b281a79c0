"""`llcuda`: the command that gathers the others."""

from __future__ import annotations

import re

import pytest

from llcuda_net.cli.common import Exit
from llcuda_net.cli.main import main


@pytest.mark.parametrize("arguments", [[], ["nothing"], ["--nothing"]])
def test_what_is_no_command(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == Exit.USAGE
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("arguments", [["--version"], ["results", "--version"]])
def test_version(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert not end.value.code
    assert re.fullmatch(r"llcuda( results)? \d+\.\d+\.\d+\S*\n", capsys.readouterr().out)
