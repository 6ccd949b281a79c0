#!/usr/bin/env python3
"""Compare estimates of a model's memory with what a llama-server logs and takes."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "protocol")]  # runs from anywhere, without being installed

from llcuda_net.cli.common import Parser
from llcuda_net.util.terminal import echo

EXAMPLE = """\
example:
  python tools/eval_memory.py --program ~/llama.cpp/build/bin/llama-server --model smollm2.gguf

Writes models of zeros with the shapes of known ones into a temporary folder (sparse: a few MB), or
takes those of --model, loads each on the CPU with several contexts and types of cache, and has it
read a prompt of 512 tokens. Prints a table in Markdown, in MiB: estimate / log, and for all of it
estimate / process. Takes some minutes, and 2 GB of memory.

exit codes: 0 done, 1 one of them did not load, 2 usage
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    out = Parser(description=__doc__, epilog=EXAMPLE)
    out.add_argument(
        "--program", metavar="FILE", default="llama-server", help="default: llama-server, on PATH"
    )
    out.add_argument(
        "--model", metavar="FILE", type=Path, action="append", default=[], help="these files, too"
    )
    out.add_argument(
        "--shape", metavar="NAME", action="append", help="only these shapes; default: all"
    )
    return out


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool; returns its exit code."""
    args = parser().parse_args(argv)
    program = shutil.which(args.program)
    if program is None:
        echo(f"eval_memory: there is no program {args.program}", file=sys.stderr)
        return 2
    from tools.model_memory.compare import CASES, HEADS, compare
    from tools.model_memory.shapes import SHAPES, write

    shapes = args.shape if args.shape is not None else [*([] if args.model else SHAPES)]
    if wrong := [name for name in shapes if name not in SHAPES]:
        echo(f"eval_memory: no shape {wrong[0]}: {', '.join(SHAPES)}", file=sys.stderr)
        return 2
    echo(HEADS)
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        # A copy: of a file that others have mapped, the process has only a part.
        for source in [*args.model, *shapes]:
            if isinstance(source, Path):
                path = Path(shutil.copy(source, folder))
            else:
                path = write(Path(folder) / f"{source}.gguf", *SHAPES[source]())
            for case in CASES:
                failed |= not compare(program, path, case)
            path.unlink()
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
