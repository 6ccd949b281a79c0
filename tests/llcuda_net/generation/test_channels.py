"""An answer with channels: reasoning, text and tool calls in one log."""

from __future__ import annotations

from typing import Any

from llcuda_net.generation.generation import Generation
from llcuda_net.storage.records import Switch, TokenLog
from llcuda_net.upstream.interface import (
    REASONING,
    TEXT,
    TOOL_CALL,
    Channel,
    CompletionEvent,
)
from tests.support.storage.journals import packed

THOUGHT = Channel(REASONING)
ADD = Channel(TOOL_CALL, 0, "call_1", "add")


def event(content: str, channel: Channel | None = None, **details: Any) -> CompletionEvent:
    return CompletionEvent(content, channel=channel, **details)


def make(**params: Any) -> Generation:
    return Generation(None, [{"role": "user", "content": "1 + 2?"}], params, 60.0)


async def test_a_log_says_where_it_changes() -> None:
    one = make()
    one.extend([event("h", THOUGHT), event("m", THOUGHT), event("I add."), event("", ADD)])
    one.extend([event('{"a":1', ADD), event(',"b":2}', ADD)])
    one.extend([event("", stop=True, stop_type="tool_calls", tokens_predicted=9)])
    assert one.pieces == ["h", "m", "I add.", "", '{"a":1', ',"b":2}']
    assert one.switches == [
        Switch(0, REASONING),
        Switch(2, TEXT),
        Switch(3, TOOL_CALL, 0, "call_1", "add"),
    ]
    assert list(one.text_pieces()) == ["I add."]
    assert [(part.first, part.behind) for part in one.parts(1, 6)] == [(1, 2), (2, 3), (3, 6)]
    assert one.outcome.reason == "tool_calls"


async def test_text_alone_has_no_switches() -> None:
    one = make()
    one.extend([event("a"), event("b", Channel(TEXT)), event("", THOUGHT), event("c")])
    assert (one.pieces, one.switches) == (["a", "b", "c"], [])


async def test_a_second_call_of_the_same_tool_is_another_channel() -> None:
    one = make()
    again = Channel(TOOL_CALL, 1, "call_2", "add")
    one.extend([event("{}", ADD), event("", again), event("{}", again), event("", ADD)])
    assert [(s.position, s.index) for s in one.switches] == [(0, 0), (1, 1), (3, 0)]
    assert one.pieces == ["{}", "", "{}", ""]


async def test_switches_count_as_memory() -> None:
    one, other = make(), make()
    one.extend([event("a", ADD)])
    other.extend([event("a")])
    assert one.size > other.size
    copy = make()
    copy.restore(packed(log_of(one)), [], one.switches)
    assert (copy.count, copy.visible, copy.packed is None) == (len(one.pieces), copy.count, False)
    assert [*copy.text_pieces()] == [*one.text_pieces()]
    assert copy.packed is not None
    assert copy.pieces == one.pieces  # unpacks it
    assert copy.packed is None
    assert copy.size == one.size


def log_of(one: Generation) -> TokenLog:
    return TokenLog(one.pieces, one.ids, counts=one.counts)


async def test_a_restored_log_goes_on_in_its_channel() -> None:
    one = make()
    one.restore(packed(log_of(_with_a_thought())), [], [Switch(0, REASONING)])
    one.extend([event("b", THOUGHT), event("c")])
    assert one.switches == [Switch(0, REASONING), Switch(2, TEXT)]


def _with_a_thought() -> Generation:
    one = make()
    one.extend([event("a", THOUGHT)])
    return one
