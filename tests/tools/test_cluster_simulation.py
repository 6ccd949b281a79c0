"""The simulation of a cluster: some runs are well, the same seed is the same run, controls fail."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tools import cluster_simulation
from tools.simulated_cluster.world import BROKEN, KINDS, Plan, World


def test_some_runs_are_well(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "json"
    options = ["--runs", "40", "--workers", "1", "--no-controls", "--json", str(file)]
    assert cluster_simulation.main(options) == 0, capsys.readouterr().out
    found = json.loads(file.read_text("utf-8"))
    counts = found["counts"]
    assert found["violations"] == {}
    assert counts["results"] == 40 * Plan.clients
    assert counts["owners"] > 1.2 * counts["results"]  # many had more than one
    assert all(counts[kind] > 5 for kind in KINDS)
    assert counts["unanswered"] > 100
    assert counts["owned"] == 40 * Plan.upstreams


def test_the_same_seed_is_the_same_run() -> None:
    one, other = World(Plan(7)).go(), World(Plan(7)).go()
    assert (one.told, one.counts) == (other.told, other.counts)
    assert World(Plan(8)).go().told != one.told


@pytest.mark.parametrize("mode", BROKEN)
def test_a_broken_cluster_is_found_out(mode: str) -> None:
    plan = Plan(1, mode)
    for number in range(cluster_simulation.CONTROL):
        if World(replace(plan, seed=plan.seed + number)).go().violations:
            return
    raise AssertionError(f"{mode} was not noticed")
