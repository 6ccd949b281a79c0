"""The crash campaign: five kills come out well, a broken server does not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.campaigns import conducted
from tools import crash_campaign
from tools.campaign.jobs import KINDS
from tools.crash.broken import MODES
from tools.crash.campaign import Outcome, Plan

SHORT = ("--life", "0.05,0.3", "--rate", "100", "--clients", "8", "--seed", "5")


@pytest.fixture
def _aimed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each kill waits for a stream under way, however slow the machine is."""
    plans = crash_campaign.plans

    def aimed(*arguments: Any) -> list[Plan]:
        return [replace(plan, aimed=1.0, aim=60.0) for plan in plans(*arguments)]

    monkeypatch.setattr(crash_campaign, "plans", aimed)
    monkeypatch.setattr("tools.crash.campaign.EARLY", 0)


@pytest.mark.usefixtures("_aimed")
def test_five_kills_lose_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kills = ("--kills", "5", "--no-controls")
    code, document = conducted(crash_campaign.main, tmp_path / "json", *SHORT, *kills)
    said = capsys.readouterr().out
    assert code == 0, said
    assert "violations        none" in said
    (found,) = document["campaigns"]
    counts = found["counts"]
    assert (found["violations"], found["kills"], found["kills_mid_stream"]) == ([], 5, 5)
    assert found["streams_cut"] >= 5
    assert counts["splices"] > 0
    assert counts["http jobs"] > 0
    assert counts["response jobs"] > 0
    assert counts["responses resumed by starting_after"] > 0
    assert counts["stored"] == counts["unaltered at the end"] == counts["found in the store"] > 0


@pytest.mark.usefixtures("_aimed")
def test_tokens_that_are_sent_before_they_are_journalled_are_noticed(tmp_path: Path) -> None:
    broken = ("--break", "send-before-journal")
    code, document = conducted(crash_campaign.main, tmp_path / "json", *SHORT, *broken)
    assert code == 1
    (control,) = document["campaigns"]
    assert control["violations"]


@pytest.mark.slow
def test_faults_of_the_disk_are_noticed(capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--kills", "0", "--no-controls", "--faults", "4", "--seed", "3")
    assert crash_campaign.main(options) == 0
    assert "faults of the disk: all noticed" in capsys.readouterr().out


@pytest.mark.slow
def test_a_whole_campaign_with_all_controls(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--kills", "25", "--life", "0.05,0.6", "--rate", "100", "--seed", "5")
    code, document = conducted(crash_campaign.main, tmp_path / "json", *options)
    said = capsys.readouterr().out
    assert code == 0, said
    whole, *controls = document["campaigns"]
    counts = whole["counts"]
    assert (whole["violations"], whole["kills"]) == ([], 25)
    assert whole["kills_mid_stream"] > 12
    assert counts["splices"] > 25
    assert all(counts[f"{kind} jobs"] for kind in KINDS)
    # Which harm is seen first is chance.
    for control in controls:
        assert control["violations"]
        assert f"control {control['broken']}: noticed at kill " in said
    assert [control["broken"] for control in controls] == list(MODES)


def test_kills_that_meet_no_stream_prove_nothing() -> None:
    assert Outcome(Plan(1, 4), kills=4, mid_stream=2).is_well
    assert not Outcome(Plan(1, 4), kills=4, mid_stream=1).is_well
    assert not Outcome(Plan(1, 4, broken="x"), kills=4, mid_stream=1).is_well
