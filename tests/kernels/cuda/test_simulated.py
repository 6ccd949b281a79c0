"""The CUDA kernels against the reference, in the simulator, in a process of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
FILES = sorted(Path(__file__).with_name("simulated").glob("test_*.py"))


def simulate(which: str, *paths: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", which, *paths],
        env={**os.environ, "NUMBA_ENABLE_CUDASIM": "1"},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout


def test_kernels_in_the_simulator() -> None:
    """Every kernel that has a twin, at the smallest sizes that reach all of its branches."""
    simulate("not slow", *FILES)


@pytest.mark.slow
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_kernels_in_the_simulator_at_larger_sizes(path: Path) -> None:
    simulate("slow", path)
