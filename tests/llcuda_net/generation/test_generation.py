"""The generation: its states and its log."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest

from llcuda_net.errors import Overloaded
from llcuda_net.generation.generation import Generation
from llcuda_net.generation.state import TRANSITIONS, State
from llcuda_net.storage.records import unpacked
from llcuda_net.upstream.interface import Candidate, CompletionEvent, Probabilities, Timings

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


class Told:
    """A reader that only notes that it is pumped."""

    def __init__(self, note: Callable[[], None]) -> None:
        self.pump = note


@pytest.mark.parametrize(("start", "end"), list(itertools.product(State, State)))
async def test_only_what_the_table_allows(start: State, end: State) -> None:
    generation = _make()
    for state in _PATHS[start]:
        generation.move(state)
    told: list[State] = []
    generation.join(Told(lambda: told.append(generation.state)))
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


async def test_the_log_grows_by_what_has_text() -> None:
    generation = _make()
    grew = [
        generation.extend([CompletionEvent(content="a", tokens=[1]), CompletionEvent(content="b")]),
        generation.extend([CompletionEvent(content="c", tokens=[2, 3])]),
        generation.extend([CompletionEvent(stop=True, tokens_predicted=4)]),
        generation.extend([]),
    ]
    assert grew == [True, True, True, False]  # the end is for the journal, too
    assert generation.pieces == ["a", "b", "c"]
    assert generation.ids == [1, None, 3]
    assert generation.logprobs is None
    assert generation.final is not None
    assert generation.visible == 0  # until it has been kept
    told = []
    generation.join(Told(lambda: told.append(generation.visible)))
    generation.show(2)
    assert told == [2]


async def test_log_probabilities_are_natural_and_complete() -> None:
    generation = _make(n_probs=2)
    top = [Candidate(1, [97], -0.5), Candidate(2, [98], -2.0)]
    generation.extend(
        [CompletionEvent("a", completion_probabilities=[Probabilities(1, [97], -0.5, None, top)])]
    )
    assert generation.logprobs is not None
    assert unpacked(generation.logprobs[0]) == [[1, b"a", -0.5, [[1, b"a", -0.5], [2, b"b", -2.0]]]]
    after_sampling = Probabilities(
        1, [97], prob=0.25, top_probs=[Candidate(1, [97], prob=0.25), Candidate(2, [98], prob=0.0)]
    )
    generation.extend([CompletionEvent("a", completion_probabilities=[after_sampling])])
    ((_, _, logprob, found),) = unpacked(generation.logprobs[1])
    assert logprob == pytest.approx(math.log(0.25))
    assert [t[2] < -700 for t in found] == [False, True]
    assert all(math.isfinite(t[2]) for t in found)
    generation.extend([CompletionEvent("no probabilities")])
    assert unpacked(generation.logprobs[2]) == []
    # More candidates than were asked for are left out: they were not reckoned with.
    many = Probabilities(1, [97], -0.5, None, [Candidate(n, [97], -1.0) for n in range(9)])
    generation.extend([CompletionEvent("b", completion_probabilities=[many])])
    assert len(unpacked(generation.logprobs[3])[0][3]) == 2


async def test_a_log_probability_that_is_not_known_stays_so() -> None:
    """It was taken for the logarithm of the smallest double, -744.44."""
    generation = _make(n_probs=2)
    unknown = Probabilities(1, [97], None, None, [Candidate(1, [97]), Candidate(2, [98], -2.0)])
    generation.extend([CompletionEvent("a", completion_probabilities=[unknown])])
    assert generation.logprobs is not None
    assert unpacked(generation.logprobs[0]) == [[1, b"a", None, [[1, b"a", None], [2, b"b", -2.0]]]]


async def test_a_log_beyond_its_bound_ends_with_an_error_that_says_so() -> None:
    generation = _make(n_probs=2)
    generation.most_bytes = 2000
    top = [Candidate(n, [97] * 200, -1.0) for n in range(2)]
    for _ in range(2):
        generation.extend(
            [CompletionEvent("a", completion_probabilities=[Probabilities(1, [97], -1, None, top)])]
        )
        assert not generation.scope.cancel_called
    held = Probabilities(1, [97] * 900, -1, None, top)
    assert not generation.extend([CompletionEvent("", completion_probabilities=[held])])
    assert generation.scope.cancel_called  # also where nothing was said yet
    assert isinstance(generation.error, Overloaded)
    assert "2,000 bytes" in generation.error.message


async def test_what_is_held_back_comes_with_the_text_that_releases_it() -> None:
    generation = _make(n_probs=1)

    def event(content: str, id_: int, predicted: int, *, stop: bool = False) -> CompletionEvent:
        probabilities = [] if stop else [Probabilities(id_, [], -0.5)]
        return CompletionEvent(
            content,
            [] if stop else [id_],
            stop,
            predicted,
            completion_probabilities=probabilities,
        )

    assert not generation.extend([event("", 1, 1)])
    assert not generation.extend([event("", 2, 2)])
    assert generation.extend([event("abc", 3, 3), event("d", 4, 4)])
    assert (generation.pieces, generation.counts) == (["abc", "d"], [3, 1])
    assert generation.logprobs is not None
    assert [[t[0] for t in unpacked(p)] for p in generation.logprobs] == [[1, 2, 3], [4]]
    assert not generation.extend([event("", 5, 5)])  # the token that ends the text
    assert generation.extend([event("", 0, 5, stop=True)])
    assert [[t[0] for t in unpacked(p)] for p in generation.logprobs[2:]] == [[5]]
    assert generation.pieces[2:] == [""]


async def test_tokens_are_counted_across_a_continuation() -> None:
    generation = _make()
    generation.extend([CompletionEvent("a", [1], tokens_predicted=1)])
    generation.extend([CompletionEvent("bc", [3], tokens_predicted=3)])
    assert generation.outcome.usage == {"completion_tokens": 3}
    generation.splice()
    generation.continued(3)
    generation.extend([CompletionEvent("d", [4], tokens_predicted=1)])
    assert generation.outcome.usage == {"completion_tokens": 4}
    final = CompletionEvent(
        "", stop=True, tokens_predicted=2, tokens_evaluated=10, timings=Timings(cache_n=9)
    )
    generation.extend([final])
    assert generation.counts == [1, 2, 1]
    assert generation.outcome.usage == {
        "completion_tokens": 5,
        "prompt_tokens": 7,
        "cached_tokens": 7,
    }


async def test_epochs_tell_what_a_reader_may_keep() -> None:
    generation = _make()
    generation.extend([CompletionEvent(letter) for letter in "abcde"])
    assert generation.same_since(0) == 5
    generation.splice()
    first = generation.epoch
    assert (generation.same_since(0), generation.same_since(first)) == (5, 5)
    generation.extend([CompletionEvent("f")])
    assert (generation.same_since(0), generation.same_since(first)) == (5, 6)
    generation.splice()
    generation.splice()  # twice from one place
    assert generation.epoch > first
    generation.extend([CompletionEvent("g")])
    assert [generation.same_since(e) for _, e in generation.splices] == [6, 6, 7]
    assert generation.same_since(12345) == 5  # of an epoch that was lost
