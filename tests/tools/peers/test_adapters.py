"""The tools' files are read as their versions write them, and else that is said in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tools.peers.adapters import PROGRAMS, Job, UnreadableError
from tools.peers.cases import CASES
from tools.peers.figures import Said

ESTIMATE = {"value": 20.0, "low": 15.0, "high": 30.0}
METRIC = {"unit": "ms", "mean": ESTIMATE, "p50": {"value": 10.0, "low": None, "high": None}}
LLCUDA: dict[str, Any] = {
    "problems": ["the client was the limit"],
    "paths": {
        "server": {
            "outcomes": {"done": 9, "cut": 2, "failed": 1, "timeout": 0, "refused": 3},
            "metrics": {"latency": METRIC, "ttft": {**METRIC, "p90": None}},
        }
    },
    "rates": [{"requests_per_s": {"value": 4.0}, "tokens_per_s": {"value": 64.0}}],
}
SUMMARY: dict[str, Any] = {
    "mean": 0.02,
    "count": 9,
    "percentiles": {"p50": 0.01, "p90": 0.03, "p99": 0.04},
    "mean_ci": {"lower": 0.015, "upper": 0.03},
    "percentile_cis": {"p50": {"lower": 0.005, "upper": 0.02}, "p99": None},
}
NOTHING: dict[str, Any] = {
    "mean": 0.0,
    "count": 0,
    "percentiles": {"p50": 0.0, "p90": 0.0, "p99": 0.0},
    "mean_ci": None,
    "percentile_cis": None,
}
GUIDELLM: dict[str, Any] = {
    "benchmarks": [
        {
            "metrics": {
                "request_totals": {"successful": 9, "incomplete": 2, "errored": 4},
                "request_latency": {"successful": SUMMARY},
                "time_to_first_token_ms": {"successful": NOTHING},
                "requests_per_second": {"successful": {"mean": 4.0}},
                "output_tokens_per_second": {"successful": {"mean": 64.0}},
            }
        }
    ]
}
VALUES = {"unit": "ms", "avg": 20.0, "p50": 10.0, "p90": 30.0, "p99": 40.0}
AIPERF: dict[str, Any] = {
    "request_count": {"avg": 9.0},
    "error_request_count": {"avg": 4.0},
    "request_latency": VALUES,
    "time_to_first_token": VALUES,
    "request_throughput": {"avg": 4.0},
    "output_token_throughput": {"avg": 64.0},
}
TIMES = {"mean": 20.0, "p50": 10.0, "p90": 30.0, "p99": 40.0}
VLLM: dict[str, Any] = {
    "completed": 9,
    "failed": 4,
    "request_throughput": 4.0,
    "output_throughput": 64.0,
    **{
        f"{name}_{metric}_ms": value for name, value in TIMES.items() for metric in ("ttft", "e2el")
    },
}
FILES = {
    "vllm": ("vllm.json", VLLM),
    "llcuda": ("llcuda.json", LLCUDA),
    "guidellm": ("guidellm.json", GUIDELLM),
    "aiperf": ("profile_export_aiperf.json", AIPERF),
}


def read(folder: Path, name: str, document: Any) -> Said:
    (folder / FILES[name][0]).write_text(json.dumps(document), "utf-8")
    return PROGRAMS[name].read(folder)


@pytest.mark.parametrize("name", FILES)
def test_each_file_is_read(tmp_path: Path, name: str) -> None:
    said = read(tmp_path, name, FILES[name][1])
    assert (said.counted, said.failed) == (9, 4)
    assert said.cut == (2 if name in ("llcuda", "guidellm") else 0)
    assert (said.requests_per_s, said.tokens_per_s) == (4.0, 64.0)
    assert said.latency["mean"] == pytest.approx(0.02)
    assert said.latency["p50"] == pytest.approx(0.01)
    assert said.latency["p99"] == (None if name == "llcuda" else pytest.approx(0.04))


def test_intervals_are_in_seconds_where_there_are_some(tmp_path: Path) -> None:
    said = read(tmp_path, "llcuda", LLCUDA)
    assert said.intervals["latency mean"] == pytest.approx((0.015, 0.03))
    assert set(said.intervals) == {"latency mean", "ttft mean"}
    assert said.notes == ["INVALID: the client was the limit"]
    said = read(tmp_path, "guidellm", GUIDELLM)
    assert set(said.intervals) == {"latency mean", "latency p50"}
    assert said.intervals["latency p50"] == pytest.approx((0.005, 0.02))


def test_a_figure_of_nothing_is_missing_and_not_0(tmp_path: Path) -> None:
    assert set(read(tmp_path, "guidellm", GUIDELLM).ttft.values()) == {None}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("document", [{}, [], {"paths": {}}, {"benchmarks": []}])
def test_another_form_is_told_in_one_line(tmp_path: Path, name: str, document: Any) -> None:
    with pytest.raises(UnreadableError, match="has another form") as error:
        read(tmp_path, name, document)
    assert "\n" not in str(error.value)


def test_another_unit_is_not_taken_for_milliseconds(tmp_path: Path) -> None:
    document = {**AIPERF, "request_latency": {**VALUES, "unit": "sec"}}
    with pytest.raises(UnreadableError, match="unit sec"):
        read(tmp_path, "aiperf", document)


def test_no_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(UnreadableError, match=r"wrote no guidellm\.json"):
        PROGRAMS["guidellm"].read(tmp_path)


@pytest.mark.parametrize("name", FILES)
def test_all_are_asked_the_same(tmp_path: Path, name: str) -> None:
    case = CASES[0]
    job = Job(case, "http://host:1", "model", tmp_path, tmp_path / "tokenizer", 7)
    text = " ".join(PROGRAMS[name].arguments(job))
    time = case.rate * case.seconds if name == "vllm" else case.seconds
    for value in ("http://host:1", f"{case.rate:g}", f"{time:g}", str(case.tokens), "7"):
        assert value in text.replace("=", " ").replace(",", " ").split()
    assert str(tmp_path) in text
