"""Parts of reports, of documents of which all is known."""

from __future__ import annotations

import re
from typing import Any

import pytest

from llcuda_net.bench.report import latency, latency_page, throughput, throughput_page
from llcuda_net.bench.report.parts import energy, objective, pareto
from tests.support import bench_documents


@pytest.fixture(scope="module")
def sweep() -> dict[str, Any]:
    return bench_documents.throughput(rounds=3)


@pytest.fixture(scope="module")
def alone() -> dict[str, Any]:
    return bench_documents.latency(direct=False)


def test_energy_is_what_the_meter_counted(sweep: dict[str, Any]) -> None:
    """The GPU takes 80 W and 25 W for each request that is served: 280 W where eight slots are."""
    assert sweep["energy"]["idle_watts"] == pytest.approx(80)
    last = sweep["concurrency"][-1]
    took = last["energy"]
    assert took["watts"]["value"] == pytest.approx(280, rel=0.01)
    per_token = took["watts"]["value"] / last["tokens_per_s"]["value"]
    assert took["joules_per_token"]["value"] == pytest.approx(per_token, rel=0.01)
    paid = 0.30 * per_token / 3.6 + 2.50 / 0.0036 / last["tokens_per_s"]["value"]
    assert took["cost_per_million_tokens"]["value"] == pytest.approx(paid, rel=0.01)
    assert len(sweep["repetitions"]["joules_per_token at 8"]) == 3


def test_a_terminal_shows_energy_and_what_is_not_known(sweep: dict[str, Any]) -> None:
    said = "\n".join(throughput.lines(sweep))
    assert "GPU 0, NVIDIA Test (by its energy counter;" in said
    assert "80.0 W before anything was asked" in said
    assert "not known: processor: no counter" in said
    assert "EUR per million tokens" in said
    assert re.search("concurrency 16 +280 ", said)


def test_energy_that_is_not_known_is_said_once() -> None:
    found = {
        "devices": [],
        "idle_watts": None,
        "missing": [{"kind": "gpu", "why": "no driver"}, {"kind": "cpu", "why": "no counter"}],
        "prices": None,
    }
    none = dict.fromkeys(
        ("watts", "joules_per_token", "joules_per_token_above_idle", "joules_per_request",
         "cost_per_million_tokens")
    )  # fmt: skip
    said = energy.lines(found, "load", [("1", none)])
    assert said == ["", "energy is not known: GPU: no driver; processor: no counter"]
    (section,) = energy.section(found, "Load", [("1", none)])
    assert section.text == "Energy is not known: GPU: no driver; processor: no counter."
    assert section.tables == []
    assert energy.lines(None, "load", []) == []
    assert energy.section(None, "Load", []) == []


def test_an_objective_stands_beside_its_result(alone: dict[str, Any]) -> None:
    (said,) = [line for line in latency.lines(alone) if line.startswith("SLO")]
    assert "TTFT within 80 ms: 100 %" in said
    assert "end to end within 500 ms: 100 %" in said
    page = latency_page.page(alone)
    assert "Wanted: TTFT within 80 ms and end to end within 500 ms." in page
    assert "TTFT, p50 (SLO: 80 ms)" in page


def test_shares_are_not_rounded_to_all_or_nothing() -> None:
    assert objective.percent({"value": 0.9999}) == "over 99.9 %"
    assert objective.percent({"value": 0.0001}) == "under 0.1 %"
    assert objective.percent({"value": 1.0}) == "100 %"
    assert objective.percent({"value": 0.5, "low": 0.25, "high": 0.75}) == "50 % (25 % to 75 %)"
    assert objective.percent(None) == "-"


def test_requests_that_were_cut_make_the_shares_bounds() -> None:
    level = {"within": {"value": 0.5}, "each": {"ttft": None}, "goodput": None, "open": 1}
    said = objective.lines({"ttft": 0.5}, level)
    assert said[1].endswith("and counts as not within it: the shares are lower bounds")


def test_the_curve_of_users_and_all(sweep: dict[str, Any]) -> None:
    """One user gets 1 / TPOT: 4 ms and 12 % more for each that is served, 223 tokens/s alone."""
    line = pareto.series("by concurrency", sweep["concurrency"], "load", 0)
    alone, *_, last = line.points
    assert alone[0] == pytest.approx(1 / (0.004 * 1.12), rel=0.01)
    assert last[0] == pytest.approx(1 / (0.004 * 1.96), rel=0.02)
    assert line.labels == ["1", "2", "4", "", "8, 16"]  # those two are one point
    assert pareto.chart([line], "x") is not None
    assert pareto.chart([pareto.series("", sweep["concurrency"][:1], "load", 0)], "x") is None
    assert pareto.per_user({"metrics": {"tpot": {"p50": None}}}) is None


def test_the_page_has_every_part(sweep: dict[str, Any]) -> None:
    page = throughput_page.page(sweep)
    heads = re.findall("<h2>(.*?)</h2>", page)
    assert heads == [
        "Objective (SLO) and result",
        "Against concurrency",
        "Against offered rate",
        "What one user gets, and what all get",
        "Lengths of prompts and answers",
        "Energy and cost",
        "How it was run",
    ]
    assert page.count("<svg") == page.count('<svg role="img" aria-label="') == 10
