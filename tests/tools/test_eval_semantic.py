"""The tools that judge search by meaning, and what analysis costs: figures, and a short run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tools import bench_analysis, eval_semantic
from tools.eval_semantic import Score, ways, without_common

#: Keeps the server that is started at its priority; see there.
NOT_NICE = Path(__file__).resolve().parents[1] / "support" / "not_nice"


def test_shares_among_the_first() -> None:
    assert Score.of([0, 0, 2, 9, 10]) == Score(5, 0.4, 0.6, 0.8)
    assert Score.of([]) == Score(0, 0.0, 0.0, 0.0)


def test_what_is_common_is_taken_away() -> None:
    rng = np.random.default_rng(1)
    common, strong = np.eye(8)[0] * 5, np.eye(8)[1]
    x = rng.normal(size=(50, 8)) * 0.1 + common + rng.normal(size=(50, 1)) * 3 * strong
    apply = without_common(x, 1)
    left = apply(x)
    assert np.abs(left.mean(axis=0)).max() < 1e-9
    assert np.abs(left @ strong).max() < np.abs((x - x.mean(axis=0)) @ strong).max() / 10


def test_each_way_finds_what_is_the_same() -> None:
    rng = np.random.default_rng(2)
    question, answer = rng.normal(size=(9, 16)), rng.normal(size=(9, 16))
    found = ways(question, answer, question + answer)
    for way in ("the question alone", "the better of question and answer (two vectors)"):
        assert (found[way](question).argmax(axis=1) == np.arange(9)).all()
    assert (found["the answer alone"](answer).argmax(axis=1) == np.arange(9)).all()


def test_percentiles() -> None:
    found = bench_analysis.figures([n / 1000 for n in range(1, 11)])
    assert found == {"median": 6.0, "p90": 10.0, "p99": 10.0, "greatest": 10.0}


def test_a_short_run_with_a_real_server(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    report = tmp_path / "report.json"
    arguments = ["eval_semantic", "--entries", "25", "--ways", "--json", str(report)]
    monkeypatch.setattr("sys.argv", arguments)
    monkeypatch.setenv("PYTHONPATH", str(NOT_NICE))
    assert eval_semantic.main() == 0
    assert "goal: 60% of the held-out among the first 3: met" in capsys.readouterr().out
    found = json.loads(report.read_text())
    assert found["results"] == 25
    assert found["searched"]["held out"]["at_3"] >= 0.6
    # Through the server, in int8, it is what it is in float64, but for near ties.
    ours = found["ways"]["the mean of the two unit vectors (what llcuda does)"]["trained on"]
    assert found["searched"]["trained on"]["at_3"] == pytest.approx(ours["at_3"], abs=0.05)
