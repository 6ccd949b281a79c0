"""`llcuda models list`: the models that are on this machine, ours and those of other programs."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from llcuda_net.cli.common import Exit, Parser
from llcuda_net.cli.models.facts import (
    TITLES,
    Machine,
    add_load_options,
    context,
    document,
    estimates,
    fits,
    parameters_text,
)

if TYPE_CHECKING:
    from llcuda_net.models.files.local_file import LocalFile

HELP = "list the models on this machine, and whether they fit into its memory"
EPILOG = """\
examples:
  llcuda models list
  llcuda models list --ours
  llcuda models list --json | jq -r 'select(.memory.fits != "no") | .name'

It looks into the models folder, Hugging Face's cache, LM Studio's and Ollama's models, and
llama.cpp's cache, and reads the headers of files only. MEMORY is an estimate without a GPU, for 4
slots of at most 4096 tokens. FITS is GPU (with all layers), yes (in host memory), "in part on the
GPU", or no. What cannot be used is named on stderr.

environment:
  LLCUDA_MODELS   the models folder        OLLAMA_MODELS  Ollama's models
  HF_HUB_CACHE    Hugging Face's cache,    LLAMA_CACHE    llama.cpp's cache
                  or HF_HOME               NO_COLOR       when set, no colours
"""
_HEADS = ("NAME", "FROM", "SIZE", "QUANT", "PARAMETERS", "CONTEXT", "KIND", "MEMORY", "FITS")
_RIGHT = frozenset({2, 4, 5, 7})


def add_options(parser: Parser) -> None:
    """Add this subcommand's options."""
    parser.add_argument("--ours", action="store_true", help="only those of the models folder")
    add_load_options(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object per line")


def run(arguments: argparse.Namespace) -> int:
    """Run `llcuda models list`; returns its exit code."""
    from llcuda_net.cli.json_documents import line
    from llcuda_net.cli.models.command import models_folder
    from llcuda_net.cli.tables import table
    from llcuda_net.models.files.elsewhere import everything
    from llcuda_net.models.files.folder import scan
    from llcuda_net.util.terminal import echo, one_line

    folder = models_folder(arguments)
    files = scan(folder) if arguments.ours else everything(folder)
    machine = Machine.here()
    if arguments.json:
        for file in files:
            ctx = 0 if file.model is None else context(file.model, arguments)
            echo(line(document(file, ctx, arguments.slots, machine)))
        return Exit.OK
    usable = [file for file in files if not file.problem]
    if usable:
        for text in table(_HEADS, (_row(f, arguments, machine) for f in usable), right=_RIGHT):
            echo(text, styled=True)
    else:
        where = f"in {folder}" if arguments.ours else f"on this machine, nor in {folder}"
        note = f"there are no models {where}: llcuda models pull gets some"
        echo(one_line(note), file=sys.stderr)
    for file in files:
        if file.problem:
            note = f"{file.name} ({TITLES[file.source]}) cannot be used: {file.problem}"
            echo(one_line(note), file=sys.stderr)
        elif file.note and file.source == "models":
            echo(one_line(f"{file.name}: {file.note}"), file=sys.stderr)
    return Exit.OK


def _row(file: LocalFile, arguments: argparse.Namespace, machine: Machine) -> list[str]:
    from llcuda_net.cli.units import bytes_text

    model = file.model
    assert model is not None
    kind = f"{model.kind} + images" if file.mmproj else str(model.kind)
    row = [
        file.name,
        TITLES[file.source],
        bytes_text(model.size),
        model.quantisation or "?",
        parameters_text(model.parameters),
        str(model.trained_context or "?"),
        kind,
    ]
    if not file.is_model:
        return [*row, "", ""]
    host, gpu = estimates(file, context(model, arguments), arguments.slots)
    return [*row, bytes_text(host.host), fits(host, gpu, machine) or "?"]
