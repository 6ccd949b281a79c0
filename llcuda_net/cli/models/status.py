"""`llcuda models status`: which models a running server has loaded, and why others wait."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from typing import Any

from llcuda_net.cli import server_options
from llcuda_net.cli.tables import table
from llcuda_net.cli.units import bytes_text
from llcuda_net.util.terminal import echo

HELP = "show which models a running server has loaded, and why others wait"
EPILOG = """\
examples:
  llcuda models status
  llcuda models status --server gpu1:9000 --json

environment:
  LLCUDA_SERVER  HOST:PORT, or several: A,B      LLCUDA_TOKEN  the token itself
"""
#: It knows nothing of the models folder.
LOCAL = False


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add this subcommand's options."""
    parser.add_argument("--json", action="store_true", help="one JSON object per model")
    server_options.add_group(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run `llcuda models status`; returns its exit code."""
    with server_options.Dialler(arguments)() as client:
        report = client.status()
    models = report.get("models", [])
    if arguments.json:
        for model in models:
            echo(json.dumps(model))
        return 0
    for line in table(
        ("MODEL", "STATE", "MEMORY", "RUNNING", "WAITING", "WHY"),
        [_row(model) for model in models],
        right=frozenset({2, 3, 4}),
    ):
        echo(line, styled=True)
    for line in memory_lines(report.get("model_memory", {})):
        echo(line)
    return 0


def _row(model: Mapping[str, Any]) -> Sequence[str]:
    taken = (model.get("memory") or 0) + (model.get("gpu_memory") or 0)
    left = model.get("ready_in")
    why = str(model.get("error") or model.get("reason") or "")
    about = "" if left is None else f", about {max(1, round(left))} s"
    return (
        f"{model['name']}{' (pinned)' if model.get('pinned') else ''}",
        # One of an upstream that others start has no presence.
        str(model.get("presence") or ("loaded" if model.get("slots") else "down")),
        bytes_text(taken) if taken else "",
        str(model.get("running", "")),
        str(model.get("waiting", "")),
        "" if why == "not loaded" else f"{why}{about}",
    )


def memory_lines(memory: Mapping[str, Any]) -> Sequence[str]:
    """How much of their memory all models take; nothing of what takes none and has no bound."""
    lines = []
    for key, said in (("memory", "memory"), ("gpu_memory", "GPU memory")):
        taken, most = memory.get(key) or 0, memory.get(f"{key}_limit")
        if taken or most is not None:
            of = "" if most is None else f" of {bytes_text(most)}"
            lines.append(f"{said}: {bytes_text(taken)}{of}")
    return lines
