"""Files are shown first, replaced whole, and the old one is never lost."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from llcuda_net.cli.common import CommandError
from llcuda_net.cli.setup.config_file import File


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_file_and_its_folder_are_the_owners_alone(tmp_path: Path) -> None:
    file = File(tmp_path / "a" / "llcuda" / "x.toml", "one\n", 0o600, "settings")
    assert (file.state, list(file.shown())) == ("new", ["one"])
    before = os.umask(0)
    try:
        assert file.write() is None
    finally:
        os.umask(before)
    assert file.path.read_text() == "one\n"
    assert (mode(file.path), mode(file.path.parent)) == (0o600, 0o700)
    assert file.state == "unchanged"
    assert file.write() is None
    assert [path.name for path in file.path.parent.iterdir()] == ["x.toml"]


def test_each_old_one_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    for number, text in enumerate(["a\n", "b\n", "c\n", "d\n"]):
        file = File(path, text, 0o600, "settings")
        if number:
            assert file.state == "changed"
            assert f"+{text.strip()}" in list(file.shown())
        file.write()
    kept = {one.name: one.read_text() for one in tmp_path.iterdir()}
    assert kept == {
        "x.toml": "d\n",
        "x.toml.bak": "a\n",
        "x.toml.bak.1": "b\n",
        "x.toml.bak.2": "c\n",
    }


def test_a_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "dotfiles").mkdir()
    real = tmp_path / "dotfiles" / "x.toml"
    real.write_text("a\n")
    link = tmp_path / "x.toml"
    link.symlink_to(real)
    kept = File(link, "b\n", 0o600, "settings").write()
    assert link.is_symlink()
    assert real.read_text() == "b\n"
    assert kept == real.with_name("x.toml.bak")


def test_a_secret_is_not_shown(tmp_path: Path) -> None:
    file = File(tmp_path / "token", "6b0c\n", 0o600, "token", secret=True)
    assert "6b0c" not in "".join(file.shown())


def test_what_fails_leaves_what_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.toml"
    path.write_text("a\n")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        File(path, "b\n", 0o600, "settings").write()
    assert {one.name: one.read_text() for one in tmp_path.iterdir()} == {"x.toml": "a\n"}


def test_what_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"cannot read .*: Is a directory"):
        _ = File(tmp_path, "x", 0o600, "settings").state
