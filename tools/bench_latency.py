#!/usr/bin/env python3
"""`llcuda bench latency` from a clone; --start also starts a synthetic upstream."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), *(str(ROOT / part) for part in ("protocol", "kernels"))]

from llcuda_net.cli.bench import latency
from llcuda_net.cli.bench.tool import Tool

SYNTHETIC = str(ROOT / "tools" / "synthetic_upstream.py")
TOOL = Tool(
    prog="bench_latency.py",
    call="python tools/bench_latency.py",
    name="tools/bench_latency.py",
    upstreams={"synthetic": [sys.executable, SYNTHETIC, "--exit-on-eof", "--ctx", "100000"]},
)

if __name__ == "__main__":
    sys.exit(latency.main(tool=TOOL))
