"""What cannot be so together is found; what can is not."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llcuda_net.bench.record.consistency import contradictions
from llcuda_net.bench.report import document
from tests.support import bench_records


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return document.read(bench_records.latency(tmp_path_factory.mktemp("r"), "a.json", repeats=3))


def test_a_record_does_not_contradict_itself(record: dict[str, Any], tmp_path: Path) -> None:
    assert contradictions(record) == []
    assert contradictions(document.read(bench_records.throughput(tmp_path, "b.json"))) == []


def _path(found: dict[str, Any]) -> dict[str, Any]:
    (path,) = found["paths"].values()
    assert isinstance(path, dict)
    return path


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda found: found["machine"].update(memory_gib=None), "memory_gib is null"),
        (
            lambda found: found["machine"]["unknown"].update(cores="?"),
            "cores is said to be",
        ),
        (
            lambda found: _path(found)["about"]["facts"]["model"].update(name=None),
            "model.name is null, and nothing",
        ),
        (
            lambda found: _path(found)["metrics"]["ttft"]["p50"].update(low=9e9, high=9.1e9),
            "is not in its interval",
        ),
        (
            lambda found: _path(found)["metrics"]["ttft"]["p50"].update(low=2, high=1),
            "an interval from 2 to 1",
        ),
        (
            lambda found: _path(found)["metrics"]["ttft"].update(max=1e-6),
            "its percentiles do not rise",
        ),
        (lambda found: _path(found)["metrics"]["ttft"].update(count=1), "in its histogram"),
        (lambda found: _path(found)["metrics"]["ttft"].update(histogram="x"), "cannot be read"),
        (lambda found: _path(found)["outcomes"].update(failed=3), "outcomes"),
        (lambda found: found["timeline"].pop(), "timeline"),
        (lambda found: found["repetitions"]["ttft p50"].pop(), "repetitions"),
        (lambda found: found["requests"].update(count=1), "requests: 1, and"),
        (lambda found: found.update(when="yesterday"), "'yesterday' is no time"),
    ],
)
def test_contradictions(
    record: dict[str, Any], change: Callable[[dict[str, Any]], Any], said: str
) -> None:
    found = copy.deepcopy(record)
    change(found)
    lines = contradictions(found)
    assert any(said in line for line in lines), lines
