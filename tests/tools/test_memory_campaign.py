"""The memory campaign: a server under attack stays small, and what takes too much is noticed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.campaigns import conducted, long_enough
from tools import memory_campaign


def test_two_seconds_of_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("probabilities", "--most", "120", "--rate", "25")

    def run(seconds: str) -> tuple[int, Any]:
        file = tmp_path / "json"
        return conducted(memory_campaign.main, file, *options, "--seconds", seconds)

    def enough(found: Any) -> bool:
        counts = found["campaigns"][0]["counts"]
        told = counts.get("accepted", 0) >= 4 and counts.get("overloaded", 0) >= 20
        return told and bool(found["campaigns"][0]["status"])

    code, found = long_enough(("2", "10", "60"), run, enough)
    assert code == 0, capsys.readouterr().out
    (attack,) = found["campaigns"]
    assert attack["violations"] == []
    assert attack["counts"]["accepted"] >= 4
    assert attack["counts"]["overloaded"] >= 20
    assert attack["status"]


def test_it_notices_a_server_that_takes_too_much(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("unread", "--seconds", "0.5", "--most", "10", "--rate", "1")
    code, found = conducted(memory_campaign.main, tmp_path / "json", *options)
    assert code == 1
    assert "10.0 MiB are allowed" in found["campaigns"][0]["violations"][0]
    assert "VIOLATIONS" in capsys.readouterr().out


def test_an_attack_that_there_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        memory_campaign.main(["flood"])
    assert caught.value.code == 2
    assert "there is no attack 'flood': choose from probabilities, " in capsys.readouterr().err
