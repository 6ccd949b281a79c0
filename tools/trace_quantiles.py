"""Computes the tables of quantiles in llcuda_net/bench/workload/catalogue.py from the traces.

Of a Mooncake trace also those of the requests that begin a conversation and of what is new in later
ones: a request goes on from an earlier one where the earlier one's full blocks of 512 tokens, two
at least (the first is the same in all conversations), are its own prefix, and where it is longer
than that request's prompt and answer together. Of several the longest prefix counts, then the
latest.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # so that the script runs from anywhere

from llcuda_net.bench.workload.quantiles import SHARES
from llcuda_net.bench.workload.traces import BLOCK, Entry, read
from llcuda_net.cli.common import Parser, run_command
from llcuda_net.util.terminal import echo

#: Full blocks that must be alike.
_ALIKE = 2


def table(values: Sequence[float]) -> list[int]:
    """The quantiles at SHARES, linear between neighbours, as whole numbers."""
    return [round(float(value)) for value in np.quantile(np.asarray(values, float), SHARES)]


def conversations(entries: Sequence[Entry]) -> tuple[list[Entry], list[tuple[Entry, Entry]]]:
    """Requests that begin a conversation, and each later one with the one that it goes on from."""
    first: list[Entry] = []
    later: list[tuple[Entry, Entry]] = []
    known: dict[tuple[int, int], Entry] = {}
    for entry in entries:
        blocks = entry.blocks or ()
        before = None
        for count in range(len(blocks), _ALIKE - 1, -1):
            found = known.get((count, blocks[count - 1]))
            if found is not None and entry.prompt > found.prompt + found.answer:
                before = found
                break
        if before is None:
            first.append(entry)
        else:
            later.append((before, entry))
        full = entry.prompt // BLOCK
        if full >= _ALIKE:
            known[full, blocks[full - 1]] = entry
    return first, later


def tables(path: Path) -> dict[str, tuple[int, float, list[int]]]:
    """How many, their mean, and the table of each kind of length in a trace.

    Raises:
        ConfigError: it is no trace with lengths.
    """
    trace = read(path)
    kinds: dict[str, list[float]] = {
        "prompts": [entry.prompt for entry in trace.entries],
        "answers": [entry.answer for entry in trace.entries],
    }
    if any(entry.blocks for entry in trace.entries):
        first, later = conversations(trace.entries)
        kinds["first prompts"] = [entry.prompt for entry in first]
        kinds["first answers"] = [entry.answer for entry in first]
        kinds["new in later prompts"] = [b.prompt - a.prompt - a.answer for a, b in later]
        kinds["seconds from one to the next"] = [b.at - a.at for a, b in later]
    return {
        name: (len(values), float(np.mean(values)), table(values))
        for name, values in kinds.items()
        if values
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Print the tables of each trace; returns the exit code."""
    parser = Parser(
        description="Print quantiles of the lengths in a trace (Azure, BurstGPT, Mooncake).",
        epilog="example: python tools/trace_quantiles.py AzureLLMInferenceTrace_conv.csv",
    )
    parser.add_argument("traces", nargs="+", type=Path, metavar="FILE")
    paths = parser.parse_args(argv).traces

    def run() -> int:
        for path in paths:
            echo(f"{path.name}; at shares {', '.join(map(str, SHARES))}")
            for name, (count, mean, values) in tables(path).items():
                echo(f"  {name}: {count:,}, mean {mean:,.1f}")
                echo(f"    {', '.join(map(str, values))}")
        return 0

    return run_command("trace_quantiles", run)


if __name__ == "__main__":
    sys.exit(main())
