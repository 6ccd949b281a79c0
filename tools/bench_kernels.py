#!/usr/bin/env python3
"""Check every kernel against its reference, then time it, beside what this machine can do."""

from __future__ import annotations

import argparse
import gc
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
# in place of this folder, where "coverage" is not the package that Numba looks for
sys.path[:1] = [str(ROOT), str(ROOT / "kernels")]

import llcuda_kernels as k
from llcuda_kernels import selfcheck
from llcuda_net.cli.common import Parser
from llcuda_net.util.terminal import echo

EXAMPLE = """\
example:
  python tools/bench_kernels.py --json kernels.json
  python tools/bench_kernels.py --device-only --scale 0.1
  python tools/bench_kernels.py --check
  python tools/bench_kernels.py --peers --json peers.json --markdown peers.md

On a GPU, times are those of events on the device, with the caches emptied before each run: the
median of 21, with the least and the greatest. The limits (a copy, cuBLAS through PyTorch) are
measured in the same run; without PyTorch there is no cuBLAS to compare with.

--peers times each kernel beside what a user would call instead (PyTorch, torch.compile, CuPy, and
cuVS where it is installed), in turn and in one run, at the sizes of real models; weights are
rotated over four times the L2 cache. Each group runs in a process of its own, and what fails is
told.

exit codes: 0 all checks passed (with --peers: everything was measured), 1 one did not, 2 usage
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run it."""
    parser = Parser(
        description=__doc__,
        epilog=EXAMPLE,
    )
    parser.add_argument("--check", action="store_true", help="check only, time nothing")
    parser.add_argument("--device-only", action="store_true", help="do not time the CPU paths")
    parser.add_argument(
        "--only",
        metavar="WORDS",
        help="time only what has one of these words, with commas between them, in its name",
    )
    parser.add_argument("--peers", action="store_true", help="time beside what others offer")
    parser.add_argument(
        "--budget",
        type=float,
        default=math.inf,
        metavar="SECONDS",
        help="with --peers: begin no group later",
    )
    parser.add_argument("--scale", type=float, default=1.0, help="sizes, as a share of the full")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to FILE")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write tables to FILE")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw a roofline to FILE (PNG)")
    parser.add_argument("--seed", type=int, default=None, help="for the inputs of the checks")
    options = parser.parse_args(argv)

    found = k.gpu()
    report: dict[str, Any] = {"gpu": found.__dict__, "checks": [], "device": [], "cpu": {}}
    if options.peers:
        return _beside(options, report)
    backends = ["cpu", "cuda"] if found.usable else ["cpu"]
    if options.device_only and found.usable:
        backends = ["cuda"]
    echo(f"GPU: {found.name or 'none'} {found.reason}", flush=True)
    failed = 0
    for backend in backends:
        for name in selfcheck.names():
            outcome = selfcheck.run(name, backend, options.seed)  # type: ignore[arg-type]
            report["checks"].append(outcome.__dict__)
            failed += not outcome.passed
            mark = "ok  " if outcome.passed else "FAIL"
            echo(
                f"{mark} {backend:4} {name:24} {outcome.miss:9.3g} of the error allowed, "
                f"{outcome.seconds:6.2f} s  {outcome.reason}",
                flush=True,
            )
    if not options.check:
        if found.usable:
            _device(options, report)
        if not options.device_only:
            from tools.kernels_bench import host

            report["cpu"] = host.measure(options.scale)
            for name, row in report["cpu"].items():
                echo(f"{name:40} " + "  ".join(f"{key} {v:.4g}" for key, v in row.items()))
    if options.json:
        options.json.write_text(json.dumps(report, indent=1, default=str) + "\n")
    if options.markdown or options.plot:
        from tools.kernels_bench import report as writer

        if options.markdown:
            options.markdown.write_text(writer.markdown(report))
        if options.plot and report["device"]:
            writer.roofline(report, options.plot)
    return 1 if failed else 0


def _beside(options: argparse.Namespace, report: dict[str, Any]) -> int:
    """Time the groups beside others; 1 where anything could not be measured."""
    from tools.kernels_bench.beside import comparison

    if not report["gpu"]["usable"]:
        echo(f"nothing to compare: {report['gpu']['reason']}")
        return 1
    found = comparison.compare(
        options.scale, options.only, lambda text: echo(text, flush=True), options.budget
    )
    missing = comparison.failures(found)
    for reason in missing:
        echo(f"not measured: {reason}", flush=True)
    report["beside"] = found
    if options.json:
        options.json.write_text(json.dumps(report, indent=1, default=str) + "\n")
    if options.markdown:
        options.markdown.write_text(comparison.table(found))
    return 1 if missing else 0


def _wanted(name: str, only: str | None) -> bool:
    return only is None or any(word.strip() in name for word in only.split(","))


def _device(options: argparse.Namespace, report: dict[str, Any]) -> None:
    from tools.kernels_bench import device, peers, small
    from tools.kernels_bench.clock import DeviceClock

    clock = DeviceClock()
    report["versions"] = {**peers.versions()}
    best: dict[str, float] = {}
    for family in device.FAMILIES:
        for case in family(options.scale):
            if not _wanted(case.name, options.only) and family is not device.limits:
                continue
            try:
                took = clock.time(case.run)
                rate = (case.bytes or case.operations) / (took.median * 1e-3)
                others = {name: clock.time(run).median for name, run in case.peers.items()}
            except Exception as error:
                echo(f"{case.name}: {type(error).__name__}: {error}", flush=True)
                report["device"].append({"name": case.name, "error": str(error)})
                continue
            if not case.limit:
                best[case.name] = rate
            share = 100 * rate / best[case.limit] if case.limit in best else None
            row = {
                "name": case.name, "size": case.size, "median_ms": took.median,
                "least_ms": took.least, "greatest_ms": took.greatest, "rate": rate,
                "unit": "B/s" if case.bytes else "operations/s", "bytes": case.bytes,
                "operations": case.operations, "limit": case.limit, "percent": share,
                "aim": case.aim, "peers_ms": others,
            }  # fmt: skip
            report["device"].append(row)
            unit = "GB/s" if case.bytes else "TFLOP/s"
            shown = rate / (1e9 if case.bytes else 1e12)
            echo(
                f"{case.name:38} {case.size:18} {took.median:9.4f} ms "
                f"({took.least:.4f} to {took.greatest:.4f}) {shown:9.1f} {unit:8}"
                + (f" {share:5.1f} % of {case.limit}" if share is not None else "")
                + (f", aim {case.aim}" if case.aim else "")
                + "".join(f", {n} {ms:.4f} ms" for n, ms in others.items()),
                flush=True,
            )
        gc.collect()
    extras: tuple[tuple[str, Any], ...] = (
        ("launches", small.launches),
        ("overlap", small.overlap),
        ("leak", small.leak),
    )
    for name, run in extras:
        if not _wanted(name, options.only):
            continue
        try:
            report[name] = run()
        except Exception as error:
            report[name] = {"error": f"{type(error).__name__}: {error}"}
        echo(f"{name} {report[name]}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
