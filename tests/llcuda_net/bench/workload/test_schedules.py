"""Schedules: fixed by their seed, and distributed as they say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from llcuda_net.bench.runs.latency import Load
from llcuda_net.bench.statistics.summary import rates
from llcuda_net.bench.workload import schedules
from llcuda_net.bench.workload.schedules import Schedule
from llcuda_net.errors import ConfigError


def gaps(schedule: Schedule) -> np.ndarray:
    assert schedule.moments is not None
    return np.diff(schedule.moments)


def test_constant() -> None:
    schedule = schedules.constant(4, 2)
    assert schedule.moments == (0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
    assert schedule.rate == 4


@pytest.mark.parametrize("cv", [0.25, 1.0, 3.0])
def test_gamma_has_the_mean_and_the_variation_that_were_asked_for(cv: float) -> None:
    schedule = schedules.gamma(100, 400, cv, seed=1)
    found = gaps(schedule)
    assert found.mean() == pytest.approx(0.01, rel=0.06)
    assert found.std() / found.mean() == pytest.approx(cv, rel=0.06)


def test_poisson_is_gamma_of_one_and_says_its_own_name() -> None:
    schedule = schedules.poisson(10, 20, seed=3)
    assert schedule.moments == schedules.gamma(10, 20, 1.0, seed=3).moments
    assert schedule.describe() == "poisson arrivals, 10 requests/s"


def test_a_ramp_rises() -> None:
    schedule = schedules.ramp(10, 50, 400, seed=1)
    assert schedule.moments is not None
    counts, _ = np.histogram(schedule.moments, 4, (0, 400))
    # The rate's integral over each quarter: from 10 + 40 t / 400.
    assert counts == pytest.approx([1500, 2500, 3500, 4500], rel=0.06)
    assert schedule.rate == 30


def test_a_ramp_to_the_same_rate_is_level() -> None:
    schedule = schedules.ramp(20, 20, 200, seed=1)
    assert schedule.moments is not None
    assert len(schedule.moments) == pytest.approx(4000, rel=0.06)
    assert max(schedule.moments) < 200


@pytest.mark.parametrize("kind", ["poisson", "gamma:2", "ramp:30"])
def test_the_seed_decides(kind: str) -> None:
    def make(seed: int) -> Schedule:
        return schedules.parse(kind, rate=20, concurrency=1, seconds=10, seed=seed)

    assert make(1) == make(1)
    assert make(1).moments != make(2).moments
    moments = make(1).moments
    assert moments is not None
    assert list(moments) == sorted(moments)
    assert moments[0] >= 0
    assert moments[-1] < 10


def test_a_trace_begins_at_0(tmp_path: Path) -> None:
    file = tmp_path / "trace"
    file.write_text('7.5\n\n{"at": 5, "prompt": "x"}\n9\n')
    schedule = schedules.trace(file)
    assert schedule.moments == (0, 2.5, 4)
    assert schedules.trace(file, 3).moments == (0, 2.5)


@pytest.mark.parametrize("text", ["", "x\n", '{"when": 1}\n', "nan\n", "[1]\n"])
def test_a_trace_that_is_none(tmp_path: Path, text: str) -> None:
    file = tmp_path / "trace"
    file.write_text(text)
    with pytest.raises(ConfigError):
        schedules.trace(file)


@pytest.mark.parametrize(
    ("kind", "rate"),
    [
        ("poisson", None),
        ("poisson", 0.0),
        ("poisson:2", 1.0),
        ("gamma", 1.0),
        ("gamma:0", 1.0),
        ("ramp:-3", 1.0),
        ("closed:2", None),
        ("trace", None),
        ("trace:/nowhere", None),
        ("uniform", 1.0),
        ("constant", 1e9),
    ],
)
def test_what_is_no_schedule_is_refused(kind: str, rate: float | None) -> None:
    with pytest.raises(ConfigError):
        schedules.parse(kind, rate=rate, concurrency=1, seconds=10, seed=1)


def test_a_closed_loop_has_no_moments() -> None:
    schedule = schedules.parse("closed", rate=None, concurrency=3, seconds=10, seed=1)
    assert schedule.closed
    assert schedule.describe() == "closed loop, 3 workers"
    with pytest.raises(ConfigError):
        schedules.closed(0, 1)


def test_a_schedule_without_a_request_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"no request falls into 1 s of poisson arrivals"):
        schedules.poisson(0.001, 1.0, seed=1)


def test_a_run_whose_warm_up_takes_all_requests_measures_nothing() -> None:
    with pytest.raises(ConfigError, match="all 2 requests fall into the warm-up of 4 s"):
        Load(rate=0.5, arrivals="constant", seconds=0.0, warmup=4.0).schedule(1, 4.0)
    with pytest.raises(ConfigError, match="no request was measured after the warm-up"):
        rates([], 4.0, 3.0)
