"""Man pages say what the parsers say."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from tools.man_pages import FOLDER, pages


def test_those_in_the_tree_are_what_the_parsers_say() -> None:
    """After a change of options: python tools/man_pages.py."""
    assert {path.name: path.read_text() for path in FOLDER.iterdir()} == pages()


def test_every_option_is_in_its_page() -> None:
    text = pages()["llcuda-client.1"].replace("\\-", "-")
    for words in ("--max-tokens", "--continue", "llcuda-client --attach", "EXIT CODES", "130"):
        assert words in text


@pytest.mark.skipif(shutil.which("man") is None, reason="needs man(1)")
@pytest.mark.parametrize("name", sorted(path.name for path in FOLDER.iterdir()))
def test_man_has_nothing_to_say_against_it(name: str) -> None:
    found = subprocess.run(
        ["man", "--warnings", "-E", "UTF-8", "-l", FOLDER / name],
        capture_output=True,
        text=True,
        env={"MANWIDTH": "100", "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"},
    )
    assert (found.returncode, found.stderr) == (0, "")
    assert "NAME" in found.stdout
