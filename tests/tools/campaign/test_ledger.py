"""The ledger notices every difference between an answer, a receipt and a stored result."""

from __future__ import annotations

from typing import Any

import pytest

from llcuda_net.client.stream import Piece, Result
from llcuda_net.storage.records import Splice, TokenLog
from tests.support.campaigns import job, result
from tools.campaign.jobs import Job
from tools.campaign.ledger import Ledger, Reading, Receipt, differs


def told(ask: Job, **changes: Any) -> Result:
    usage = {"completion_tokens": ask.tokens, "prompt_tokens": ask.prompt_tokens}
    return Result(**{"text": ask.text, "reason": "length", "usage": usage, **changes})


def read(ask: Job, pieces: list[Piece], **changes: Any) -> Ledger:
    ledger = Ledger()
    reading = Reading(ledger, ask)
    for piece in pieces:
        reading.piece(piece)
    reading.end("id", told(ask, **changes))
    return ledger


def test_a_reading_that_is_right() -> None:
    ask = job()
    ledger = read(ask, list(ask.pieces))
    assert ledger.violations == []
    assert ledger.new == {"id": Receipt(ask, "length", 4, [])}
    assert not ledger.reading


@pytest.mark.parametrize(
    ("order", "what"),
    [
        ([0, 1, 3], "piece 3 came too early, where 2 was due"),
        ([0, 1, 1, 2, 3], "piece 1 came again, where 2 was due"),
        ([0, 1, 2], "it ended after 3 of 4 pieces"),
        ([0, 1, 2, 3, 4], "piece 4 ' 4' came after the end"),
    ],
)
def test_a_gap_a_repeat_and_a_wrong_end_are_noticed(order: list[int], what: str) -> None:
    five = job(count=5).pieces
    ledger = read(job(), [five[n] for n in order])
    assert ledger.violations == [f"read/plain, default level: {what}"]


@pytest.mark.parametrize(
    "wrong",
    [Piece(2, " X", 1002), Piece(2, " 2", 7), Piece(2, " 2", None), Piece(2, " 2", 1002, [])],
)
def test_another_piece_is_noticed(wrong: Piece) -> None:
    ask = job()
    ledger = read(ask, [*ask.pieces[:2], wrong, ask.pieces[3]])
    assert len(ledger.violations) == 1
    assert "piece 2 is" in ledger.violations[0]


@pytest.mark.parametrize(
    "changes",
    [
        {"reason": "stop"},
        {"stop": "x"},
        {"usage": {"completion_tokens": 5, "prompt_tokens": 3}},
        {"usage": {"completion_tokens": 4, "prompt_tokens": 4}},
        {"reason": "cancelled"},
    ],
)
def test_another_ending_is_noticed(changes: dict[str, Any]) -> None:
    ask = job()
    assert len(read(ask, list(ask.pieces), **changes).violations) == 1


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({}, None),
        ({"state": "interrupted"}, "state"),
        ({"log": TokenLog([" 0", " 1", " 2"], [1000, 1001, 1002])}, "text"),
        ({"log": TokenLog([" 0 1", " 2", " 3"], [1001, 1002, 1003])}, "pieces"),
        ({"log": TokenLog([" 0", " 1", " 2", " 3"], [1000, 1001, 1002, 7])}, "ids"),
        ({"reason": "stop"}, "ending"),
        ({"usage": {"completion_tokens": 3, "prompt_tokens": 3}}, "ending"),
        ({"splices": [Splice(2, "u", 1)]}, "splices"),
    ],
)
def test_a_stored_result_that_differs_is_noticed(changes: dict[str, Any], what: str | None) -> None:
    ask = job()
    found = differs(Receipt(ask, "length", 4, []), result(ask, **changes))
    assert (found is None) is (what is None)
    if what is not None:
        assert f"its {what} is" in (found or "")


def test_of_a_cancelled_one_all_that_was_read_must_be_there() -> None:
    ask = job("cancel")
    log = TokenLog([" 0", " 1"], [1000, 1001])
    cut = result(ask, state="cancelled", log=log, reason="", usage={})
    assert differs(Receipt(ask, "cancelled", 2, []), cut) is None
    assert "a reader had 3" in (differs(Receipt(ask, "cancelled", 3, []), cut) or "")
