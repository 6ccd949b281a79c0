#!/usr/bin/env python3
"""Write a GGUF file with random weights, of the shape of a real model, to measure speed with."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "protocol")]  # runs from anywhere, without being installed

from llcuda_net.cli.common import Parser
from llcuda_net.util.terminal import echo

EXAMPLE = """\
example:
  python tools/random_model.py --shape 135m --output 135m.gguf
  python tools/random_model.py --shape 8b --type f16 --output /dev/shm/8b.gguf

shapes: 135m is SmolLM2-135M's, 8b is Llama 3.1 8B's (8.5 GB in q8_0, 16 GB in f16).
Needs numpy and gguf.

exit codes: 0 written, 1 it could not be, 2 usage
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    out = Parser(description=__doc__, epilog=EXAMPLE)
    out.add_argument("--shape", choices=("tiny", "135m", "8b"), default="135m")
    out.add_argument("--type", choices=("q8_0", "f16"), default="q8_0", help="default: q8_0")
    out.add_argument("--output", type=Path, required=True, metavar="FILE")
    out.add_argument("--seed", type=int, default=1)
    return out


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool; returns its exit code."""
    args = parser().parse_args(argv)
    from tools.slots.random_model import SHAPES, write  # numpy takes a while

    began = time.monotonic()
    try:
        size = write(args.output, SHAPES[args.shape], args.type == "q8_0", args.seed)
    except OSError as error:
        echo(f"random_model: {error}", file=sys.stderr)
        return 1
    echo(f"{args.output}: {size / 1e9:.2f} GB in {time.monotonic() - began:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
