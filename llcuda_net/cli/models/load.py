"""`llcuda models load`: has a running server load models."""

from __future__ import annotations

import argparse
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from llcuda_net.cli.models import serving

if TYPE_CHECKING:
    from llcuda_net.cli.models.serving import ServedModels
    from llcuda_net.cli.progress import Ticker

HELP = "have a running server load models"
EPILOG = """\
A request for a model loads it, too; this does so before there is one. Where it needs the memory of
another model, that is unloaded, once what it runs has ended. Where users have tokens, it takes the
token of one with role=admin. Ctrl-C ends the command, not the load.

examples:
  llcuda models load smollm2
  llcuda models load --server gpu1:9000 --no-wait qwen3 embeddings

environment:
  LLCUDA_SERVER  HOST:PORT, or several: A,B      LLCUDA_TOKEN  the token itself
"""
#: It knows nothing of the models folder.
LOCAL = False


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add this subcommand's options."""
    serving.add_options(parser, "loaded")


def run(arguments: argparse.Namespace) -> int:
    """Run `llcuda models load`; returns its exit code."""
    work = partial(_load, wait=not arguments.no_wait)
    return serving.run_each(arguments, work, "llcuda models load")


def _load(models: ServedModels, name: str, *, wait: bool) -> tuple[str, dict[str, Any]]:
    """Have one loaded.

    Raises:
        RefusedError: it cannot be.
    """
    from llcuda_net.cli.progress import Ticker

    model = models.find(name)
    state = None if model is None else model["state"]
    if model is not None and state in serving.THERE and state != "leaving":
        return f"{name} is loaded already", {"event": "loaded", "seconds": 0.0, **_memory(model)}
    before = 0 if model is None else model["loads"]
    if state != "loading":
        try:
            models.change("load", name)
        except serving.RefusedError as error:
            if error.reason != "model_state":  # else somebody else was faster
                raise
    if not wait:
        return f"{name} is being loaded", {"event": "loading"}
    began = time.monotonic()
    line = Ticker()
    with line:
        model = _follow(models, name, before or 0, line)
    seconds = time.monotonic() - began
    event = {"event": "loaded", "seconds": round(seconds, 3), **_memory(model)}
    return f"{name} is loaded ({seconds:.1f} s)", event


def _follow(models: ServedModels, name: str, before: int, line: Ticker) -> dict[str, Any]:
    """The model once it is loaded, though it may have had to leave again.

    Args:
        before: how often it had been loaded.
    """
    while True:
        model = models.find(name)
        if model is None:
            raise serving.RefusedError(
                f"{name} is no model of the server any more", "model_not_found"
            )
        status = model["status"]
        if model["state"] in serving.THERE or model["loads"] > before:
            return model
        if status.get("failed"):
            raise serving.RefusedError(status["error"], "upstream_unavailable")
        if model["state"] == "unloaded" and not model["wanted"]:
            raise serving.RefusedError(f"{name} was to be unloaded meanwhile", "model_state")
        left = status.get("ready_in")
        about = "" if left is None else f", about {max(1, round(left))} s"
        line.say(f"{status.get('reason') or name}{about}")
        serving.pause()


def _memory(model: dict[str, Any]) -> dict[str, Any]:
    memory = model.get("memory") or {}
    return {"memory": memory.get("host"), "gpu_memory": memory.get("gpu")}
