"""The tool that shows whether users get what is due to them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tools import eval_fairness
from tools.queueing.scenario import OFF
from tools.queueing.simulation import Fifo, Shares, Simulation


def test_the_table_of_what_was_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The simulation itself is run by the tests of the scheduler."""
    fair = Shares({"ann": 1000.0, "bob": 2100.0}, {"ann": 1000.0, "bob": 2000.0})
    first_come = Shares({"ann": 3000.0, "bob": 100.0}, {"ann": 1000.0, "bob": 2000.0})

    def measured(queue: type[Fifo] | None, seed: int) -> tuple[Simulation, Shares]:
        simulation = Simulation([], queue)
        simulation.finished, simulation.largest["a"] = 1234 + seed, 100
        return simulation, fair if queue is None else first_come

    monkeypatch.setattr(eval_fairness, "measured", measured)
    file = tmp_path / "fairness.json"
    assert eval_fairness.main(["--seeds", "2", "--json", str(file)]) == 0
    runs = json.loads(file.read_text())["runs"]
    assert [(run["queue"], run["seed"]) for run in runs] == [
        ("fair", 1),
        ("fair", 2),
        ("first come", 1),
        ("first come", 2),
    ]
    del runs[0]["seconds"]
    assert runs[0] == {
        "queue": "fair",
        "seed": 1,
        "requests": 1235,
        "largest_request": 100,
        "least_due": 1000,
        "worst_got": 2100,
        "worst_due": 2000,
        "beyond_one_largest_request": 0.0,
    }
    assert runs[2]["beyond_one_largest_request"] == 1.9
    table = capsys.readouterr().out
    assert table.count("fair ") == 2
    assert "2,100 / 2,000" in table
    assert "190.0%" in table
    fair.got["ann"] = 1000.0 * (1 + OFF) + 101.0
    assert eval_fairness.main(["--seeds", "1"]) == 1


@pytest.mark.slow
def test_one_seed_of_it(tmp_path: Path) -> None:
    file = tmp_path / "fairness.json"
    assert eval_fairness.main(["--seeds", "1", "--json", str(file)]) == 0
    fair, first_come = json.loads(file.read_text())["runs"]
    assert fair["beyond_one_largest_request"] <= OFF
    assert first_come["beyond_one_largest_request"] > 1


def test_help_shows_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        eval_fairness.main(["--help"])
    assert "python tools/eval_fairness.py --seeds 5" in capsys.readouterr().out
