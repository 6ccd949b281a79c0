"""The chaos campaign: seconds of it come out well, a broken server does not."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio

from llcuda_net.errors import (
    ConnectError,
    InternalError,
    LlcudaError,
    UnknownGeneration,
    UpstreamError,
    UpstreamUnavailable,
)
from tests.support.campaigns import conducted, job, long_enough
from tools import chaos_campaign
from tools.campaign import quiet
from tools.campaign.clients import Options
from tools.campaign.jobs import SyntheticJobs
from tools.campaign.ledger import Ledger, Reading
from tools.campaign.upstreams import Upstream
from tools.chaos import campaign, troubles
from tools.chaos.broken import MODES
from tools.chaos.campaign import Outcome, Plan
from tools.chaos.clients import KINDS, SETTLED, ChaosClients
from tools.chaos.troubles import FAULTS, Timing, Troubles
from tools.synthetic.faults import KINDS as FAULT_KINDS
from tools.synthetic.faults import Fault

# -- whole campaigns ----------------------------------------------------------------------------


@pytest.fixture
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing depends on how fast the machine is: only what ends a stream at once goes wrong."""
    monkeypatch.setattr(campaign, "STALL", 60.0)
    monkeypatch.setattr(campaign, "FIRST_TOKEN", 60.0)
    monkeypatch.setattr(campaign, "MOST_ERRORS", 1.0)  # of few readings one is a large share
    monkeypatch.setattr(campaign, "_ENOUGH", 1000)  # no answer may have been under way
    monkeypatch.setattr(quiet, "STEADY", 60.0)
    monkeypatch.setattr(quiet, "QUIET", 120.0)
    monkeypatch.setattr(troubles, "FAULTS", [f for f in FAULTS if not f.startswith("stall")])


SHORT = ("--upstreams", "2", "--clients", "10", "--rate", "60", "--seed", "3")


@pytest.mark.usefixtures("_patient")
def test_seconds_of_chaos_change_no_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plans = chaos_campaign.plans

    def brief(*arguments: Any) -> list[Plan]:
        return [replace(plan, timing=Timing(0.8, (0.2, 0.8))) for plan in plans(*arguments)]

    monkeypatch.setattr(chaos_campaign, "plans", brief)
    only = (*SHORT, "--real-engine", "0", "--no-controls")

    def run(minutes: str) -> tuple[int, Any]:
        file = tmp_path / "json"
        return conducted(chaos_campaign.main, file, *only, "--minutes", minutes)

    def enough(document: Any) -> bool:
        (found,) = document["campaigns"]
        return bool(found["troubles"] and found["counts"].get("found in the store"))

    code, document = long_enough(("0.06", "0.3", "1"), run, enough)
    assert code == 0, capsys.readouterr().out
    (found,) = document["campaigns"]
    counts = found["counts"]
    assert found["violations"] == []
    assert sum(found["troubles"].values()) > 0
    assert counts["acknowledged"] > 0
    assert counts["unaltered at the end"] == counts["found in the store"] > 0
    assert "violations        none" in capsys.readouterr().out


@pytest.mark.usefixtures("_patient")
def test_an_answer_that_is_continued_too_early_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chaos_campaign, "_CONTROL", 60.0)  # it ends when the harm is noticed
    broken = ("--break", "repeat-at-splice")
    code, document = conducted(chaos_campaign.main, tmp_path / "json", *SHORT, *broken)
    assert code == 1
    (control,) = document["campaigns"]
    assert control["violations"]


@pytest.mark.slow
def test_a_whole_campaign_with_real_engines_and_all_controls(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--minutes", "0.2", "--real-engine", "4", "--peace", "1.5", "--clients", "48")
    code, document = conducted(chaos_campaign.main, tmp_path / "json", *options, "--seed", "3")
    said = capsys.readouterr().out
    assert code == 0, said
    assert said.count("violations        none") == 2
    synthetic, real, *controls = document["campaigns"]
    counts = synthetic["counts"]
    assert (synthetic["upstream"], real["upstream"]) == ("synthetic", "llama.cpp")
    assert (synthetic["violations"], real["violations"]) == ([], [])
    assert sum(synthetic["troubles"].values()) > 3
    assert counts["splices"] > 0
    assert all(counts[f"{kind} jobs"] for kind in KINDS)
    assert real["counts"]["acknowledged"] > 0
    for control in controls:
        assert control["violations"]
        assert f"control {control['broken']}: noticed after " in said
    assert [control["broken"] for control in controls] == list(MODES)


def test_a_fifth_of_the_time_is_for_real_engines() -> None:
    args = chaos_campaign.parser().parse_args(["--minutes", "10"])
    first, second, *controls = chaos_campaign.plans(args, 1)
    assert (first.seconds, first.real) == (480, False)
    assert (second.seconds, second.real) == (120, True)
    assert [plan.broken for plan in controls] == list(MODES)
    args = chaos_campaign.parser().parse_args(["--minutes", "1", "--real-engine", "0"])
    assert [plan.real for plan in chaos_campaign.plans(args, 1)] == [False] * (1 + len(MODES))


# -- troubles -----------------------------------------------------------------------------------


class Victim(Upstream):
    """An upstream without a process."""

    def __init__(self, name: str, synthetic: bool = True) -> None:
        self.name, self.synthetic = name, synthetic
        self.trouble, self.well_since = "", 0.0
        self.suffered: list[str] = []

    async def harm(self, kind: str, how: str) -> None:
        assert not self.trouble
        self.trouble = kind
        self.suffered.append(kind)
        await trio.sleep(0.1)

    async def heal(self) -> None:
        await trio.sleep(0.1)
        assert self.trouble
        self.trouble = ""
        self.well_since = trio.current_time()


@pytest.mark.parametrize("synthetic", [True, False])
async def test_troubles_meet_everyone_and_are_healed(
    synthetic: bool, autojump_clock: trio.testing.MockClock
) -> None:
    victims = [Victim(f"{n}", synthetic) for n in range(3)]
    troubles = Troubles(victims, random.Random(1), Timing(2.0, (0.5, 3.0)))
    began = trio.current_time()
    await troubles.run(300)
    assert 300 <= trio.current_time() - began < 301
    kinds = {"kill", "stop", "errors"} if synthetic else {"kill", "stop"}
    assert set(troubles.counts) == kinds
    assert min(troubles.counts.values()) > 20
    for victim in victims:
        assert victim.trouble == ""
        assert set(victim.suffered) == kinds
    assert sum(troubles.counts.values()) == sum(len(victim.suffered) for victim in victims)
    assert sum(troubles.seconds.values()) == pytest.approx(trio.current_time() - began)
    # At times nothing is wrong; at times everything that can be at once.
    assert set(troubles.seconds) == set(range(len(kinds) + 1))


def test_every_fault_that_is_drawn_is_one() -> None:
    for fault in FAULTS:
        found = Fault.parse(fault.replace("K", "7"))
        assert found.kind in FAULT_KINDS
        assert found.kind not in ("eos", "split", "dribble")  # these are no errors


# -- clients ------------------------------------------------------------------------------------


def test_jobs_of_every_kind_are_drawn() -> None:
    jobs = SyntheticJobs(random.Random(1), KINDS)
    assert {jobs.draw().kind for _ in range(300)} == set(KINDS)


def failed(error: LlcudaError, *upstreams: Upstream, began: float) -> tuple[ChaosClients, Ledger]:
    ledger = Ledger()
    options, rng = Options("127.0.0.1:1"), random.Random(1)
    clients = ChaosClients(options, SyntheticJobs(rng), ledger, rng, upstreams)
    clients._failed(Reading(ledger, job()), error, began)
    assert not ledger.reading
    return clients, ledger


UNAVAILABLE = UpstreamUnavailable("the upstream is not there")


async def test_an_error_is_excused_where_no_upstream_was_well_for_long() -> None:
    now = trio.current_time()
    ill, recovered, well = Victim("ill"), Victim("recovered"), Victim("well")
    ill.trouble, ill.well_since = "kill", now - 1000
    recovered.well_since = now - SETTLED + 1
    well.well_since = now - SETTLED - 1
    clients, ledger = failed(UNAVAILABLE, ill, recovered, began=now)
    assert ledger.violations == []
    assert (ledger.counts["errors"], ledger.counts["error upstream_unavailable"]) == (1, 1)
    assert len(clients.excused) == 1
    assert "the upstream is not there" in clients.excused[0]
    _, ledger = failed(UNAVAILABLE, ill, recovered, well, began=now)
    assert len(ledger.violations) == 1
    assert "(though well was well)" in ledger.violations[0]


@pytest.mark.parametrize(
    "error",
    [
        InternalError("a bug: KeyError"),
        UnknownGeneration("there is none"),
        UpstreamError(""),
        ConnectError("the connection was lost"),
    ],
)
async def test_other_errors_are_not_excused(error: LlcudaError) -> None:
    ill = Victim("ill")
    ill.trouble = "kill"
    _, ledger = failed(error, ill, began=trio.current_time())
    assert len(ledger.violations) == 1


# -- the outcome --------------------------------------------------------------------------------


def outcome(**counts: int) -> Outcome:
    found = Outcome(Plan(1, 1.0), troubles={"kill": 9})
    found.ledger.counts.update({"acknowledged": 100, "splices": 5, **counts})
    return found


@pytest.mark.parametrize(
    ("counts", "what"),
    [
        ({"acknowledged": 0}, "no answer came to its end"),
        ({"errors": 20}, "20 of 120 readings ended with an error"),
        ({"splices": 0}, "no answer was gone on with on another upstream"),
    ],
)
def test_too_little_and_too_many_are_violations(counts: dict[str, int], what: str) -> None:
    assert outcome().violations == []
    assert outcome(**counts).violations[0] == what
