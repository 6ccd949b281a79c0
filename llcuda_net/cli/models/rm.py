"""`llcuda models rm`: removes models from our folder, and touches no other one."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from llcuda_net.cli.common import CommandError, Exit, Parser, fail
from llcuda_net.cli.models.facts import TITLES

if TYPE_CHECKING:
    from llcuda_net.models.files.local_file import LocalFile

HELP = "remove models of the models folder, with all their files"
EPILOG = """\
examples:
  llcuda models rm smollm2
  llcuda models rm --yes old-model.gguf.part broken

It removes all parts of a split model, and its projector if no other model has it. Models of other
programs stay: use those programs. It refuses a model that one of your processes has mapped into its
memory; an engine that has all layers on a GPU may not be noticed.
"""


def add_options(parser: Parser) -> None:
    """Add this subcommand's options."""
    parser.add_argument("names", metavar="NAME", nargs="+", help="as `llcuda models list` has it")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument("--json", action="store_true", help="one JSON object of what is gone")


def run(arguments: argparse.Namespace) -> int:
    """Run `llcuda models rm`; returns its exit code."""
    from llcuda_net.cli.json_documents import line
    from llcuda_net.cli.models.command import models_folder
    from llcuda_net.cli.units import bytes_text, counted
    from llcuda_net.models.files import remove as removing
    from llcuda_net.models.files.folder import scan
    from llcuda_net.models.files.machine import users_of
    from llcuda_net.util.terminal import echo, one_line

    folder = models_folder(arguments)
    files = scan(folder)
    chosen = [_find(name, files, folder) for name in dict.fromkeys(arguments.names)]
    removal = removing.plan(chosen, files)
    names = ", ".join(file.name for file in chosen)
    linked = removing.outside(removal, folder)
    if linked is not None:
        fail(f"{linked} is not in {folder}, only linked there: remove it where it is", Exit.REFUSED)
    users = users_of(removal.files)
    if users:
        pid, program = users[0]
        fail(f"{names} is in use by {program} (process {pid}): unload it first", Exit.REFUSED)
    what = f"{names} ({counted(len(removal.files), 'file')}, {bytes_text(removal.size)})"
    if not arguments.yes and not _agreed(what):
        echo("nothing was removed", file=sys.stderr)
        return Exit.REFUSED
    removing.remove(removal, folder, [file.name for file in chosen])
    if arguments.json:
        gone = [str(path) for path in removal.files]
        kept = [str(path) for path in removal.kept]
        echo(line({"removed": gone, "bytes": removal.size, "kept": kept}))
        return Exit.OK
    echo(one_line(f"removed {what}"))
    for path in removal.kept:
        echo(one_line(f"kept {path.name}: another model has it, too"))
    return Exit.OK


def _agreed(what: str) -> bool:
    from llcuda_net.util.terminal import echo, is_terminal, one_line

    if not (is_terminal(sys.stdin) and is_terminal(sys.stderr)):
        fail(one_line(f"{what} would go; nothing was removed: to do so, add --yes"))
    echo(one_line(f"remove {what}? [y/N] "), end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _find(name: str, files: list[LocalFile], folder: Path) -> LocalFile:
    import difflib

    from llcuda_net.models.files.elsewhere import elsewhere, find
    from llcuda_net.models.pull.resolve import pulled_as

    for file in files:
        # What is a folder is listed only for its problem.
        if name in (file.name, f"{file.source}:{file.name}") and not file.path.is_dir():
            return file
    pulled = pulled_as(name, folder)
    for file in files:
        if file.path == pulled:
            return file
    other = find(name, elsewhere())
    if other is not None:
        whose = f"of {TITLES[other.source]}, in {other.path}"
        raise CommandError(
            f"{name} is {whose}, and stays: rm removes only from {folder}", Exit.REFUSED
        )
    near = difflib.get_close_matches(name, [file.name for file in files], 1)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise CommandError(f"there is no model {name} in {folder}{hint}", Exit.REFUSED)
