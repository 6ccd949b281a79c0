"""A second run beside a log: nothing doubled, nothing lost, and no difference unnoticed."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from llcuda_net.errors import Interrupted
from llcuda_net.generation.attempt.replay import Replay
from llcuda_net.generation.generation import Generation
from llcuda_net.storage.channels import contents
from llcuda_net.storage.records import unpacked
from llcuda_net.upstream.interface import (
    REASONING,
    TEXT,
    TOOL_CALL,
    Channel,
    CompletionEvent,
    Probabilities,
)

#: An answer: each channel that it goes through, and what it says there.
Answer = list[tuple[Channel, str]]
THOUGHT, SAID = Channel(REASONING), Channel(TEXT)
ADD, SUB = Channel(TOOL_CALL, 0, "c0", "add"), Channel(TOOL_CALL, 1, "c1", "sub")
PLAIN: Answer = [(SAID, "one two three")]

_TEXTS = st.text("abé ", min_size=1, max_size=8)


@st.composite
def answers(draw: st.DrawFn) -> Answer:
    """As models make them: thoughts and text in turn, then calls, some without arguments."""
    out: Answer = [
        (draw(st.sampled_from([THOUGHT, SAID])), draw(_TEXTS))
        for _ in range(draw(st.integers(0, 3)))
    ]
    out += [
        (one, draw(st.text('{"a}', max_size=6))) for one in (ADD, SUB)[: draw(st.integers(0, 2))]
    ]
    return _joined(out) or PLAIN


def _joined(answer: Answer) -> Answer:
    out: Answer = []
    for channel, text in answer:
        if out and out[-1][0] == channel:
            out[-1] = channel, out[-1][1] + text
        else:
            out.append((channel, text))
    return out


def run(answer: Answer, borders: list[bool]) -> list[CompletionEvent]:
    """An answer in events of one or two characters each; a tool call begins empty where asked."""
    events: list[CompletionEvent] = []
    places = iter(borders * 200 or [False] * 2000)
    for channel, text in answer:
        if channel.kind == TOOL_CALL and (not text or next(places)):
            events.append(CompletionEvent("", channel=channel))
        while text:
            size = 1 + next(places)
            events.append(CompletionEvent(text[:size], channel=channel))
            text = text[size:]
    for number, event in enumerate(events, 1):
        event.tokens_predicted = number
    end = CompletionEvent(stop=True, stop_type="eos", tokens_predicted=len(events))
    return [*events, end]


def generation(events: list[CompletionEvent], **params: Any) -> Generation:
    one = Generation("a prompt", None, params, 60.0)
    one.extend(events)
    return one


def said(one: Generation) -> list[tuple[tuple[str, int, str], str]]:
    return [
        ((channel.kind, channel.index, channel.name), text)
        for channel, text in contents(one.pieces, one.switches)
    ]


def batches(events: list[CompletionEvent], sizes: list[int]) -> list[list[CompletionEvent]]:
    out, rest = [], list(events)
    for size in sizes:
        out.append(rest[:size])
        rest = rest[size:]
    return [batch for batch in [*out, rest] if batch]


BORDERS = st.lists(st.booleans(), max_size=8)


@given(answers(), st.data(), BORDERS, BORDERS, st.lists(st.integers(1, 4), max_size=6))
def test_whatever_is_cut_wherever_comes_out_once(
    answer: Answer, data: st.DataObject, first: list[bool], second: list[bool], sizes: list[int]
) -> None:
    async def main() -> None:
        whole = run(answer, first)
        at = data.draw(st.integers(1, len(whole) - 1))
        one = generation(whole[:at])
        before = list(one.pieces)
        shown = said(one)
        one.runs_again()
        replay = Replay(one)
        for batch in batches(run(answer, second), sizes):
            one.extend(replay.unsaid(batch))
        assert replay.caught_up
        assert one.pieces[: len(before)] == before
        assert said(one) == said(generation(whole))
        assert one.outcome.usage["completion_tokens"] == len(run(answer, second)) - 1
        assert one.outcome.reason == "stop"
        assert shown == said(generation(whole[:at]))

    trio.run(main)


@given(answers(), st.data(), BORDERS, BORDERS)
def test_a_difference_anywhere_is_noticed(
    answer: Answer, data: st.DataObject, first: list[bool], second: list[bool]
) -> None:
    async def main() -> None:
        whole = run(answer, first)
        at = data.draw(st.integers(1, len(whole) - 1))
        one = generation(whole[:at])
        count = len(said(one))
        part = data.draw(st.integers(0, count - 1))
        other = list(answer)
        channel, text = other[part]
        length = len(said(one)[part][1]) if len(contents(one.pieces, one.switches)) == count else 0
        if length and said(one)[part][1] == text[:length]:
            place = data.draw(st.integers(0, length - 1))
            other[part] = channel, text[:place] + "X" + text[place + 1 :]
        else:
            other[part] = channel._replace(kind="other", name="other"), text or "x"
        before = list(one.pieces)
        one.runs_again()
        replay = Replay(one)
        with pytest.raises(Interrupted, match="something else"):
            one.extend(replay.unsaid(run(other, second)))
        assert one.pieces == before

    trio.run(main)


@given(answers(), st.data(), BORDERS)
def test_an_end_before_the_logs_is_noticed(
    answer: Answer, data: st.DataObject, second: list[bool]
) -> None:
    async def main() -> None:
        whole = run(answer, [])
        one = generation(whole[:-1])
        shorter = list(answer)
        channel, text = shorter.pop()
        if text:
            shorter.append((channel, text[: data.draw(st.integers(0, len(text) - 1))]))
        replay = Replay(one)
        with pytest.raises(Interrupted, match="it ended"):
            one.extend(replay.unsaid(run(shorter, second)))

    trio.run(main)


async def test_a_channel_that_goes_on_where_it_had_ended_is_noticed() -> None:
    one = generation(run([(THOUGHT, "hm"), (SAID, "a")], [])[:-1])
    with pytest.raises(Interrupted, match="reasoning went on"):
        Replay(one).unsaid(run([(THOUGHT, "hmm"), (SAID, "a")], []))


async def test_a_call_without_arguments_must_come_again() -> None:
    one = generation(run([(SAID, "a"), (ADD, ""), (SUB, "")], [])[:-1])
    with pytest.raises(Interrupted, match="'sub' came where there was a call of the tool 'add'"):
        Replay(one).unsaid(run([(SAID, "a"), (SUB._replace(index=0), "")], []))


async def test_what_comes_again_counts_as_progress_and_not_as_tokens() -> None:
    events = run(PLAIN, [])
    one = generation(events[:8])
    made = one.made
    one.runs_again()
    assert one.times.progress == one.times.last_token
    one.times.last_token = -1.0
    replay = Replay(one)
    assert replay.unsaid(run(PLAIN, [])[:5]) == []
    assert one.times.progress > -1.0
    assert one.made == made
    assert one.outcome.usage["completion_tokens"] == 8  # of what its readers have
    one.extend(replay.unsaid(run(PLAIN, [])[5:]))
    assert one.made == 13
    assert one.counts == [1] * 13


async def test_probabilities_come_once() -> None:
    def scored(borders: list[bool]) -> list[CompletionEvent]:
        events = run(PLAIN, borders)
        token = 0
        for event in events[:-1]:
            found = [Probabilities(token + n, [97], -0.5) for n in range(len(event.content))]
            token += len(event.content)
            event.completion_probabilities = found
        return events

    whole = generation(scored([]), n_probs=1)
    one = generation(scored([])[:5], n_probs=1)
    one.runs_again()
    replay = Replay(one)
    one.extend(replay.unsaid(scored([True])))  # two characters each: one straddles the cut
    assert "".join(one.pieces) == "".join(whole.pieces)
    assert one.logprobs is not None
    assert whole.logprobs is not None
    assert [token for piece in one.logprobs for token in unpacked(piece)] == [
        token for piece in whole.logprobs for token in unpacked(piece)
    ]
