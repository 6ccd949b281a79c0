"""Pieces become text, reasoning and tool calls, however they are cut and wherever they resume."""

from __future__ import annotations

from collections import deque
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

import llcuda_protocol as wire
from llcuda_net.client.chat.answer import Answer
from llcuda_net.client.events import TEXT, Channel, Event, Piece, Spliced, ToolCall

THOUGHT = Channel("reasoning")
CALLS = [Channel("tool_call", n, f"call-{n}", f"tool{n}") for n in range(3)]
LATER = Channel("of_a_later_version")

_pieces = st.lists(
    st.tuples(st.sampled_from([TEXT, THOUGHT, *CALLS, LATER]), st.text("ab{}", max_size=3)),
    max_size=24,
)


def joined(pieces: list[tuple[Channel, str]], channel: Channel) -> str:
    return "".join(text for of, text in pieces if of == channel)


def switches(pieces: list[tuple[Channel, str]]) -> list[tuple[int, Channel]]:
    found = [(0, pieces[0][0])] if pieces and pieces[0][0] != TEXT else []
    around = enumerate(pairwise(pieces), 1)
    return found + [(place, after[0]) for place, (before, after) in around if before[0] != after[0]]


@given(_pieces, st.data())
def test_assembly_depends_neither_on_the_cuts_nor_on_losses(
    pieces: list[tuple[Channel, str]], data: st.DataObject
) -> None:
    """Frames of any size, switches as early as they may come, losses of the connection anywhere."""
    events: deque[Event] = deque()
    answer = Answer(0, events)
    known = switches(pieces)
    told = place = 0
    while place < len(pieces):
        if place and data.draw(st.booleans(), "lost"):
            before = [switch for switch in known if switch[0] <= place]
            told = len(before)
            if before:
                answer.switch(*before[-1])
        end = place + data.draw(st.integers(1, len(pieces) - place), "frame")
        while told < len(known) and (
            known[told][0] < end or data.draw(st.booleans(), "early switch")
        ):
            answer.switch(*known[told])
            told += 1
        answer.add(wire.Tokens(1, place, [text for _, text in pieces[place:end]]))
        place = end
    answer.finish()
    assert answer.text == joined(pieces, TEXT)
    assert answer.reasoning == joined(pieces, THOUGHT)
    asked = [channel for channel in CALLS if any(of == channel for of, _ in pieces)]
    assert answer.tool_calls == [ToolCall(c.id, c.name, joined(pieces, c)) for c in asked]
    assert answer.received == len(pieces)
    assert [(e.sequence, e.channel, e.text) for e in events if isinstance(e, Piece)] == [
        (place, *piece) for place, piece in enumerate(pieces)
    ]


def test_a_reader_may_begin_within_a_tool_call() -> None:
    events: deque[Event] = deque()
    answer = Answer(7, events)
    answer.switch(3, CALLS[1])
    answer.add(wire.Tokens(1, 7, ['"a"', "}"], [4, 5]))
    answer.switch(9, TEXT)
    answer.add(wire.Tokens(1, 9, ["!"], [6]))
    assert answer.tool_calls == [ToolCall("call-1", "tool1", '"a"}')]
    assert answer.text == "!"
    assert list(events) == [
        Piece(7, '"a"', 4, None, CALLS[1]),
        Piece(8, "}", 5, None, CALLS[1]),
        Piece(9, "!", 6),
    ]
    assert "tool calls" in repr(answer)


def test_a_splice_and_a_switch_within_one_frame() -> None:
    events: deque[Event] = deque()
    answer = Answer(0, events)
    answer.switch(1, THOUGHT)
    answer.splice(Spliced(2, "why"))
    answer.splice(Spliced(2, "told again"))
    answer.add(wire.Tokens(1, 0, ["a", "b", "c"]))
    assert list(events) == [
        Piece(0, "a"),
        Piece(1, "b", channel=THOUGHT),
        Spliced(2, "why"),
        Piece(2, "c", channel=THOUGHT),
    ]
    assert (answer.text, answer.reasoning) == ("a", "bc")
