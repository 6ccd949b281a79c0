"""`llcuda models unload`: has a running server free the memory of models."""

from __future__ import annotations

import argparse
from functools import partial
from typing import TYPE_CHECKING, Any

from llcuda_net.cli.models import serving
from llcuda_net.cli.units import counted

if TYPE_CHECKING:
    from llcuda_net.cli.models.serving import ServedModels

HELP = "have a running server unload models"
EPILOG = """\
What runs on a model finishes first; it gets no new work meanwhile. The next request for it loads it
again, unless no table or folder of the server has it any more. Where users have tokens, it takes
the token of one with role=admin. Ctrl-C ends the command, not what it began.

examples:
  llcuda models unload smollm2
  llcuda models unload --server gpu1:9000 qwen3 embeddings

environment:
  LLCUDA_SERVER  HOST:PORT, or several: A,B      LLCUDA_TOKEN  the token itself
"""
#: It knows nothing of the models folder.
LOCAL = False


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add this subcommand's options."""
    serving.add_options(parser, "unloaded")


def run(arguments: argparse.Namespace) -> int:
    """Run `llcuda models unload`; returns its exit code."""
    work = partial(_unload, wait=not arguments.no_wait)
    return serving.run_each(arguments, work, "llcuda models unload")


def _unload(models: ServedModels, name: str, *, wait: bool) -> tuple[str, dict[str, Any]]:
    """Have one unloaded.

    Raises:
        RefusedError: it cannot be.
    """
    from llcuda_net.cli.progress import Ticker

    model = models.find(name)
    if model is not None and model["state"] == "unloaded" and not model["wanted"]:
        return f"{name} is not loaded", {"event": "unloaded"}
    before = None if model is None else model["loads"]
    try:
        models.change("unload", name)
    except serving.RefusedError as error:
        if error.reason != "model_state":  # else it is as good as gone
            raise
    if not wait:
        return f"{name} is being unloaded", {"event": "unloading"}
    line = Ticker()
    with line:
        while model is not None and model["state"] != "unloaded" and model["loads"] == before:
            runs = counted(model["running"], "request")
            line.say(f"{name} is being unloaded" + (f" after {runs}" if model["running"] else ""))
            serving.pause()
            model = models.find(name)
    return f"{name} is unloaded", {"event": "unloaded"}
