"""What a table says of figures that are missing, or have no interval."""

from __future__ import annotations

from typing import Any

from llcuda_net.bench.report.latency import reasons

WHY = "neighbours are alike"


def test_figures_of_one_reason_are_one_line() -> None:
    plain: dict[str, Any] = {"mean": {"value": 1.0, "low": 0.5, "high": 1.5}}
    lacking = {**plain, "p99": {"value": 2.0, "low": None, "high": None, "why": WHY}}
    none = {**plain, "p99": None, "why": {"p99": "under 10 answers beyond it"}}
    metrics = {"ttft": lacking, "latency": lacking, "gap": none}
    rows = ("ttft", "gap", "tpot", "latency", "service_ttft", "service")
    found = reasons({"metrics": {name: metrics.get(name, plain) for name in rows}})
    assert found == [
        f"no interval: p99 of TTFT, end to end: {WHY}",
        "no p99 of inter-chunk: under 10 answers beyond it",
    ]


def test_where_all_is_known_nothing_is_said() -> None:
    rows = ("ttft", "gap", "tpot", "latency", "service_ttft", "service")
    assert reasons({"metrics": {name: {"count": 0} for name in rows}}) == []
