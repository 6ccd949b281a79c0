"""Clients of responses notice events that are missing or come twice, and another end."""

from __future__ import annotations

import random
from typing import Any

import pytest

from tests.support.campaigns import job
from tools.campaign.http_clients import WrongError
from tools.campaign.jobs import SyntheticJobs
from tools.campaign.ledger import Ledger, Reading
from tools.campaign.response_clients import Answer, ResponseClients, request_of


def test_every_job_that_is_drawn_can_be_asked_of_the_api() -> None:
    jobs = SyntheticJobs(random.Random(1))
    for _ in range(60):
        one = jobs.draw(chat=True)
        body, headers = request_of(one, "k")
        assert body["background"]
        assert body["input"] == one.ask["messages"]
        assert body["max_output_tokens"] == one.ask["n_predict"]
        assert ("top_logprobs" in body) == (one.flavour == "probabilities")
        assert ("stop" in body) == (one.flavour == "stop")
        assert headers["Idempotency-Key"] == "k"


def _delta(number: int, text: str) -> dict[str, Any]:
    kind = "response.output_text.delta"
    return {"type": kind, "sequence_number": number, "delta": text, "logprobs": []}


def _end(number: int, text: str, status: str = "incomplete") -> dict[str, Any]:
    response = {
        "status": status,
        "output": [{"content": [{"text": text}]}],
        "usage": {"output_tokens": 3, "input_tokens": 0},
        "llcuda": {},
    }
    return {"type": f"response.{status}", "sequence_number": number, "response": response}


def _fed(*events: dict[str, Any]) -> tuple[Ledger, Answer]:
    ledger = Ledger()
    jobs = SyntheticJobs(random.Random(1))
    clients = ResponseClients("x:1", jobs, ledger, random.Random(1), 1.0, lambda: True)
    wanted = job(count=3)
    answer = Answer(wanted, Reading(ledger, wanted), "k", id="resp_g")
    for event in events:
        clients._event(answer, event)
    return ledger, answer


CREATED = {"type": "response.created", "sequence_number": 0}


def test_a_stream_without_fault_is_no_violation() -> None:
    deltas = [_delta(1 + n, f" {n}") for n in range(3)]
    ledger, answer = _fed(CREATED, *deltas, _end(4, " 0 1 2"))
    assert ledger.counts["pieces"] == 3
    assert not ledger.violations
    assert answer.result is not None
    assert answer.result.reason == "length"
    assert answer.last == 4


@pytest.mark.parametrize(
    "events",
    [
        [_delta(1, " 0")],  # the first event is missing
        [CREATED, CREATED],
        [CREATED, _delta(2, " 0")],
        [CREATED, _delta(1, " 0"), _end(2, " 1")],  # the whole is not what its parts were
    ],
)
def test_numbers_without_gaps_and_the_same_text(events: list[dict[str, Any]]) -> None:
    with pytest.raises(WrongError):
        _fed(*events)


def test_another_piece_is_a_violation() -> None:
    ledger, _ = _fed(CREATED, _delta(1, " 1"))
    assert ledger.violations
