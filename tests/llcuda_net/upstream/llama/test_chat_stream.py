from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llcuda_net.errors import RequestError
from llcuda_net.upstream.interface import CompletionEvent
from llcuda_net.upstream.llama.chat_stream import MOST_BESIDES, MOST_CALLS, ChatParser
from llcuda_protocol import ErrorCode
from tests.support.upstream.chunks import DONE, begin_call, chunk, event, more_of, usage

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"


def parsed(*events: bytes, eof: bool = False, **options: Any) -> list[CompletionEvent]:
    parser = ChatParser(**options)
    parser.feed(HEAD + b"".join(events))
    if eof:
        parser.feed_eof()
    assert parser.finished
    return parser.events


def parts(events: list[CompletionEvent]) -> list[tuple[str, str]]:
    """Kind and index of the channels, and the texts in them, joined where they follow."""
    out: list[tuple[str, str]] = []
    for one in events:
        name = "text" if one.channel is None else f"{one.channel.kind} {one.channel.index}"
        if out and out[-1][0] == name:
            out[-1] = name, out[-1][1] + one.content
        elif one.content or one.channel is not None:
            out.append((name, one.content))
    return out


ANSWER = (
    chunk(role="assistant", content=None),
    chunk(1, reasoning_content="Hm"),
    chunk(2, reasoning_content=", \xe4"),
    chunk(4, content="Let "),
    chunk(5, content="me see."),
    chunk(15, tool_calls=begin_call(0, "weather")),
    chunk(17, tool_calls=more_of(0, '"city":"Rome"}')),
    chunk(30, tool_calls=begin_call(1, "now", "")),
    chunk(31, tool_calls=more_of(1, "{}")),
    chunk(31, "tool_calls"),
    usage(32),
    DONE,
)
PARTS = [
    ("reasoning 0", "Hm, \xe4"),
    ("text", "Let me see."),
    ("tool_call 0", '{"city":"Rome"}'),
    ("tool_call 1", "{}"),
]


def test_text_reasoning_and_tool_calls_have_channels_of_their_own() -> None:
    events = parsed(*ANSWER)
    assert parts(events[:-1]) == PARTS
    calls = list(dict.fromkeys(one.channel for one in events if one.channel))
    assert [(one.id, one.name) for one in calls] == [("", ""), ("c0", "weather"), ("c1", "now")]
    assert [one.tokens_predicted for one in events] == [1, 2, 4, 5, 15, 17, 30, 31, 32]
    end = events[-1]
    assert (end.stop, end.stop_type, end.tokens_evaluated) == (True, "tool_calls", 7)
    assert end.model == "scripted"
    assert end.timings is not None
    assert end.timings.cache_n == 2


def test_it_may_come_byte_by_byte() -> None:
    whole = parsed(*ANSWER)
    parser = ChatParser()
    for byte in HEAD + b"".join(ANSWER):
        parser.feed(bytes([byte]))
    assert parser.events == whole


@given(st.lists(st.integers(0, 2000), max_size=8))
def test_it_may_come_in_any_pieces(borders: list[int]) -> None:
    data = HEAD + b"".join(ANSWER)
    parser = ChatParser()
    last = 0
    for border in [*sorted(borders), len(data)]:
        parser.feed(data[last:border])
        last = max(last, border)
    assert parser.events == parsed(*ANSWER)


@given(st.integers(0, len(b"".join(ANSWER[:-2])) - 1))
def test_one_that_is_cut_has_no_end(length: int) -> None:
    parser = ChatParser()
    parser.feed(HEAD + b"".join(ANSWER[:-3])[:length])
    parser.feed_eof()
    assert not parser.finished
    assert not any(one.stop for one in parser.events)


def test_what_follows_the_end_is_of_no_interest() -> None:
    assert parsed(*ANSWER, b"data: nonsense\n\n") == parsed(*ANSWER)
    repeated = chunk(finish="stop", content="never")
    assert parts(parsed(chunk(content="a"), chunk(finish="stop"), repeated, DONE)) == [
        ("text", "a")
    ]


def test_without_usage_the_chunks_are_counted() -> None:
    for last in ((DONE,), ()):
        events = parsed(
            chunk(content="a"), chunk(content="b"), chunk(finish="length"), *last, eof=True
        )
        assert (events[-1].stop_type, events[-1].tokens_predicted) == ("limit", 2)
        assert events[-1].tokens_evaluated == 0


def test_the_cached_tokens_may_be_told_with_the_usage_only() -> None:
    details = {"cached_tokens": 5}
    counts = {"completion_tokens": 1, "prompt_tokens": 7, "prompt_tokens_details": details}
    end = parsed(chunk(content="a"), chunk(finish="stop"), event(choices=[], usage=counts))[-1]
    assert end.timings is not None
    assert (end.timings.cache_n, end.tokens_evaluated, end.stop_type) == (5, 7, "eos")


def test_a_length_that_ends_within_a_tool_call_is_one() -> None:
    events = parsed(chunk(tool_calls=begin_call(0, "now")), chunk(finish="length"), DONE)
    assert events[-1].stop_type == "limit"


def test_servers_that_say_stop_after_a_tool_call_mean_tool_calls() -> None:
    events = parsed(chunk(tool_calls=begin_call(0, "now", "{}")), chunk(finish="stop"), DONE)
    assert events[-1].stop_type == "tool_calls"


@pytest.mark.parametrize(("word", "stop_type"), [(".", "word"), ("<|eom|>", "eos")])
def test_only_a_stop_string_that_was_asked_for_is_one(word: str, stop_type: str) -> None:
    verbose = {"stop_type": "word", "stopping_word": word, "prompt": "of no interest"}
    choice = {"index": 0, "delta": {}, "finish_reason": "stop"}
    last = event(choices=[choice], __verbose=verbose)
    end = parsed(chunk(content="a"), last, DONE, stops=["."])[-1]
    assert (end.stop_type, end.stopping_word) == (stop_type, word if stop_type == "word" else "")


def test_log_probabilities_come_with_the_tokens_that_are_held_back_too() -> None:
    scored = [{"id": 5, "token": "<", "bytes": [60], "logprob": -0.5, "top_logprobs": []}]
    events = parsed(
        chunk(1, role="assistant", content=None, logprobs=scored),
        chunk(2, content="a", logprobs=scored),
        chunk(finish="stop"),
        DONE,
    )
    assert [(one.content, one.tokens) for one in events] == [("", [5]), ("a", [5]), ("", [])]
    assert [len(one.completion_probabilities or ()) for one in events] == [1, 1, 0]


def test_tokens_of_which_nothing_is_to_be_seen_are_progress() -> None:
    events = parsed(chunk(1), chunk(1), chunk(5), chunk(finish="length"), DONE)
    assert [(one.content, one.tokens_predicted) for one in events] == [("", 1), ("", 5), ("", 5)]


def test_a_call_without_an_id_gets_one() -> None:
    for id_ in (None, ""):
        call = begin_call(0, "now", id_=None)
        call[0]["id"] = id_
        events = parsed(chunk(tool_calls=call), chunk(finish="tool_calls"), DONE)
        assert events[0].channel is not None
        assert events[0].channel.id.startswith("call_")


def test_one_chunk_may_have_parts_of_all() -> None:
    calls = [*begin_call(0, "a", "{}"), *begin_call(1, "b", "{}")]
    events = parsed(
        chunk(9, reasoning_content="r", content="t", tool_calls=calls),
        chunk(finish="tool_calls"),
        usage(9),
    )
    assert parts(events) == [
        ("reasoning 0", "r"),
        ("text", "t"),
        ("tool_call 0", "{}"),
        ("tool_call 1", "{}"),
    ]
    assert {one.tokens_predicted for one in events} == {9}


def test_where_one_call_was_asked_for_the_second_ends_the_answer() -> None:
    parser = ChatParser(one_call=True)
    parser.feed(HEAD + b"".join(ANSWER))
    assert parser.cut
    assert parts(parser.events) == PARTS[:3]
    assert parser.events[-1].stop_type == "tool_calls"
    assert parser.events[-1].tokens_predicted == 17


# -- what is refused -----------------------------------------------------------------------------


def refused(*events: bytes) -> RequestError:
    parser = ChatParser()
    with pytest.raises(RequestError) as caught:
        parser.feed(HEAD + b"".join(events))
    assert not parser.finished
    return caught.value


@pytest.mark.parametrize(
    "data",
    [
        b"{}",
        b'{"content": "as of /completion", "stop": false}',
        b"[]",
        b"nothing",
        b'{"choices": [{}]}',
        b'{"choices": [{"delta": {"content": 5}}]}',
        b'{"choices": [{"index": 1, "delta": {"content": "x"}}]}',
        b'{"choices": [{"delta": {"tool_calls": [{"index": 0}]}}]}',
        b'{"choices": [{"delta": {"tool_calls": [{"index": -1}]}}]}',
        b'{"choices": [{"delta": {"tool_calls": [{"index": 1, "function": {"name": "x"}}]}}]}',
        b'{"choices": [{"delta": {}}], "timings": {"predicted_n": -1}}',
        b"\xff",
        b"[" * 2000,
    ],
)
def test_what_is_no_chunk_is_named(data: bytes) -> None:
    error = refused(chunk(content="a"), b"data: " + data + b"\n\n")
    assert error.code == ErrorCode.UPSTREAM_ERROR
    assert "did not answer as a llama-server" in error.message


def test_an_error_in_the_middle_is_the_upstreams() -> None:
    said = {"code": 500, "message": "it is broken", "type": "server_error"}
    for failure in (event(error=said), b"event: error\n" + event(error=said)):
        error = refused(chunk(content="a"), failure, DONE)
        assert (error.code, error.retry) == (ErrorCode.UPSTREAM_ERROR, True)
        assert "it is broken" in error.message
    assert parsed(event(choices=[], error=None), chunk(finish="stop"), DONE)


def test_calls_names_and_parts_are_bounded() -> None:
    name = "n" * 300
    assert "too long" in refused(chunk(tool_calls=begin_call(0, name))).message
    calls = [chunk(1, tool_calls=begin_call(n, "x", "")) for n in range(MOST_CALLS + 1)]
    assert "tool calls" in refused(*calls).message
    endless = [chunk(1, content="x")] * (MOST_BESIDES + 2)
    assert "more parts than tokens" in refused(*endless).message
