"""The tools of a clone are the commands, with a synthetic upstream besides."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from llcuda_net.cli.bench import latency
from tools import bench_latency, bench_scaling, bench_throughput


def test_help_shows_the_same_options() -> None:
    for tool in (bench_latency, bench_throughput, bench_scaling):
        file = Path(str(tool.__file__))
        name = file.name
        done = subprocess.run(
            [sys.executable, str(file), "--help-all"],
            capture_output=True,
            text=True,
            timeout=300,
            check=True,
        )
        assert done.stdout.startswith(f"usage: {name} [options]")
        for text in ("{demo,synthetic}", "--rate-per-slot", f"  python tools/{name} --"):
            assert text in done.stdout


def test_a_synthetic_upstream_is_started(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = latency.main(
        ["--start", "synthetic", "--direct", "started", "--inflight", "2", "--iters", "10",
         "--repeats", "1", "--warmup", "100ms", "--max-tokens", "4", "--durability", "memory",
         "--max-lag", "30s", "--json", str(tmp_path / "a.json")],
        bench_latency.TOOL,
    )  # fmt: skip
    said = capsys.readouterr().out
    assert code in (0, 1), said  # on a busy machine INVALID
    assert "llcuda-server" in said
    assert "llama-server" in said
    assert "from a server that does nothing it reads" in said  # the self-test
