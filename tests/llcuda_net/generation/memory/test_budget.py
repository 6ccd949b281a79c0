"""Who is admitted, and who must end, where memory is short."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from llcuda_net.errors import InvalidRequest, Overloaded
from llcuda_net.generation.generation import Generation
from llcuda_net.generation.memory import sizes
from llcuda_net.generation.memory.budget import Bounds, MemoryBudget
from llcuda_net.upstream.interface import CompletionEvent

BOUNDS = replace(Bounds.of(1 << 30), generation=100_000, user=250_000, running=450_000)


def make(owner: str = "", **params: Any) -> Generation:
    return Generation("a prompt", None, params, 60.0, owner=owner)


def grown(owner: str, size: int) -> Generation:
    """One with a log of about so many bytes."""
    generation = make(owner)
    generation.extend([CompletionEvent("x" * (size // 4))])
    return generation


@pytest.mark.parametrize("limit", [128 << 20, 1 << 30, 1 << 38])
def test_the_bounds_fit_into_the_limit_with_room_for_the_rest(limit: int) -> None:
    bounds = Bounds.of(limit)
    parts = bounds.running + bounds.finished + bounds.unsent + bounds.incoming
    assert parts < limit // 2
    assert bounds.generation < bounds.user < bounds.running
    # No client gets more because the machine has more.
    assert bounds.user <= 64 << 20


async def test_a_request_that_may_take_too_much_is_told_the_numbers() -> None:
    budget = MemoryBudget(BOUNDS, [])
    with pytest.raises(InvalidRequest) as caught:
        budget.admit(make(n_predict=500, n_probs=20))
    assert not caught.value.retry
    most = int(caught.value.message.split("at most ")[1].split()[0])
    for words in ("500 tokens (n_predict)", "20 probabilities each (n_probs)", "100,000"):
        assert words in caught.value.message
    budget.admit(make(n_predict=most, n_probs=20))
    budget.admit(make(n_predict=1 << 30))  # text is counted as it comes


async def test_one_user_does_not_take_what_is_another_ones() -> None:
    running: list[Generation] = []
    budget = MemoryBudget(BOUNDS, running)
    dear: dict[str, Any] = {"n_predict": 100, "n_probs": 20}
    cost = make(**dear).size + sizes.most(dear)
    fits = BOUNDS.user // cost
    for _ in range(fits):
        budget.admit(one := make("ann", **dear))
        running.append(one)
    with pytest.raises(Overloaded) as caught:
        budget.admit(make("ann", **dear))
    assert caught.value.retry
    assert caught.value.retry_after
    assert "your requests may take 250,000 bytes" in caught.value.message
    budget.admit(make("bob", **dear))
    # All together have a bound, too.
    running += [grown("bob", 200_000)]
    with pytest.raises(Overloaded, match="all requests may take 450,000 bytes"):
        budget.admit(make("eve", **dear))
    assert (budget.refused, budget.ended) == (2, 0)
    del running[:]
    budget.admit(make("ann", **dear))


async def test_nobody_is_admitted_near_the_limit() -> None:
    budget = MemoryBudget(BOUNDS, [])
    budget.pressed = True
    with pytest.raises(Overloaded, match="near its limit"):
        budget.admit(make())


async def test_the_largest_of_a_user_ends_where_their_logs_have_grown_too_much() -> None:
    running = [grown("ann", size) for size in (90_000, 120_000, 100_000)] + [grown("bob", 130_000)]
    budget = MemoryBudget(replace(BOUNDS, running=1 << 20), running)
    budget.relieve(0)
    assert [one.scope.cancel_called for one in running] == [False, True, False, False]
    error = running[1].error
    assert isinstance(error, Overloaded)
    assert "your requests may take 250,000 bytes" in error.message
    budget.relieve(0)  # that one is counted no more
    assert budget.ended == 1


async def test_the_largest_of_all_ends_where_all_have_grown_too_much() -> None:
    running = [grown(name, 100_000 + n * 1000) for n, name in enumerate("abcde")]
    budget = MemoryBudget(BOUNDS, running)
    budget.relieve(0)
    assert [one.scope.cancel_called for one in running] == [False] * 4 + [True]
    # And where the process itself is too large, one at a time.
    budget.relieve(BOUNDS.limit + 1)
    assert [one.scope.cancel_called for one in running] == [False] * 3 + [True] * 2


async def test_other_requests_count_while_they_wait() -> None:
    budget = MemoryBudget(BOUNDS, [])
    with budget.holding("ann", 240_000):
        assert budget.running == 240_000
        with pytest.raises(Overloaded, match="your requests"), budget.holding("ann", 20_000):
            raise AssertionError("admitted")
        with pytest.raises(Overloaded):
            budget.admit(make("ann", n_predict=100, n_probs=20))
        with budget.holding("bob", 20_000):
            pass
        with budget.holding("ann", 20_000, refuse=False):
            assert budget.running == 260_000
    assert budget.running == 0
    assert not budget._held


async def test_what_can_never_fit_is_not_to_be_tried_again() -> None:
    budget = MemoryBudget(BOUNDS, [])
    with pytest.raises(InvalidRequest, match="all of yours together may take 250,000"):
        budget.admit(Generation("x" * 100_000, None, {}, 60.0))


def test_streams_that_only_read_have_a_bound() -> None:
    budget = MemoryBudget(BOUNDS, [])
    most = BOUNDS.running // sizes.GENERATION
    budget.check_streams(most)
    with pytest.raises(Overloaded, match=f"at most {most} streams"):
        budget.check_streams(most + 1)
