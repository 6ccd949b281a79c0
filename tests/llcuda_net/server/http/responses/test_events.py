"""The events of a response: numbered, and the same from wherever they are read."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llcuda_net.errors import (
    Interrupted,
    LeaseLost,
    RequestError,
    StorageUnavailable,
    UpstreamError,
)
from llcuda_net.generation.generation import Generation
from llcuda_net.generation.state import State
from llcuda_net.server.http.delivery.format import failure_of
from llcuda_net.server.http.responses.answers import OPEN_REASONING, outline_of, response_of
from llcuda_net.server.http.responses.events import ResponseEvents, error_event, events_in_all
from llcuda_net.server.http.responses.response_format import ResponseFormat
from llcuda_net.storage.channels import Switch
from tests.support.generations import GENERATION, generation_of

FORM = ResponseFormat("tiny", stream=True)
BACKGROUND = ResponseFormat("tiny", stream=True, background=True)
SWITCHES = [
    Switch(0, "reasoning"),
    Switch(2, "text"),
    Switch(4, "tool_call", 0, "call_a", "weather"),
    Switch(6, "tool_call", 1, "call_b", "time"),
]
ID = b"g:1"
PIECES = ["Let me", " see", "I ", "ask", '{"a":', "1}", ""]


def ids(sequence: int) -> bytes:
    return f"{GENERATION}:{sequence}".encode()


def whole(generation: Generation, form: ResponseFormat, after: int | None = None) -> bytes:
    """All events, as one reader gets them from the beginning."""
    events = ResponseEvents(generation, form, after)
    parts = [events.begin(), *(events.at(i, ids(i + 1)) for i in range(generation.count))]
    return b"".join([*parts, _end(events, generation)])


def _end(events: ResponseEvents, generation: Generation) -> bytes:
    last = ids(generation.count + 1)
    failure = failure_of(generation)
    return events.last(last) if failure is None else events.failed(failure, last)


def documents(data: bytes) -> list[dict[str, Any]]:
    """The data of events, checked against their `event` lines."""
    found = []
    for event in data.decode().split("\n\n")[:-1]:
        lines = dict(line.split(": ", 1) for line in event.split("\n"))
        document = json.loads(lines["data"])
        assert document["type"] == lines["event"]
        found.append(document)
    return found


def types(data: bytes) -> list[str]:
    return [one["type"].removeprefix("response.") for one in documents(data)]


def test_a_text() -> None:
    data = whole(generation_of(["Hel", "lo"]), FORM)
    found = documents(data)
    assert [one["sequence_number"] for one in found] == list(range(len(found)))
    assert types(data) == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    item = f"msg_{GENERATION}_0"
    assert found[4] == {
        "type": "response.output_text.delta",
        "sequence_number": 4,
        "item_id": item,
        "output_index": 0,
        "content_index": 0,
        "delta": "Hel",
        "logprobs": [],
    }
    assert found[2]["item"] == {
        "id": item,
        "type": "message",
        "status": "in_progress",
        "role": "assistant",
        "content": [],
    }
    part = {"type": "output_text", "annotations": [], "logprobs": [], "text": "Hello"}
    assert found[6]["text"] == "Hello"
    assert found[7]["part"] == part
    assert found[8]["item"] == {
        "id": item,
        "type": "message",
        "status": "completed",
        "role": "assistant",
        "content": [part],
    }
    created, completed = found[0]["response"], found[-1]["response"]
    assert (created["status"], created["output"], created["usage"]) == ("in_progress", [], None)
    assert completed["output"] == [found[8]["item"]]
    assert completed["status"] == "completed"
    assert (created["completed_at"], completed["completed_at"]) == (None, 1_700_000_001)
    assert completed["usage"]["output_tokens"] == 2
    assert {created["id"], completed["id"]} == {f"resp_{GENERATION}"}


def test_each_channel_is_an_item_of_its_own() -> None:
    data = whole(generation_of(PIECES, switches=SWITCHES, reason="tool_calls"), FORM)
    found = documents(data)
    assert types(data)[2:] == [
        "output_item.added",
        "content_part.added",
        "reasoning_text.delta",
        "reasoning_text.delta",
        "reasoning_text.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "completed",
    ]
    output = found[-1]["response"]["output"]
    assert [one["item"] for one in found if one["type"].endswith("item.done")] == output
    assert output[0] == {
        "id": f"rs_{GENERATION}_0",
        "type": "reasoning",
        "summary": [],
        "content": [{"type": "reasoning_text", "text": "Let me see"}],
        "encrypted_content": None,
        "status": "completed",
    }
    assert output[2] == {
        "id": f"fc_{GENERATION}_2",
        "type": "function_call",
        "status": "completed",
        "arguments": '{"a":1}',
        "call_id": "call_a",
        "name": "weather",
    }
    assert [one["output_index"] for one in found if "output_index" in one] == sorted(
        one["output_index"] for one in found if "output_index" in one
    )


def test_reasoning_that_is_to_be_sent_back() -> None:
    form = ResponseFormat("tiny", encrypted=True)
    found = documents(whole(generation_of(PIECES, switches=SWITCHES), form))
    assert found[2]["item"]["encrypted_content"] is None
    (item,) = [one for one in found[-1]["response"]["output"] if one["type"] == "reasoning"]
    assert item["encrypted_content"].startswith(OPEN_REASONING)


def test_in_the_background_it_is_queued_first() -> None:
    data = whole(generation_of(["a"]), BACKGROUND)
    assert types(data)[:4] == ["created", "queued", "in_progress", "output_item.added"]
    assert [one["response"]["status"] for one in documents(data)[:3]] == [
        "queued",
        "queued",
        "in_progress",
    ]


def test_a_limit_makes_it_incomplete() -> None:
    found = documents(whole(generation_of(["a"], reason="length"), FORM))
    assert found[-2]["item"]["status"] == "incomplete"
    assert found[-1]["type"] == "response.incomplete"
    response = found[-1]["response"]
    assert response["incomplete_details"] == {"reason": "max_output_tokens"}
    assert response["output"] == [found[-2]["item"]]


@pytest.mark.parametrize(
    ("state", "last", "code"),
    [
        (State.CANCELLED, "response.cancelled", None),
        (State.FAILED, "response.failed", "server_error"),
        (State.INTERRUPTED, "response.failed", "server_error"),
    ],
)
def test_what_fails_closes_nothing(state: State, last: str, code: str | None) -> None:
    error = None if state is State.CANCELLED else UpstreamError("it broke")
    for form in (FORM, BACKGROUND):
        for pieces in ([], ["a"]):
            found = documents(whole(generation_of(pieces, state=state, error=error), form))
            assert [one["sequence_number"] for one in found] == list(range(len(found)))
            assert found[-1]["type"] == last
            response = found[-1]["response"]
            assert (response["error"] or {}).get("code") == code
            assert [one["status"] for one in response["output"]] == ["incomplete"] * len(pieces)


@pytest.mark.parametrize(
    ("error", "visible"),
    [(LeaseLost("another server goes on with it"), 3), (StorageUnavailable("not committed"), 1)],
)
def test_what_ends_here_and_not_for_good_is_no_event_of_it(
    error: RequestError, visible: int
) -> None:
    """It would have a number that the next piece has, or tell of pieces that nobody may see."""
    generation = generation_of(["a", "b", "c"], state=State.FAILED)
    generation.error, generation.visible = error, visible
    failure = failure_of(generation)
    assert failure is not None
    assert ResponseEvents(generation, FORM, 4).failed(failure, ID) == error_event(failure)


def test_an_empty_answer_is_an_empty_message() -> None:
    for form in (FORM, BACKGROUND):
        data = whole(generation_of([]), form)
        found = documents(data)
        assert [one["sequence_number"] for one in found] == list(range(len(found)))
        (item,) = found[-1]["response"]["output"]
        assert item["content"][0]["text"] == ""
        assert types(data)[-4:] == [
            "output_text.done",
            "content_part.done",
            "output_item.done",
            "completed",
        ]


def test_log_probabilities() -> None:
    token = [7, b"a", -0.5, [[7, b"a", -0.5], [8, b"b", -1.5]]]
    generation = generation_of(["a", "b"], logprobs=[[token], [token]])
    found = documents(whole(generation, ResponseFormat("tiny", logprobs=1)))
    expected = {
        "token": "a",
        "logprob": -0.5,
        "bytes": [97],
        "top_logprobs": [{"token": "a", "logprob": -0.5, "bytes": [97]}],
    }
    assert found[4]["logprobs"] == found[5]["logprobs"] == [expected]
    assert found[6]["logprobs"] == [expected] * 2
    assert found[-1]["response"]["output"][0]["content"][0]["logprobs"] == [expected] * 2


def test_a_call_that_the_log_comes_back_to_is_closed_again() -> None:
    switches = [
        Switch(0, "tool_call", 0, "call_a", "f"),
        Switch(1, "tool_call", 1, "call_b", "g"),
        Switch(2, "tool_call", 0, "call_a", "f"),
    ]
    found = documents(whole(generation_of(["1", "2", "3"], switches=switches), FORM))
    assert [one["sequence_number"] for one in found] == list(range(len(found)))
    closed = [one["item"]["arguments"] for one in found if one["type"].endswith("item.done")]
    assert closed == ["1", "2", "13"]
    output = found[-1]["response"]["output"]
    assert [one["arguments"] for one in output] == ["13", "2"]


def test_the_error_of_a_stream_has_a_type_and_no_number() -> None:
    generation = generation_of([], state=State.INTERRUPTED, error=Interrupted("gone", retry=True))
    failure = failure_of(generation)
    assert failure is not None
    (found,) = documents(error_event(failure))
    assert (found["type"], found["code"]) == ("error", "interrupted")
    assert found["error"]["message"] == "gone"
    assert "sequence_number" not in found


def test_it_is_shown_as_far_as_readers_may_have_it() -> None:
    generation = generation_of(PIECES, switches=SWITCHES, state=State.QUEUED)
    generation.move(State.RUNNING)
    generation.visible = 3
    shown = response_of(generation, FORM)
    assert [item["content"][0]["text"] for item in shown["output"]] == ["Let me see", "I "]
    assert [item["status"] for item in shown["output"]] == ["completed", "in_progress"]


def test_a_log_that_was_away_is_read_on() -> None:
    generation = generation_of(PIECES, switches=SWITCHES)
    expected = [ResponseEvents(generation, FORM).at(i, ID) for i in range(len(PIECES))]
    events = ResponseEvents(generation, FORM)
    found = [events.at(i, ID) for i in range(3)]
    generation.switches = []  # while it is shelved
    assert events.begin()
    events._grown()
    generation.switches = list(SWITCHES)
    found += [events.at(i, ID) for i in range(3, len(PIECES))]
    assert found == expected


@pytest.mark.parametrize(
    ("number", "position"),
    [(-1, 0), (0, 0), (4, 1), (5, 2), (9, 2), (10, 2), (11, 3), (16, 4), (17, 5), (22, 7)],
)
def test_from_which_piece_on_events_are_missing(number: int, position: int) -> None:
    outline = outline_of(generation_of(PIECES, switches=SWITCHES), FORM)
    assert outline.behind(number) == position


# -- any log --------------------------------------------------------------------------------------


@st.composite
def logs(draw: st.DrawFn) -> tuple[list[str], list[Switch]]:
    """Pieces, and any switches among them."""
    pieces = draw(st.lists(st.text(max_size=3), max_size=12))
    positions = draw(st.sets(st.integers(0, max(0, len(pieces) - 1)))) if pieces else set()
    switches = []
    for position in sorted(positions):
        kind = draw(st.sampled_from(["text", "reasoning", "tool_call"]))
        index = draw(st.integers(0, 2)) if kind == "tool_call" else 0
        named = (f"call_{index}", f"f{index}") if kind == "tool_call" else ("", "")
        switches.append(Switch(position, kind, index, *named))
    return pieces, switches


ENDS = st.sampled_from(
    [(State.DONE, "stop"), (State.DONE, "length"), (State.FAILED, ""), (State.CANCELLED, "")]
)
FORMS = st.sampled_from([FORM, BACKGROUND])


def _generation(log: tuple[list[str], list[Switch]], end: tuple[State, str]) -> Generation:
    error = UpstreamError("it broke") if end[0] is State.FAILED else None
    return generation_of(log[0], switches=log[1], state=end[0], reason=end[1], error=error)


@given(logs(), ENDS, FORMS)
def test_numbers_have_no_gaps(
    log: tuple[list[str], list[Switch]], end: tuple[State, str], form: ResponseFormat
) -> None:
    generation = _generation(log, end)
    found = documents(whole(generation, form))
    assert [one["sequence_number"] for one in found] == list(range(len(found)))
    assert events_in_all(generation, form) == len(found)
    texts: dict[int, str] = {}
    for one in found:
        if one["type"].endswith(".delta"):
            texts[one["output_index"]] = texts.get(one["output_index"], "") + one["delta"]
    for index, item in enumerate(found[-1]["response"]["output"]):
        said = item["arguments"] if "arguments" in item else item["content"][0]["text"]
        assert said == texts.get(index, "")


@given(logs(), ENDS, FORMS, st.data())
def test_a_reader_may_begin_behind_any_event(
    log: tuple[list[str], list[Switch]],
    end: tuple[State, str],
    form: ResponseFormat,
    data: st.DataObject,
) -> None:
    generation = _generation(log, end)
    everything = whole(generation, form).split(b"\n\n")
    after = data.draw(st.integers(0, len(everything) - 2))
    events = ResponseEvents(generation, form, after)
    position = min(outline_of(generation, form).behind(after), generation.count)
    parts = [] if position else [events.begin()]
    parts += [events.at(i, ids(i + 1)) for i in range(position, generation.count)]
    parts.append(_end(events, generation))
    assert b"".join(parts).split(b"\n\n") == everything[after + 1 :]


@given(logs(), FORMS, st.data())
def test_a_group_depends_on_its_position_alone(
    log: tuple[list[str], list[Switch]], form: ResponseFormat, data: st.DataObject
) -> None:
    generation = _generation(log, (State.DONE, "stop"))
    fresh = [ResponseEvents(generation, form).at(i, ids(i + 1)) for i in range(generation.count)]
    order = data.draw(st.lists(st.integers(0, max(0, generation.count - 1)), max_size=20))
    events = ResponseEvents(generation, form)
    for position in order if fresh else ():
        assert events.at(position, ids(position + 1)) == fresh[position]


@given(logs(), FORMS)
def test_a_log_that_grows_gives_the_same_events(
    log: tuple[list[str], list[Switch]], form: ResponseFormat
) -> None:
    pieces, switches = log
    expected = whole(_generation(log, (State.DONE, "stop")), form)
    growing = generation_of([], state=State.QUEUED)
    events = ResponseEvents(growing, form)
    parts = [events.begin()]
    for position, piece in enumerate(pieces):
        growing.switches += [one for one in switches if one.position == position]
        growing.pieces.append(piece)
        parts.append(events.at(position, ids(position + 1)))
    finished = _generation(log, (State.DONE, "stop"))
    parts.append(ResponseEvents(finished, form).last(ids(len(pieces) + 1)))
    assert b"".join(parts) == expected


@given(st.text())
def test_any_text_comes_through(text: str) -> None:
    found = documents(whole(generation_of([text]), FORM))
    assert found[4]["delta"] == found[-1]["response"]["output"][0]["content"][0]["text"] == text


def test_the_last_event_of_a_group_has_the_id() -> None:
    events = ResponseEvents(generation_of(["a"]), FORM).at(0, b"g:1").split(b"\n\n")
    assert [b"\nid: g:1\n" in event for event in events[:-1]] == [False, False, True]
