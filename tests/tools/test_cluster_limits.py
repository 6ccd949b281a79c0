"""What the simulation of a database's limits says where that can be computed by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tools.cluster_limits import Costs, Database, Load, Simulation, main

COSTS = Costs(cores=2, sync=0.001, trip=0.0004, batch=0.0002, result=0.001, row=0.0005, lease=0)


def test_cores_are_a_queue() -> None:
    database = Database(COSTS)
    assert [database.compute(1.0, 0.5) for _ in range(4)] == [1.5, 1.5, 2.0, 2.0]
    assert database.compute(5.0, 0.5) == 5.5
    assert database.busy == 2.5


def test_commits_share_the_sync_behind_the_one_that_runs() -> None:
    database = Database(COSTS)
    assert database.commit(1.0) == pytest.approx(1.001)
    assert [database.commit(at) for at in (1.0002, 1.0009)] == pytest.approx([1.002, 1.002])
    assert database.commit(1.0011) == pytest.approx(1.003)  # during the second one
    assert database.commit(7.0) == pytest.approx(7.001)


def test_one_server_waits_for_nobody() -> None:
    load = Load(streams=1, rate=1.0, tokens=10)
    found = Simulation(COSTS, load, 1, seconds=20.0, seed=1).run()
    assert found.batch_ms == pytest.approx(1.6, abs=0.01)  # trip, core, sync
    # Its own batches of tokens are in the way now and then.
    assert 2.4 - 1e-9 <= found.result_ms <= 3.6
    assert found.cores == pytest.approx((0.0002 / 0.004 + 0.0001) / 2, rel=0.05)
    assert not found.full


@pytest.mark.parametrize(
    ("costs", "what"),
    [
        (Costs(cores=1, batch=0.0005, result=0, row=0), "cores"),
        (Costs(cores=64, sync=0.01), "row"),
    ],
)
def test_what_is_full_is_said(costs: Costs, what: str) -> None:
    load = Load(streams=64, rate=50.0, tokens=10)
    few, many = (Simulation(costs, load, one, seconds=2.0, seed=1).run() for one in (1, 16))
    assert not few.full
    assert many.full
    assert getattr(many, what) > 0.9 > getattr(few, what)
    assert many.results_per_s < 16 * load.results or what == "cores"


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "limits.json"
    assert main(["--servers", "1,2", "--seconds", "0.5", "--json", str(file)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3
    assert [one["servers"] for one in json.loads(file.read_text())["found"]] == [1, 2]
    for wrong in (["--servers", "0"], ["--servers", "x"], ["--row-ms", "5"], ["--rate", "0"]):
        assert main(wrong) == 2
        assert "error: counts must be above 0" in capsys.readouterr().err
