"""A log cut into its channels."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llcuda_net.storage import channels
from llcuda_net.storage.channels import (
    BEGINNING,
    Content,
    Part,
    Switch,
    channel_at,
    contents,
    parts,
)

_SWITCHES = st.lists(st.integers(0, 12), unique=True, max_size=6).flatmap(
    lambda positions: st.tuples(
        *(
            st.builds(
                Switch,
                st.just(position),
                st.sampled_from(["text", "reasoning", "tool_call"]),
                st.integers(0, 2),
            )
            for position in sorted(positions)
        )
    )
)


def test_text_alone_is_one_part() -> None:
    assert list(parts([], 3)) == [Part(0, 3, BEGINNING)]
    assert list(parts([], 3, 3)) == []
    pieces = ["a", "b"]
    assert channels.text_pieces(pieces, []) is pieces


def test_an_answer_with_a_thought_two_calls_and_a_word() -> None:
    switches = [
        Switch(0, "reasoning"),
        Switch(2, "text"),
        Switch(3, "tool_call", 0, "c0", "add"),
        Switch(5, "tool_call", 1, "c1", "add"),
    ]
    pieces = ["hm", "m", "Let me see. ", "", '{"a":1}', '{"a":', "2}"]
    assert contents(pieces, switches) == [
        Content(switches[0], "hmm"),
        Content(switches[1], "Let me see. "),
        Content(switches[2], '{"a":1}'),
        Content(switches[3], '{"a":2}'),
    ]
    assert list(channels.text_pieces(pieces, switches)) == ["Let me see. "]


def test_a_channel_that_comes_back_is_one_content() -> None:
    switches = [Switch(1, "reasoning"), Switch(2, "text")]
    assert contents(["a", "b", "c"], switches) == [
        Content(BEGINNING, "ac"),
        Content(switches[0], "b"),
    ]


@given(_SWITCHES, st.integers(0, 15), st.integers(0, 15))
def test_parts_are_the_log_in_order(switches: list[Switch], count: int, first: int) -> None:
    found = list(parts(switches, count, first))
    places = [place for part in found for place in range(part.first, part.behind)]
    assert places == list(range(first, count))
    for part in found:
        for place in range(part.first, part.behind):
            assert part.channel == channel_at(switches, place)
    for place in places:
        before = [switch for switch in switches if switch.position <= place]
        assert channel_at(switches, place) == (before[-1] if before else BEGINNING)
