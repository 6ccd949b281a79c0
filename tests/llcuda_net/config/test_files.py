"""Who else can read a file with a secret in it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from llcuda_net.cli.common import read_token
from llcuda_net.config.files import open_to_others


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    file = tmp_path / "token"
    file.write_text("a-token-of-32-characters-or-more\n")
    return file


@pytest.mark.parametrize(
    ("mode", "found"),
    [(0o600, None), (0o400, None), (0o700, None), (0o644, "644"), (0o640, "640"), (0o602, "602")],
)
def test_a_mode_that_lets_others_in(mode: int, found: str | None, secret: Path) -> None:
    secret.chmod(mode)
    assert open_to_others(str(secret)) == found


def test_a_group_that_the_file_is_given_to_for_us_is_not_others(
    secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    for mode, found in ((0o640, None), (0o660, "660"), (0o644, "644")):
        secret.chmod(mode)
        assert open_to_others(str(secret)) == found


def test_what_is_no_file_has_no_mode(tmp_path: Path) -> None:
    assert open_to_others(str(tmp_path / "missing")) is None
    assert open_to_others("/dev/null") is None  # a pipe of the shell's is no file either


def test_a_command_says_that_others_can_read_its_token(
    secret: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    secret.chmod(0o640)
    assert read_token(str(secret)) == "a-token-of-32-characters-or-more"
    assert capsys.readouterr().err == (
        f"warning: others can read the token file {secret} (mode 640): chmod 600\n"
    )
    secret.chmod(0o600)
    read_token(str(secret))
    assert capsys.readouterr().err == ""
