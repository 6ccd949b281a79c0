"""Clients over HTTP notice what is missing, comes twice, or belongs to something else."""

from __future__ import annotations

import random
from typing import Any

import pytest

from tests.support.campaigns import job
from tools.campaign.http_clients import (
    CancelledError,
    CutError,
    HttpClients,
    WrongError,
    _Answer,
    checked,
    request_of,
)
from tools.campaign.jobs import CHATS, SyntheticJobs
from tools.campaign.ledger import Ledger, Reading


def test_every_job_that_is_drawn_can_be_asked_of_a_chat_api() -> None:
    jobs = SyntheticJobs(random.Random(1))
    drawn = [jobs.draw(chat=True) for _ in range(60)]
    assert {one.flavour for one in drawn} == set(CHATS)
    for one in drawn:
        body, headers = request_of(one, "k", stream=True)
        assert body["messages"] == one.ask["messages"]
        assert body["max_tokens"] == one.ask["n_predict"]
        assert ("top_logprobs" in body) == (one.flavour == "probabilities")
        assert ("stop" in body) == (one.flavour == "stop")
        assert headers["Idempotency-Key"] == "k"


def _chunk(text: str, **more: Any) -> dict[str, Any]:
    choice = {"delta": {"content": text}, "logprobs": None, "finish_reason": None}
    return {"choices": [{**choice, **more}], "llcuda": {}}


def _fed(events: list[tuple[str, str]]) -> Ledger:
    ledger = Ledger()
    jobs = SyntheticJobs(random.Random(1))
    clients = HttpClients("x:1", jobs, ledger, random.Random(1), 1.0, lambda: True)
    wanted = job(count=3)
    answer = _Answer(wanted, Reading(ledger, wanted), "k", id="g")
    for id_, text in events:
        clients._event(answer, id_, _chunk(text))
    return ledger


def test_a_stream_without_fault_is_no_violation() -> None:
    ledger = _fed([("g:1", " 0"), ("g:2", " 1"), ("g:3:77", " 2")])
    assert ledger.counts["pieces"] == 3
    assert not ledger.violations


@pytest.mark.parametrize(
    "events",
    [
        [("g:1", " 0"), ("g:3", " 2")],  # one is missing
        [("g:1", " 0"), ("g:2", " 1"), ("g:1", " 0")],  # one comes again
        [("g:1", " x")],
        [("g:1", " 0"), ("g:2", " 1"), ("g:3", " 2"), ("g:4", " 3")],
    ],
)
def test_each_fault_is_one(events: list[tuple[str, str]]) -> None:
    assert len(_fed(events).violations) == 1


@pytest.mark.parametrize("events", [[("h:1", " 0")], [("g:1", " 0"), ("g:1", " 0")], [("", " 0")]])
def test_an_event_of_something_else_ends_the_reading(events: list[tuple[str, str]]) -> None:
    with pytest.raises(WrongError):
        _fed(events)


def test_errors_are_a_cut_a_cancel_or_wrong() -> None:
    for code, error in (
        ("shutting_down", CutError),
        ("cancelled", CancelledError),
        ("ahead", WrongError),
    ):
        with pytest.raises(error):
            checked(503, b'{"error": {"code": "%b", "message": "m"}}' % code.encode())
    assert checked(200, b'{"state": "done", "error": null}')["state"] == "done"
