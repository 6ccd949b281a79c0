"""Run one group: ``python -m tools.kernels_bench.beside GROUP SCALE``; one JSON object a line."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import Any

from llcuda_net.util.terminal import echo
from tools.kernels_bench.beside.groups import group
from tools.kernels_bench.beside.work import Clock, Work


def _say(**row: Any) -> None:
    echo(json.dumps(row), flush=True)


def _line(error: Exception) -> str:
    first = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {first}"


def _compare(clock: Clock, work: Work) -> None:
    facts: dict[str, Any] = {"work": work.name, "size": work.size, "copies": work.copies}
    for name, run in work.others.items():
        try:
            if work.check is not None and not work.check(work.ours(0), run(0)):
                _say(**facts, beside=name, error="the two do not agree")
                continue
            timed = clock.pair(work, run)
        except Exception as error:
            _say(**facts, beside=name, error=_line(error))
            continue
        mine, theirs, ratio = (asdict(one) for one in timed)
        rate = work.bytes / (mine["median"] * 1e-3) if work.bytes else None
        where = "host" if work.host else "device"
        _say(
            **facts, beside=name, clock=where, ours=mine, theirs=theirs, ratio=ratio, rate=rate
        )  # fmt: skip


def main(name: str, scale: float) -> int:
    """Run it; 3 where there is no PyTorch to compare with."""
    from tools.kernels_bench.peers import torch, versions

    if torch is None:
        return 3
    make = group(name)
    if not sys.stdin.readline():  # until then another group has the GPU
        return 2  # the parent has gone
    _say(versions=versions(), device=torch.cuda.get_device_name())
    clock = Clock(torch)
    for work in make(scale):
        _compare(clock, work)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], float(sys.argv[2])))
