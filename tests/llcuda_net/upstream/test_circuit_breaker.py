"""When work may be given to an upstream."""

from __future__ import annotations

import random

import pytest
import trio
from trio.testing import MockClock

from llcuda_net.upstream.circuit_breaker import (
    FIRST_PAUSE,
    LONGEST_PAUSE,
    THRESHOLD,
    CircuitBreaker,
    State,
)


@pytest.fixture
def even(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses without jitter."""
    monkeypatch.setattr(random, "uniform", lambda low, high: 1.0)


async def test_it_opens_at_once_and_its_pauses_double(mock_clock: MockClock, even: None) -> None:
    breaker = CircuitBreaker()
    assert breaker.closed
    pause = FIRST_PAUSE
    for _ in range(8):
        breaker.trip("it is gone")
        assert (breaker.state, breaker.reason, breaker.closed) == (State.OPEN, "it is gone", False)
        assert breaker.retry_at - trio.current_time() == min(pause, LONGEST_PAUSE)
        mock_clock.jump(pause)
        breaker.probe()
        assert (breaker.state, breaker.closed) == (State.HALF_OPEN, False)
        pause *= 2
    breaker.record_success()
    assert (breaker.state, breaker.reason) == (State.CLOSED, "")
    breaker.trip("again")
    assert breaker.retry_at - trio.current_time() == FIRST_PAUSE


async def test_others_who_learn_of_the_same_failure_change_nothing(
    mock_clock: MockClock, even: None
) -> None:
    breaker = CircuitBreaker()
    breaker.trip("first")
    before = breaker.retry_at
    mock_clock.jump(0.1)
    breaker.trip("second")
    assert (breaker.retry_at, breaker.reason) == (before, "first")


async def test_errors_in_a_row_are_counted_and_one_answer_ends_the_row() -> None:
    breaker = CircuitBreaker()
    assert [breaker.record_failure() for _ in range(THRESHOLD - 1)] == [False] * (THRESHOLD - 1)
    breaker.record_success()
    assert [breaker.record_failure() for _ in range(THRESHOLD)] == [False] * (THRESHOLD - 1) + [
        True
    ]


async def test_a_reason_to_retry_now_ends_the_pause(mock_clock: MockClock, even: None) -> None:
    breaker = CircuitBreaker()
    for _ in range(5):
        breaker.trip("gone")
        breaker.probe()
    breaker.trip("gone")
    assert breaker.retry_at > trio.current_time() + FIRST_PAUSE
    breaker.retry_now()
    assert breaker.retry_at == trio.current_time()
    breaker.probe()
    breaker.trip("not yet")
    assert breaker.retry_at == trio.current_time() + FIRST_PAUSE


async def test_pauses_of_two_differ(mock_clock: MockClock) -> None:
    """Or all servers in front of one upstream come back to it in the same moment."""
    found = []
    for _ in range(20):
        breaker = CircuitBreaker()
        breaker.trip("gone")
        found.append(breaker.retry_at - trio.current_time())
    assert all(0.75 * FIRST_PAUSE <= pause <= 1.25 * FIRST_PAUSE for pause in found)
    assert len(set(found)) > 10
