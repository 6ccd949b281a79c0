"""`llcuda`: the command that gathers the others."""

from __future__ import annotations

import re

import pytest

from llcuda_net.cli.client.command import main as client
from llcuda_net.cli.common import Exit
from llcuda_net.cli.main import COMMANDS, main


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


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["reslts"], "llcuda: error: .* 'reslts': did you mean results\\?"),
        (["serve", "--prot", "1"], "llcuda serve: error: .*--prot 1: did you mean --port\\?"),
        (["ask", "--modle", "a", "b"], "llcuda ask: error: .*did you mean --model\\?"),
        (["chat", "--thnik", "show"], "llcuda chat: error: .*did you mean --think\\?"),
        (["results", "lst"], "llcuda results: error: .* 'lst': did you mean list\\?"),
        (["results", "list", "--sinse", "2h"], ".*did you mean --since\\?"),
        (["results", "list", "--state", "fialed"], ".* 'fialed': did you mean failed\\?"),
        (["bench", "latncy"], "llcuda bench: error: .* 'latncy': did you mean latency\\?"),
        (["models", "--xyzzy"], "(?!.*did you mean).*"),
    ],
)
def test_a_word_that_nobody_knows_has_the_nearest_one(
    capsys: pytest.CaptureFixture[str], arguments: list[str], line: str
) -> None:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == Exit.USAGE
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert re.match(line, said)


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help_with_an_example_by_its_name(
    capsys: pytest.CaptureFixture[str], command: str
) -> None:
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    assert not end.value.code
    said = capsys.readouterr().out
    assert said.startswith(f"usage: llcuda {command}")
    example = command if command != "chat" else "ask --chat"
    assert re.search(rf"^ .*llcuda {example}", said.partition("example")[2], re.MULTILINE)


def test_what_the_old_names_say_is_theirs(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["ask", "--help"])
    capsys.readouterr()
    with pytest.raises(SystemExit):
        client(["--help"])
    said = capsys.readouterr().out
    assert said.startswith("usage: llcuda-client")
    assert "llcuda ask" not in said
