#!/usr/bin/env python3
"""Visit every state of a small cluster, whatever happens in it, and check each."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "protocol")]  # runs from anywhere, without being installed

from llcuda_net.cli.common import Parser
from llcuda_net.util.terminal import echo
from tests.support.cluster.explorer import Explored, WrongError, explore
from tests.support.cluster.ownership import Rules, State, is_over, start, steps, wrong
from tools.campaign import command

EXAMPLE = """\
example:
  python tools/cluster_explorer.py
  python tools/cluster_explorer.py --servers 2 --tokens 1 --under-way 2

One generation, its servers, one reader: servers generate tokens, write them into their journals,
fence each other, read journals, adopt; they are killed, or stand still for as long as they like; a
lease may be over at any moment; the same write may be under way several times; writes and answers
are lost. Every order of all that is tried.

Checked at each step: the log only grows, it has each token once, and what the reader has is its
beginning. From each state everything can still come to its end.

Without options the scopes of SCOPES are explored, and each rule is left out once, which must be
found out.

exit codes: 0 all is well, 1 something is not, 2 usage, 130 interrupted
"""
#: What is explored: servers, tokens, and copies of a server's write that may be under way.
SCOPES = (Rules(2, 2, 2), Rules(3, 1, 1))
#: Rules that must not be left out, and where that is seen.
CONTROLS = {
    "fencing": Rules(fencing=False),
    "commit_first": Rules(commit_first=False),
    "same_number": Rules(same_number=False),
    "fence_first": Rules(fence_first=False),
    "own_fence": Rules(3, 1, 1, own_fence=False),
}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    out = Parser(description=__doc__, epilog=EXAMPLE)
    for name in ("servers", "tokens", "under-way"):
        out.add_argument(f"--{name}", type=command.positive, help="explore one scope: how many")
    return out


def visited(rules: Rules) -> Explored[State]:
    """All states of a scope. Raises WrongError."""
    return explore(start(rules), partial(steps, rules=rules), wrong, partial(is_over, rules=rules))


def main(argv: Sequence[str] | None = None) -> int:
    """Explore, and print what there was."""
    args = parser().parse_args(argv)
    given = {
        name: number
        for name in ("servers", "tokens", "under_way")
        if (number := getattr(args, name)) is not None
    }
    bad = 0
    for rules in [replace(Rules(), **given)] if given else SCOPES:
        scope = (
            f"{rules.servers} servers, {rules.tokens} tokens, {rules.under_way} of each write under"
            " way"
        )
        began = time.monotonic()
        try:
            found = visited(rules)
        except WrongError as error:
            echo(f"{scope}: WRONG: {error}")
            bad += 1
            continue
        seconds = time.monotonic() - began
        stuck = f", {len(found.stuck):,} STUCK" if found.stuck else ""
        bad += bool(found.stuck)
        echo(
            f"{scope}: {found.states:,} states, {found.steps:,} steps{stuck} ({seconds:,.0f} s)",
            flush=True,
        )
    return int(bool(bad) | (False if given else _controls()))


def _controls() -> bool:
    """Leave each rule out; whether that is missed once."""
    missed = False
    for name, rules in CONTROLS.items():
        try:
            visited(rules)
        except WrongError as error:
            echo(f"control {name}: noticed after {str(error).count(chr(10)) - 1} steps")
        else:
            echo(f"control {name}: NOT NOTICED")
            missed = True
    return missed


if __name__ == "__main__":
    sys.exit(main())
