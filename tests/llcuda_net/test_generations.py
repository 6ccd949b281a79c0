"""The generation: its states, its log, its id, and how it ends."""

from __future__ import annotations

import itertools
import math
import time
import uuid
from typing import Any

import pytest

from llcuda_net import generations
from llcuda_net.errors import RequestError
from llcuda_net.generations import TRANSITIONS, Generation, State, uuid7
from llcuda_net.upstream.completion import Candidate, CompletionEvent, Probabilities, Timings
from llcuda_protocol import Done, Error, TokenLogprob, TopToken

#: How each state is reached.
_PATHS: dict[State, list[State]] = {
    State.QUEUED: [],
    State.RUNNING: [State.RUNNING],
    State.DONE: [State.RUNNING, State.DONE],
    State.FAILED: [State.FAILED],
    State.CANCELLED: [State.CANCELLED],
    State.INTERRUPTED: [State.INTERRUPTED],
}


def _make(**params: Any) -> Generation:
    return Generation("a prompt", None, params, 60.0)


@pytest.mark.parametrize(("start", "end"), list(itertools.product(State, State)))
async def test_only_what_the_table_allows(start: State, end: State) -> None:
    generation = _make()
    for state in _PATHS[start]:
        generation.move(state)
    told: list[State] = []
    generation.on_change.append(lambda: told.append(generation.state))
    if end in TRANSITIONS[start]:
        generation.move(end)
        assert told == [end]
    else:
        with pytest.raises(AssertionError, match=f"from {start} to {end}"):
            generation.move(end)
        assert (generation.state, told) == (start, [])


def test_the_table_knows_every_state_and_the_ends_are_ends() -> None:
    assert set(TRANSITIONS) == set(State)
    ends = {state for state, after in TRANSITIONS.items() if not after}
    assert ends == {State.DONE, State.FAILED, State.CANCELLED, State.INTERRUPTED}
    reached = {State.QUEUED}.union(*TRANSITIONS.values())
    assert reached == set(State)


def test_ids_are_uuids_of_version_7_and_sort_by_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_700_000_000_000_000_000
    made = []
    for tick in range(200):
        monkeypatch.setattr(time, "time_ns", lambda tick=tick: now + tick * 1_000_000)
        made.append(uuid7())
    assert made == sorted(made)
    assert len(set(made)) == 200
    for tick, text in enumerate(made):
        value = uuid.UUID(text)
        assert str(value) == text
        assert (value.version, value.variant) == (7, uuid.RFC_4122)
        assert value.int >> 80 == 1_700_000_000_000 + tick
    same = {uuid7() for _ in range(1000)}  # in one millisecond
    assert len(same) == 1000


async def test_the_log_grows_by_what_has_text() -> None:
    generation = _make()
    grew = [
        generation.extend([CompletionEvent(content="a", tokens=[1]), CompletionEvent(content="b")]),
        generation.extend([CompletionEvent(content="c", tokens=[2, 3])]),
        generation.extend([CompletionEvent(stop=True, tokens_predicted=4)]),
        generation.extend([]),
    ]
    assert grew == [True, True, False, False]
    assert generation.pieces == ["a", "b", "c"]
    assert generation.ids == [1, None, 3]
    assert generation.logprobs is None
    assert generation.final is not None
    assert generation.visible == 0  # until it has been kept
    told = []
    generation.on_change.append(lambda: told.append(generation.visible))
    generation.show(2)
    assert told == [2]


async def test_log_probabilities_are_natural_and_complete() -> None:
    generation = _make(n_probs=2)
    top = [Candidate(1, [97], -0.5), Candidate(2, [98], -2.0)]
    generation.extend(
        [CompletionEvent("a", completion_probabilities=[Probabilities(1, [97], -0.5, None, top)])]
    )
    assert generation.logprobs == [
        [TokenLogprob(1, b"a", -0.5, (TopToken(1, b"a", -0.5), TopToken(2, b"b", -2.0)))]
    ]
    after_sampling = Probabilities(
        1, [97], prob=0.25, top_probs=[Candidate(1, [97], prob=0.25), Candidate(2, [98], prob=0.0)]
    )
    generation.extend([CompletionEvent("a", completion_probabilities=[after_sampling])])
    ((found,),) = generation.logprobs[1:]
    assert found.logprob == pytest.approx(math.log(0.25))
    assert [t.logprob < -700 for t in found.top] == [False, True]
    assert all(math.isfinite(t.logprob) for t in found.top)
    generation.extend([CompletionEvent("no probabilities")])
    assert generation.logprobs[2] == []


@pytest.mark.parametrize(
    ("stop_type", "word", "reason", "stop"),
    [
        ("eos", "", "stop", None),
        ("word", "END", "stop", "END"),
        ("limit", "", "length", None),
        ("none", "", "stop", None),
    ],
)
async def test_it_ends_with_its_reason_and_figures(
    stop_type: str, word: str, reason: str, stop: str | None
) -> None:
    generation = _make()
    generation.dispatched()
    generation.sent()
    generation.extend([CompletionEvent("a", [1])])
    generation.extend(
        [
            CompletionEvent(
                stop=True,
                stop_type=stop_type,
                stopping_word=word,
                tokens_predicted=9,
                tokens_evaluated=5,
                model="m",
                timings=Timings(cache_n=3, prompt_ms=2.0),
            )
        ]
    )
    generation.move(State.DONE)
    done = generation.ending(7)
    assert isinstance(done, Done)
    assert (done.stream, done.reason, done.stop, done.model) == (7, reason, stop, "m")
    assert done.usage == {"prompt_tokens": 5, "cached_tokens": 3, "completion_tokens": 9}
    assert done.timings["prompt"] == 2.0
    assert all(value >= 0 for value in done.timings.values())
    assert "template" not in done.timings


async def test_cancelled_failed_and_handed_back() -> None:
    cancelled = _make()
    cancelled.dispatched()
    cancelled.extend([CompletionEvent("a"), CompletionEvent("b")])
    cancelled.cancel()
    cancelled.end(State.CANCELLED, None)
    done = cancelled.ending(1)
    assert isinstance(done, Done)
    assert (done.reason, done.usage) == ("cancelled", {"completion_tokens": 2})

    failed = _make()
    broke = RequestError("upstream_error", "it broke", retry=True, retry_after=2.0)
    failed.end(State.FAILED, broke)
    assert failed.ending(3) == Error(3, "upstream_error", "it broke", True, 2.0)

    error = RequestError("shutting_down", "stopping", retry=True)
    handed = _make()
    handed.hand_back(error)
    assert handed.scope.cancel_called
    handed.end(State.FAILED, handed.error)
    assert handed.state is State.FAILED
    assert handed.ending(1) == Error(1, "shutting_down", "stopping", True)

    finished = _make()
    finished.move(State.RUNNING)
    finished.move(State.DONE)
    finished.hand_back(error)  # too late: it has its answer
    assert isinstance(finished.ending(1), Done)
    assert finished.error is None


def test_the_phases_of_a_request_that_never_ran() -> None:
    times = generations.Times(received=1.0)
    assert times.phases(3.5, 0.0) == {"total": 2500.0}
    times = generations.Times(1.0, dispatched=2.0, rendered=2.5, sent=3.0, first_token=4.0)
    assert times.phases(6.0, 0.0) == {
        "queue": 1000.0,
        "template": 500.0,
        "connect": 500.0,
        "first_token": 1000.0,
        "total": 5000.0,
    }
