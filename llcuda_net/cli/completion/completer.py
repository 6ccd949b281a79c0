"""Completion in bash, zsh and fish, by argcomplete: the commands' own parsers say what fits.

The shell runs the command without arguments, with the line in the environment; what would begin to
parse its arguments prints what fits at the cursor, and ends. argcomplete is loaded only then.
"""

from __future__ import annotations

import argparse
import os

#: The shells that `llcuda completion` knows.
SHELLS = ("bash", "zsh", "fish")
#: The commands that are completed.
PROGRAMS = ("llcuda", "llcuda-server", "llcuda-client", "llcuda-mpi")
#: argcomplete's: where in the line the command's own words begin, from 1.
_START = "_ARGCOMPLETE"


def code(shell: str) -> str:
    """What a shell must run once to complete the commands."""
    from argcomplete.shell_integration import shellcode

    return str(shellcode(list(PROGRAMS), shell=shell))


def asked() -> bool:
    """Whether a shell asks what fits."""
    return _START in os.environ and "COMP_LINE" in os.environ


def answer(parser: argparse.ArgumentParser) -> None:
    """Print what fits, and end the process."""
    from argcomplete import autocomplete

    autocomplete(parser)


def words() -> list[str]:
    """The words of the line that are whole, behind the command's name."""
    from argcomplete.lexers import split_line

    line = os.environ["COMP_LINE"]
    point = int(os.environ.get("COMP_POINT", len(line)))
    whole: list[str] = split_line(line, point)[3]
    return whole[int(os.environ[_START]) :]


def enter() -> None:
    """Where a shell asks: go on with a subcommand's parser, whose words begin one further."""
    if asked():
        os.environ[_START] = str(int(os.environ[_START]) + 1)
