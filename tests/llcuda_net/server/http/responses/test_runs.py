"""The numbers of events tell which run of a server made them: no reader is given one continuation
behind the tokens of another."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llcuda_net.errors import Ahead, InvalidRequest
from llcuda_net.generation.generation import Generation
from llcuda_net.generation.state import State
from llcuda_net.server.http.responses.events import Reached, ResponseEvents
from llcuda_net.server.http.responses.outline import GAP, runs
from llcuda_net.server.http.responses.response_format import ResponseFormat
from llcuda_net.storage.channels import Switch
from llcuda_net.util.time_ids import next_epoch
from tests.support.generations import generation_of

FORM = ResponseFormat("tiny", stream=True)
FORMS = st.sampled_from([FORM, ResponseFormat("tiny", stream=True, background=True)])
A, B = next_epoch(0), next_epoch(0) + (1 << 30) + 1


def made(count: int, splices: list[tuple[int, int]], *, over: bool = True) -> Generation:
    pieces = [f"{n} " for n in range(count)]
    switches = [Switch(0, "reasoning"), Switch(3, "text")] if count > 3 else []
    state = State.DONE if over else State.QUEUED
    found = generation_of(pieces, switches=switches, state=state)
    if not over:
        found.move(State.RUNNING)
    found.splices = splices
    return found


def events(generation: Generation, form: ResponseFormat, after: int | None = None) -> list[Any]:
    """The data of those behind a number, as a reader gets them that comes with it."""
    first = 0 if after is None else Reached(generation, form, after).position()
    writer = ResponseEvents(generation, form, after)
    parts = [] if first else [writer.begin()]
    parts += [writer.at(n, b"id") for n in range(first, generation.count)]
    if generation.ended:
        parts.append(writer.last(b"id"))
    lines = b"".join(parts).decode().splitlines()
    return [json.loads(line[6:]) for line in lines if line.startswith("data: ")]


def numbers(found: list[Any]) -> list[int]:
    return [one["sequence_number"] for one in found]


def test_without_another_run_they_have_no_gaps() -> None:
    for splices in ([], [(2, 0), (4, 0)]):  # another upstream is no other run
        found = numbers(events(made(6, splices), FORM))
        assert found == list(range(len(found)))


@st.composite
def splices(draw: st.DrawFn, count: int) -> list[tuple[int, int]]:
    found, epoch = [], 0
    for position in sorted(draw(st.lists(st.integers(0, count), max_size=4))):
        epoch += draw(st.integers(0, 1 << 50))
        found.append((position, epoch))
    return found


@given(st.integers(0, 8), FORMS, st.data())
def test_a_reader_of_what_there_is_goes_on_from_any_number(
    count: int, form: ResponseFormat, data: st.DataObject
) -> None:
    generation = made(count, data.draw(splices(count)))
    everything = events(generation, form)
    found = numbers(everything)
    assert found[:2] == [0, 1]
    jumps = [b - a for a, b in pairwise(found) if b - a != 1]
    assert len(jumps) <= len(runs(generation.splices)) - 1
    assert all(GAP < jump < 1 << 27 for jump in jumps)
    for place, number in enumerate(found):
        assert events(generation, form, number) == everything[place + 1 :]
    # Every other one was never told by this log.
    for number in {n + d for n in found for d in (1, -1)} - set(found) - {-1, found[-1] + 1}:
        with pytest.raises(Ahead):
            events(generation, form, number)


@pytest.mark.parametrize("over", [False, True])
@pytest.mark.parametrize("form", [FORM, ResponseFormat("tiny", stream=True, background=True)])
@pytest.mark.parametrize(
    ("before", "now"),
    [
        ([], [(4, A)]),  # a run was lost, but for its first four pieces
        ([], [(0, A)]),
        ([], [(3, A), (5, B)]),
        ([(2, A)], [(2, A), (4, B)]),
        ([(4, A)], [(4, B)]),  # nothing is left of what the reader's run had made
        ([(2, A)], [(5, B)]),
    ],
)
def test_who_was_ahead_is_told_so(
    before: list[tuple[int, int]], now: list[tuple[int, int]], form: ResponseFormat, over: bool
) -> None:
    lost, kept = made(9, before, over=False), made(12, now, over=over)
    # How many pieces both have, of the same runs.
    same = min((position for position, _ in {*before} ^ {*now}), default=9)
    read = events(lost, form)
    deltas = [one["sequence_number"] for one in read if "delta" in one]
    last = deltas[same - 1] if same else 1
    for number in numbers(read):
        if number <= last:
            assert all(n > number for n in numbers(events(kept, form, number)))
        else:
            with pytest.raises(Ahead) as refusal:
                Reached(kept, form, number).position()
            assert refusal.value.durable is not None
            assert refusal.value.durable <= 9


def test_what_there_never_was_is_refused_as_before() -> None:
    with pytest.raises(InvalidRequest, match="the last event of the response 10"):
        Reached(made(3, []), FORM, 999).position()
    # One that runs is waited for, where no run was before.
    assert Reached(made(3, [], over=False), FORM, 999).position() == 3


def test_another_server_that_goes_on_is_noticed_in_the_midst_of_an_item() -> None:
    generation = made(8, [], over=False)
    writer = ResponseEvents(generation, FORM)
    parts = [writer.at(n, b"id") for n in range(6)]
    generation.splices = [(6, A)]
    parts += [writer.at(n, b"id") for n in range(6, 8)]
    whole = ResponseEvents(made(8, [(6, A)], over=False), FORM)
    assert parts == [whole.at(n, b"id") for n in range(8)]


def test_it_is_not_known_before_so_much_has_come() -> None:
    """Of one that is read from another server."""
    numbered = numbers(events(made(9, [(5, A)], over=False), FORM))
    for have in range(9):
        for told in ([], [(5, A)]):
            there = made(have, told, over=False)
            known = [Reached(there, FORM, number).known() for number in numbered]
            right = [number in numbers(events(there, FORM)) for number in numbered]
            assert known == right
    # Nothing of what this one has seen is left: that is known as soon as the rest is here.
    ahead = numbers(events(made(9, [], over=False), FORM))[-1]
    assert [Reached(made(n, [(5, A)], over=False), FORM, ahead).known() for n in (4, 5)] == [
        False,
        True,
    ]
