"""The campaign with batches: some kills come out well, a server that asks anew does not."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from tests.support.campaigns import conducted
from tools import batch_campaign
from tools.crash.batches import Work

SHORT = ("--lines", "60", "--seed", "5", "--rate", "200")


def test_three_kills_ask_no_line_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, document = conducted(
        batch_campaign.main, tmp_path / "json", *SHORT, "--kills", "3", "--no-controls"
    )
    said = capsys.readouterr().out
    assert code == 0, said
    assert "violations        none" in said
    (found,) = document["campaigns"]
    assert (found["violations"], found["kills"]) == ([], 3)
    assert found["lines"] == 60 * found["batches"] >= 120
    assert found["completions"] >= found["lines"]


def test_what_is_wrong_with_an_output_is_noticed() -> None:
    work = Work.draw(1, 3, random.Random(2))
    good: list[dict[str, Any]] = [
        {
            "custom_id": f"{n}",
            "response": {"body": {"choices": [{"text": text, "message": {"content": text}}]}},
        }
        for n, text in enumerate(work.texts)
    ]
    counts = {"total": 3, "completed": 3, "failed": 0}
    batch: dict[str, Any] = {"status": "completed", "request_counts": counts}
    assert work.wrong(batch, _lines(good)) is None
    assert "3 lines, 2 of them different" in str(work.wrong(batch, _lines([*good[:2], good[1]])))
    assert "2 lines" in str(work.wrong(batch, _lines(good[:2])))
    assert "line 0 says" in str(
        work.wrong(batch, _lines([{**good[0], "response": good[1]["response"]}, *good[1:]]))
    )
    assert "it is expired" in str(work.wrong({**batch, "status": "expired"}, _lines(good)))


def _lines(found: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(one).encode() + b"\n" for one in found)


@pytest.mark.slow
def test_a_server_that_asks_cut_lines_anew_is_noticed(tmp_path: Path) -> None:
    code, document = conducted(batch_campaign.main, tmp_path / "json", *SHORT, "--kills", "3")
    assert code == 0
    assert document["campaigns"][1]["violations"]
