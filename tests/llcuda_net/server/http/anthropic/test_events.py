"""Events of a streamed message, of which the SDK makes the whole answer."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest
from anthropic._models import construct_type_unchecked
from anthropic._streaming import SSEDecoder
from anthropic.lib.streaming._messages import accumulate_event
from anthropic.types import Message, ParsedMessage, RawMessageStreamEvent
from hypothesis import given
from hypothesis import strategies as st

from llcuda_net.errors import Overloaded
from llcuda_net.generation.generation import Generation
from llcuda_net.generation.state import State
from llcuda_net.server.http.anthropic.message_format import MessageFormat
from llcuda_net.server.http.delivery.event_ids import FINISH
from llcuda_net.server.http.delivery.format import failure_of
from llcuda_net.server.http.errors import HttpError
from llcuda_net.storage.channels import Switch
from tests.support.generations import GENERATION, generation_of

FORM = MessageFormat("tiny", 1, stream=True)
SWITCHES = [
    Switch(0, "reasoning"),
    Switch(2, "text"),
    Switch(4, "tool_call", 0, "call_a", "weather"),
    Switch(6, "tool_call", 1, "call_b", "time"),
]
PIECES = ["Let me", " see", "I ", "ask", '{"a":', "1}", ""]
CHANNELS = [
    Switch(0, "text"),
    Switch(0, "reasoning"),
    Switch(0, "tool_call", 0, "call_a", "weather"),
    Switch(0, "tool_call", 1, "call_b", "time"),
]


def events_of(generation: Generation) -> list[bytes]:
    """What a stream sends: the beginning, the events of each piece, and the end."""
    writer = FORM.writer(generation, 0, generation, None)
    found = [writer.begin()]
    found += [writer.at(at, b"g:%d" % (at + 1)) for at in range(generation.count)]
    return [*found, writer.last(b"g:%d" % (generation.count + FINISH))]


def parsed(data: Iterable[bytes]) -> list[tuple[str | None, Any]]:
    return [(one.event, one.json()) for one in SSEDecoder().iter_bytes(iter(data))]


def accumulated(data: Iterable[bytes]) -> dict[str, Any]:
    """The message that Anthropic's SDK makes of events."""
    message: ParsedMessage[None] | None = None
    buffers: dict[int, bytes] = {}
    for kind, document in parsed(data):
        assert kind == document["type"]
        if kind == "ping":
            continue
        union: Any = RawMessageStreamEvent
        event: Any = construct_type_unchecked(type_=union, value=document)
        message = accumulate_event(event=event, current_snapshot=message, json_bufs=buffers)
    assert message is not None
    found = message.to_dict()
    assert found.pop("stop_details", None) is None  # of refusals only
    return found


def whole(generation: Generation) -> dict[str, Any]:
    """The answer that is not streamed, which must be one by the SDK's types."""
    answer: dict[str, Any] = json.loads(FORM.whole([generation]))
    Message.model_validate(answer, strict=True)
    del answer["llcuda"]
    return answer


def test_a_text() -> None:
    generation = generation_of(["Hi", " you"], usage={"prompt_tokens": 5, "completion_tokens": 2})
    first, hi, you, last = events_of(generation)
    nothing = {
        "input_tokens": 0,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": 0,
    }
    assert parsed([first]) == [
        (
            "message_start",
            {
                "type": "message_start",
                "message": {
                    "id": f"msg_{GENERATION}",
                    "type": "message",
                    "role": "assistant",
                    "model": "tiny",
                    "content": [],
                    "stop_reason": None,
                    "stop_sequence": None,
                    "usage": nothing,
                },
            },
        )
    ]
    assert [document for _, document in parsed([hi])] == [
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi"}},
    ]
    assert you == (
        b"id: g:2\nevent: content_block_delta\n"
        b'data: {"type":"content_block_delta","index":0,"delta":'
        b'{"type":"text_delta","text":" you"}}\n\n'
    )
    stop, delta, end = (document for _, document in parsed([last]))
    assert stop == {"type": "content_block_stop", "index": 0}
    assert delta == {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn", "stop_sequence": None},
        "usage": {**nothing, "input_tokens": 5, "output_tokens": 2},
        "llcuda": {"generation": GENERATION, "timings": {"total": 1.5}},
    }
    assert end == {"type": "message_stop"}


def test_the_id_is_that_of_the_last_event_of_a_piece() -> None:
    found = events_of(generation_of(PIECES, switches=SWITCHES))
    for sequence, data in enumerate(found[1:], 1):
        *before, last = data.split(b"\n\n")[:-1]
        assert last.startswith(b"id: g:%d\n" % sequence)
        assert not any(b"id: g" in one for one in before)


def test_each_channel_is_a_block() -> None:
    generation = generation_of(PIECES, switches=SWITCHES, reason="tool_calls")
    message = accumulated(events_of(generation))
    signature = f"llcuda-{GENERATION}"
    assert message["content"] == [
        {"type": "thinking", "thinking": "Let me see", "signature": signature},
        {"type": "text", "text": "I ask"},
        {"type": "tool_use", "id": "call_a", "name": "weather", "input": {"a": 1}},
        {"type": "tool_use", "id": "call_b", "name": "time", "input": {}},
    ]
    assert message["stop_reason"] == "tool_use"
    assert message["usage"]["output_tokens_details"] == {"thinking_tokens": 2}
    assert whole(generation) == message


@st.composite
def logs(draw: st.DrawFn) -> Generation:
    """Any log: pieces with switches anywhere, the arguments of each tool call one JSON object."""
    pieces = draw(st.lists(st.text(max_size=3), max_size=12))
    switches = []
    for at in range(len(pieces)):
        channel = draw(st.sampled_from([None, *CHANNELS]))
        if channel is not None:
            switches.append(channel._replace(position=at))
    generation = generation_of(pieces, switches=switches)
    for call in range(2):  # the first piece of each is all of it
        mine = [
            at
            for at in range(len(pieces))
            if (found := _channel(switches, at)).kind == "tool_call" and found.index == call
        ]
        for place, at in enumerate(mine):
            generation.pieces[at] = "" if place else json.dumps({"text": pieces[at]})
    return generation


def _channel(switches: list[Switch], at: int) -> Switch:
    return [Switch(0, "text"), *(one for one in switches if one.position <= at)][-1]


@given(logs())
def test_the_sdk_makes_the_whole_answer_of_the_events(generation: Generation) -> None:
    assert accumulated(events_of(generation)) == whole(generation)


@given(logs())
def test_each_block_begins_once_and_ends_once(generation: Generation) -> None:
    seen = [document for _, document in parsed(events_of(generation))]
    begun = [one["index"] for one in seen if one["type"] == "content_block_start"]
    ended = [one["index"] for one in seen if one["type"] == "content_block_stop"]
    assert begun == list(range(len(begun)))
    assert sorted(ended) == begun
    assert [one["type"] for one in seen[-2:]] == ["message_delta", "message_stop"]


@given(logs(), st.data())
def test_events_depend_on_their_position_alone(generation: Generation, data: st.DataObject) -> None:
    count = generation.count
    order = data.draw(st.lists(st.integers(0, max(0, count - 1)), max_size=20 if count else 0))
    fresh = [FORM.writer(generation, 0, generation, None).at(at, b"g") for at in range(count)]
    writer = FORM.writer(generation, 0, generation, None)
    assert [writer.at(at, b"g") for at in order] == [fresh[at] for at in order]


@given(logs())
def test_what_comes_later_changes_nothing(generation: Generation) -> None:
    """As it is made: a piece after the other, and a switch just before its piece."""
    growing = generation_of([], switches=[], state=State.QUEUED)
    writer = FORM.writer(growing, 0, growing, None)
    found = []
    for at, piece in enumerate(generation.pieces):
        growing.switches += [one for one in generation.switches if one.position == at]
        growing.pieces.append(piece)
        found.append(writer.at(at, b"g:%d" % (at + 1)))
    assert found == events_of(generation)[1:-1]


def test_a_tool_call_that_is_taken_up_again_is_one_block() -> None:
    switches = [
        Switch(0, "tool_call", 0, "c", "f"),
        Switch(1, "tool_call", 1, "d", "g"),
        Switch(2, "tool_call", 0, "c", "f"),
    ]
    generation = generation_of(['{"a"', "{}", ":1}"], switches=switches, reason="tool_calls")
    assert [one["input"] for one in whole(generation)["content"]] == [{"a": 1}, {}]
    assert accumulated(events_of(generation)) == whole(generation)


@pytest.mark.parametrize("arguments", ['{"a": [1', "[1]", "", "no"])
def test_arguments_that_are_no_object_are_empty(arguments: str) -> None:
    generation = generation_of([arguments], switches=[Switch(0, "tool_call", 0, "c", "f")])
    assert whole(generation)["content"][0]["input"] == {}


@pytest.mark.parametrize(
    ("reason", "stop", "found"),
    [
        ("stop", None, ("end_turn", None)),
        ("stop", "END", ("stop_sequence", "END")),
        ("length", None, ("max_tokens", None)),
        ("full", None, ("model_context_window_exceeded", None)),
        ("tool_calls", None, ("tool_use", None)),
    ],
)
def test_why_it_stopped(reason: str, stop: str | None, found: tuple[str, str | None]) -> None:
    usage = {"prompt_tokens": 5, "completion_tokens": 0 if reason == "full" else 1}
    reason = "length" if reason == "full" else reason
    generation = generation_of(["a"], reason=reason, stop=stop, usage=usage)
    answer = whole(generation)
    assert (answer["stop_reason"], answer["stop_sequence"]) == found
    assert accumulated(events_of(generation)) == answer


def test_tokens_that_a_slot_held_are_counted_apart() -> None:
    usage = {"prompt_tokens": 50, "completion_tokens": 3, "cached_tokens": 40}
    generation = generation_of(["a"], usage=usage)
    assert whole(generation)["usage"] == {
        "input_tokens": 10,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 40,
        "output_tokens": 3,
    }
    assert accumulated(events_of(generation)) == whole(generation)


def test_an_answer_of_nothing_has_no_content() -> None:
    generation = generation_of([])
    assert whole(generation)["content"] == []
    assert accumulated(events_of(generation)) == whole(generation)


@given(st.text())
def test_any_text_comes_through(text: str) -> None:
    generation = generation_of([text])
    assert accumulated(events_of(generation))["content"][0]["text"] == text


def test_a_ping_is_a_comment_for_people_too() -> None:
    data = FORM.comment("queued 3 of 5")
    assert data.startswith(b": queued 3 of 5\n")
    assert parsed([data]) == [("ping", {"type": "ping"})]


def test_a_failure() -> None:
    generation = generation_of(["a"], state=State.FAILED, error=Overloaded("full"))
    failure = failure_of(generation)
    assert failure is not None
    data = FORM.writer(generation, 0, generation, None).failed(failure, b"g:2")
    said = {
        "type": "overloaded_error",
        "message": "full",
        "details": {"error_code": "rate_limit_exceeded"},
    }
    assert parsed([data]) == [("error", {"type": "error", "error": said})]
    assert b"id:" not in data
    assert FORM.error(HttpError(503, "soon")) == (
        b'event: error\ndata: {"type":"error","error":{"type":"api_error","message":"soon"}}\n\n'
    )


def test_without_a_name_in_the_request_the_model_is_the_one_that_answered() -> None:
    generation = generation_of(["Hi"])
    generation.model = {"name": "tiny"}
    assert json.loads(MessageFormat("").whole([generation]))["model"] == "tiny"
