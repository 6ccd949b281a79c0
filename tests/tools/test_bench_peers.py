"""The kernels beside others: what is printed was measured, and a group costs only itself."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from tools.kernels_bench.beside import comparison
from tools.kernels_bench.beside.groups import GROUPS, group
from tools.kernels_bench.beside.work import Clock, Work, copies_for, made, near, spread

TIMED = {"median": 1.0, "least": 0.5, "greatest": 2.0}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="numba-cuda is for Linux")
def test_every_group_is_there() -> None:
    for name in GROUPS:
        assert callable(group(name))


def test_weights_are_rotated_over_four_times_the_cache() -> None:
    assert copies_for(29e6, 60e6) == 9
    assert 9 * 29e6 >= 4 * 60e6 > 8 * 29e6
    assert copies_for(1e12, 60e6) == 1
    assert copies_for(0, 60e6) == 1


def test_the_spread_is_that_of_the_rounds() -> None:
    assert spread([3.0, 1.0, 2.0]) == spread([1.0, 2.0, 3.0])
    found = spread([3.0, 1.0, 2.0])
    assert (found.least, found.median, found.greatest) == (1.0, 2.0, 3.0)


def test_results_of_one_kind_agree_and_others_do_not() -> None:
    assert near([1.0, 2.0], [1.0, 2.001])
    assert not near([1.0, 2.0], [1.0, 3.0])
    assert not near([1.0], [1.0, 1.0])
    assert not near([float("nan")], [1.0])


def test_one_that_cannot_be_made_says_why_when_it_is_called() -> None:
    def make(x: int) -> Any:
        raise ValueError(f"no {x}")

    with pytest.raises(ValueError, match="no 7"):
        made(make, 7)(0)
    assert made(lambda x: lambda i: x + i, 1)(2) == 3


class _Gpu:
    """Events that tell a clock which only calls move on."""

    def __init__(self) -> None:
        self.now = 0.0
        gpu = self

        class Event:
            def __init__(self, enable_timing: bool) -> None:
                self.at = 0.0

            def record(self) -> None:
                self.at = gpu.now

            def elapsed_time(self, end: Any) -> float:
                return float(end.at - self.at)

        self.cuda = SimpleNamespace(
            Event=Event,
            synchronize=lambda: None,
            _sleep=lambda cycles: None,
            get_device_properties=lambda i: SimpleNamespace(L2_cache_size=60_000_000),
        )

    def takes(self, seconds: float, seen: list[int]) -> Any:
        def run(i: int) -> None:
            seen.append(i)
            self.now += seconds

        return run


def test_the_ratio_is_the_others_time_over_ours_and_all_copies_are_used() -> None:
    gpu = _Gpu()
    mine: list[int] = []
    theirs: list[int] = []
    work = Work("w", "1", gpu.takes(2.0, mine), {}, copies=3)
    ours, other, ratio = Clock(gpu).pair(work, gpu.takes(5.0, theirs))
    assert (ours.median, other.median, ratio.median) == (2.0, 5.0, 2.5)
    assert set(mine) == set(theirs) == {0, 1, 2}


def _command(script: str) -> list[str]:
    return [sys.executable, "-c", f"import json, sys, time\n{script}"]


def _row(**more: Any) -> dict[str, Any]:
    row = {"work": "softmax", "size": "2 x 2", "beside": "torch", "ours": TIMED, "theirs": TIMED}
    return {**row, "ratio": TIMED, **more}


def test_rows_of_a_group_that_dies_are_kept() -> None:
    rows: list[Any] = []
    script = (
        "assert sys.stdin.readline() == 'go\\n'\n"
        "print(json.dumps({'work': 'a'}), flush=True)\nprint('noise')\n"
        "sys.stderr.write('CUDA error: an illegal memory access\\n')\nsys.exit(9)"
    )
    reason = comparison.finish(comparison._popen(_command(script)), 30, rows.append)
    assert rows == [{"work": "a"}]
    assert reason == "exit code 9: CUDA error: an illegal memory access"
    none = comparison.finish(comparison._popen(_command("sys.exit(3)")), 30, rows.append)
    assert none.startswith("PyTorch")
    assert comparison.finish(comparison._popen(_command("")), 30, rows.append) == ""


def test_a_group_that_hangs_is_ended() -> None:
    reason = comparison.finish(
        comparison._popen(_command("time.sleep(600)")), 0.5, lambda row: None
    )
    assert reason == "it took more than 0 s"


def test_what_was_not_measured_is_told_and_not_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "GROUPS", {"a": "", "b": "", "c": ""})
    given: dict[str, tuple[list[dict[str, Any]], str]] = {
        "a": ([{"versions": {"torch": "9"}, "device": "H"}, _row()], ""),
        "b": ([_row(beside="cupy", error="the two do not agree")], "exit code 1: boom"),
        "c": ([_row(work="c")], ""),
    }

    started: list[str] = []

    def start(name: str, scale: float) -> str:
        started.append(name)
        return name

    def finish(name: str, limit: float, take: Any) -> str:
        # the next one imports while this one measures, and no more than that one
        assert started[-1] == min("c", chr(ord(name) + 1))
        rows, reason = given[name]
        for row in rows:
            take(row)
        return reason

    monkeypatch.setattr(comparison, "start", start)
    monkeypatch.setattr(comparison, "finish", finish)
    said: list[str] = []
    report = comparison.compare(0.1, None, said.append)
    assert report["device"] == "H"
    assert len(said) == 4
    assert said[2] == "| softmax | 2 x 2 | torch | 1 | 1 | 1.00 | 0.50 to 2.00 |"
    assert comparison.failures(report) == [
        "softmax (2 x 2), cupy: the two do not agree",
        "group b: exit code 1: boom",
    ]
    assert comparison.table(report).count("\n| softmax") == 1
    assert "- group b: exit code 1: boom" in comparison.table(report)
    assert len(comparison.compare(0.1, "c", said.append)["rows"]) == 1
