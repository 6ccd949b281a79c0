"""bench_cancel: its figures are those that were measured, and it runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tools import bench_cancel, cancel_rig
from tools.bench_cancel import quantile, table

TOOL = Path(bench_cancel.__file__)


@pytest.mark.parametrize(
    ("part", "value"), [(0.0, 1.0), (0.1, 1.0), (0.5, 5.0), (0.9, 9.0), (0.91, 10.0), (1.0, 10.0)]
)
def test_quantiles_are_measured_values(part: float, value: float) -> None:
    assert quantile([float(n) for n in range(10, 0, -1)], part) == value


def _found(closed: float, free: float, phase: str = "reading") -> dict[str, Any]:
    row = {"phase": phase, "how": "drop", "closed": [closed], "free": [free]}
    return {"tries": 1, "batch": 0.1, "rows": [row]}


@pytest.mark.parametrize(
    ("found", "good"),
    [
        (_found(0.019, 1.29), True),
        (_found(0.021, 1.0), False),
        (_found(0.001, 1.31), False),
        (_found(0.001, 0.19, "streaming"), True),
        (_found(0.001, 0.21, "streaming"), False),
    ],
)
def test_a_median_over_its_bound_is_marked(found: dict[str, Any], good: bool) -> None:
    text, within = table(found)
    assert within is good
    assert ("OVER" in text) is not good


def test_one_try_of_everything(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in (bench_cancel, cancel_rig):
        monkeypatch.setattr(module, "SLOTS", 4)
    code = bench_cancel.main(["--tries", "1", "--json", "-"])
    assert code in (0, 1)  # how soon is not for a test to say
    found = json.loads(capsys.readouterr().out)
    assert [(row["phase"], row["how"]) for row in found["rows"]] == [
        (phase, how) for phase in ("streaming", "reading") for how in ("cancel", "drop")
    ]
    for row in found["rows"]:
        assert len(row["closed"]) == len(row["free"]) == 1
        assert min(*row["closed"], *row["free"]) > 0


def test_a_wrong_option_is_usage() -> None:
    ended = subprocess.run(
        [sys.executable, str(TOOL), "--tries", "0"], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 2
    assert "must be at least 1" in ended.stderr
