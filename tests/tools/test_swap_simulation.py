"""Swapping models in virtual time: no answer is cut off, waits are bounded, swaps are few."""

from __future__ import annotations

import functools
import json
from dataclasses import replace
from pathlib import Path

import pytest

from llcuda_net.models.serving.policy import RULES, Rules
from tools import swap_simulation
from tools.swaps.oracle import clairvoyant, least_loads
from tools.swaps.scenarios import SCENARIOS, Figures

#: Each swap at once, to whoever waits longest.
NAIVE = Rules(least_quantum=0.0, quantum_loads=0.0, grace=0.0, overdue=0.0)


@functools.cache
def figures(name: str, rules: Rules = RULES) -> Figures:
    return SCENARIOS[name](1, 0.25, rules)


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_wait_is_within_its_bound(name: str) -> None:
    found = figures(name)
    assert found.requests > 50
    assert found.worst_claim <= found.bound
    assert found.late == 0


def test_somebody_whom_the_queue_puts_last_is_served_because_a_claim_becomes_overdue() -> None:
    assert figures("outranked").worst_claim < 300
    starved = figures("outranked", Rules(overdue=1e6))
    assert starved.worst_claim == 900


def test_two_users_who_alternate_get_batches() -> None:
    ours, naive = figures("alternate"), figures("alternate", NAIVE)
    assert ours.swaps_per_hour < 0.6 * naive.swaps_per_hour
    assert ours.requests > 1.2 * naive.requests


def test_endless_queues_are_served_in_batches() -> None:
    ours, naive = figures("flood"), figures("flood", NAIVE)
    assert ours.swaps_per_hour < 0.85 * naive.swaps_per_hour
    # An oracle that serves in the order of arrival loads more often than we, who do not.
    assert ours.swaps_per_hour < ours.clairvoyant_per_hour


def test_a_burst_is_served_with_one_load_per_model() -> None:
    found = figures("burst")
    assert found.requests == 120
    assert found.swaps_per_hour <= 2 * 10 / 0.25


def test_fifty_users_of_twenty_models_swap_less_often_than_they_would_one_by_one() -> None:
    found = figures("zipf")
    assert found.swaps_per_hour < found.clairvoyant_per_hour
    assert found.p99 < 180


def test_a_hot_model_stays_while_others_come_and_go() -> None:
    found = figures("scan")
    assert found.p50 == 0.0
    # As many as there are requests for the others, nearly: the hot one is loaded once or twice.
    assert found.swaps_per_hour < 1.1 * found.least_per_hour


def test_the_oracle_knows_the_future() -> None:
    uses = list("abcabdacbd")
    assert clairvoyant(uses, dict.fromkeys("abcd", 1), 2) == 7
    assert least_loads(uses, dict.fromkeys("abcd", 1), 2) == 7
    assert least_loads(uses, {"a": 1, "b": 1, "c": 3, "d": 3}, 4) == 7
    assert clairvoyant(uses, dict.fromkeys("abcd", 1), 4) == 4
    assert clairvoyant(["a", "b", "a"], {"a": 3, "b": 4}, 5) == 3


def test_the_tool(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "swaps.json"
    arguments = ["--scenario", "alternate", "--seeds", "2", "--hours", "0.1", "--json", str(file)]
    assert swap_simulation.main(arguments) == 0
    rows = json.loads(file.read_text())["rows"]
    assert [(row["scenario"], row["seed"]) for row in rows] == [("alternate", 1), ("alternate", 2)]
    assert "swaps/h" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        swap_simulation.main(["--help"])
    assert "python tools/swap_simulation.py --seeds 5" in capsys.readouterr().out


def test_the_tool_fails_where_a_wait_is_too_long(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    late = replace(figures("alternate"), worst_claim=1e9)
    monkeypatch.setitem(SCENARIOS, "alternate", lambda *_: late)
    assert swap_simulation.main(["--scenario", "alternate", "--seeds", "1"]) == 1
    assert "longer than" in capsys.readouterr().err
