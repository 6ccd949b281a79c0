"""Ids of events follow from the log, and one that the log does not give is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llcuda_net.errors import Ahead, InvalidRequest
from llcuda_net.generation.state import State
from llcuda_net.server.http.delivery.event_ids import Ids, Position, check, epoch_of, parse
from tests.support.generations import generation_of

G = "01890000-0000-7000-8000-000000000001"


def test_an_id_names_how_far_a_reader_is_in_each_choice() -> None:
    assert parse("a:0") == {"a": Position(0, 0)}
    assert parse("a:12,b:7:99") == {"a": Position(12, 0), "b": Position(7, 99)}
    assert list(parse("b:1, a:1")) == ["b", "a"]


@pytest.mark.parametrize(
    "text", ["", "a", "a:", ":1", "a:x", "a:-1", "a:1:2:3", "a:1,", "a:1,a:2", "a:²", "a" * 200]
)
def test_what_is_no_id_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        parse(text)


@given(st.text(max_size=200))
def test_any_text_is_an_id_or_refused(text: str) -> None:
    try:
        found = parse(text)
    except InvalidRequest:
        return
    assert found
    assert all(one.sequence >= 0 and one.epoch >= 0 for one in found.values())


def test_the_epoch_is_that_of_the_run_that_made_the_piece() -> None:
    one = generation_of("abcdef")
    one.splices = [(2, 50), (4, 50), (4, 70)]  # a restart, a failover, and a restart there
    epochs = [epoch_of(one, sequence)[0] for sequence in range(9)]
    assert epochs == [0, 0, 0, 50, 50, 70, 70, 70, 70]
    ids = Ids(one)
    written = [ids.at(sequence).decode() for sequence in range(9)]
    assert written[:4] == [f"{G}:0", f"{G}:1", f"{G}:2", f"{G}:3:50"]
    assert written == [Ids(one).at(sequence).decode() for sequence in range(9)]
    # Whoever has one of these goes on behind it.
    for sequence, id_ in enumerate(written):
        assert check(one, parse(id_)[G]) == sequence


@pytest.mark.parametrize(
    ("sequence", "epoch"),
    [
        (7, 0),  # a piece that never was
        (4, 0),  # one that was made again after a power cut
        (4, 60),  # by a run that was lost as a whole
        (9, 50),  # behind the last event
    ],
)
def test_a_reader_that_has_what_was_lost_is_refused(sequence: int, epoch: int) -> None:
    one = generation_of("abcdef")
    one.splices = [(3, 50)]
    with pytest.raises(Ahead) as refusal:
        check(one, Position(sequence, epoch))
    assert refusal.value.durable is not None
    assert refusal.value.durable <= sequence


def test_the_end_is_known_only_of_what_is_done() -> None:
    one = generation_of("abc")
    assert check(one, Position(4)) == 4
    assert check(one, Position(5)) == 5
    for state in (State.RUNNING, State.FAILED):
        one.state, one.ended = state, state is State.FAILED
        assert check(one, Position(3)) == 3
        with pytest.raises(Ahead):
            check(one, Position(4))
