"""The upstream's token stream as bytes: the same events however cut, and errors of one kind."""

from __future__ import annotations

import itertools
import json
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llcuda_net.errors import RequestError
from llcuda_net.upstream.interface import CompletionEvent
from llcuda_net.upstream.llama import sse
from llcuda_net.upstream.llama.failures import MAX_ERROR_BODY, upstream_failure
from llcuda_net.upstream.llama.sse import MAX_EVENT, EventStream, ResponseParser
from llcuda_protocol import ErrorCode

_EVENTS: list[dict[str, Any]] = [
    {"index": 0, "content": "Once", "tokens": [12], "stop": False, "id_slot": 3},
    {"content": " \u00fcber \u65e5\u672c \U0001f600\n\n", "tokens": [1, 2]},
    {
        "content": "x",
        "tokens": [7],
        "completion_probabilities": [
            {
                "id": 7,
                "token": "x",
                "bytes": [120],
                "logprob": -0.5,
                "top_logprobs": [{"id": 8, "token": "y", "bytes": [121], "logprob": -1.5}],
            }
        ],
    },
    {
        "content": "",
        "tokens": [],
        "stop": True,
        "model": "m",
        "tokens_predicted": 4,
        "tokens_evaluated": 9,
        "stop_type": "word",
        "stopping_word": "END",
        "timings": {"cache_n": 2, "prompt_ms": 1.25, "predicted_per_second": 100.5},
    },
]


def _data(event: Any) -> bytes:
    return b"data: " + json.dumps(event, ensure_ascii=False).encode() + b"\n\n"


BODY = b": keep-alive\n\n" + b"".join(map(_data, _EVENTS)) + b"data: [DONE]\n\n"
HEAD = b"HTTP/1.1 200 OK\r\nServer: llama.cpp\r\nContent-Type: text/event-stream\r\n"


def _chunked(body: bytes) -> bytes:
    pieces = [body[i : i + 77] for i in range(0, len(body), 77)]
    framed = b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in pieces)
    return HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + framed + b"0\r\n\r\n"


#: One answer in the ways in which HTTP may carry it.
RESPONSES = {
    "chunked": _chunked(BODY),
    "length": HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY,
    "until-close": HEAD + b"Connection: close\r\n\r\n" + BODY,
}


def _parse(*chunks: bytes) -> tuple[list[CompletionEvent], ResponseParser]:
    parser = ResponseParser()
    found: list[CompletionEvent] = []
    for chunk in chunks:
        parser.feed(chunk)
        found += parser.events
        parser.events = []
    return found, parser


WHOLE = _parse(RESPONSES["chunked"])[0]


def test_the_events_say_what_was_sent() -> None:
    assert [e.content for e in WHOLE] == [e["content"] for e in _EVENTS]
    assert [e.tokens for e in WHOLE] == [[12], [1, 2], [7], []]
    last = WHOLE[-1]
    assert (last.stop, last.stop_type, last.stopping_word) == (True, "word", "END")
    assert (last.model, last.tokens_predicted, last.tokens_evaluated) == ("m", 4, 9)
    assert last.timings is not None
    assert (last.timings.cache_n, last.timings.prompt_ms) == (2, 1.25)
    assert WHOLE[2].completion_probabilities is not None
    (probabilities,) = WHOLE[2].completion_probabilities
    assert probabilities.top_logprobs[0].logprob == -1.5


@pytest.mark.parametrize("name", RESPONSES)
def test_whole_byte_by_byte_and_with_trailing_data(name: str) -> None:
    data = RESPONSES[name]
    for chunks in (
        [data],
        [data[i : i + 1] for i in range(len(data))],
        [data, b"HTTP/1.1 500 trailing\r\n\r\nnonsense"],
        [data + b"\x00 trailing nonsense\n\n data: x\n\n"],
    ):
        found, parser = _parse(*chunks)
        assert found == WHOLE
        assert parser.finished
        parser.feed_eof()


@given(st.sampled_from(sorted(RESPONSES)), st.lists(st.integers(0, 2000), max_size=30))
def test_any_cutting_gives_the_same_events(name: str, cuts: list[int]) -> None:
    data = RESPONSES[name]
    edges = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
    chunks = [data[a:b] for a, b in itertools.pairwise(edges) if a < b]
    assert _parse(*chunks)[0] == WHOLE


def test_much_of_an_answer_may_come_with_its_head() -> None:
    many = b"".join(_data({"content": "word"}) for _ in range(10_000))
    assert len(many) > 2 * MAX_ERROR_BODY
    found, _ = _parse(_chunked(many))
    assert len(found) == 10_000


def _only_request_errors(*chunks: bytes) -> None:
    parser = ResponseParser()
    try:
        for chunk in chunks:
            parser.feed(chunk)
        parser.feed_eof()
    except RequestError as error:
        assert "\n" not in error.message  # noqa: PT017


@given(st.lists(st.binary(max_size=200), max_size=6))
def test_random_bytes_give_request_errors_only(chunks: list[bytes]) -> None:
    _only_request_errors(*chunks)


@given(st.binary(max_size=300))
def test_random_bodies_give_request_errors_only(body: bytes) -> None:
    _only_request_errors(_chunked(body))
    _only_request_errors(_chunked(b"data: " + body + b"\n\n"))
    _only_request_errors(b"HTTP/1.1 500 No\r\nConnection: close\r\n\r\n", body)


@given(st.sampled_from(sorted(RESPONSES)), st.data())
def test_damaged_answers_give_request_errors_only(name: str, data: st.DataObject) -> None:
    damaged = bytearray(RESPONSES[name])
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    _only_request_errors(bytes(damaged))


@pytest.mark.parametrize(
    "event",
    [
        b"not json",
        b"[]",
        b"17",
        b'{"content":17}',
        b'{"content":"x","tokens":"x"}',
        b'{"content":"x","tokens":[-1]}',
        b'{"content":"x","tokens":[4294967296]}',
        b'{"content":"x","tokens":[1.5]}',
        b'{"content":"\xff"}',
        b'{"content":"x"',
        b'{"stop":true,"tokens_predicted":-1}',
        b'{"stop":true,"timings":{"prompt_ms":1e300}}',
        b'{"stop":true,"timings":{"prompt_ms":1e999}}',
        b'{"content":"x","completion_probabilities":[{"id":1,"bytes":[256]}]}',
        b'{"content":"x","completion_probabilities":[{"id":-1,"bytes":[1]}]}',
        b'{"content":"x","completion_probabilities":[{"id":1,"prob":-0.5}]}',
        b'{"content":' + b"[" * 100_000,
    ],
)
def test_a_nonsense_event_is_the_upstreams_error(event: bytes) -> None:
    with pytest.raises(RequestError, match="did not answer as a llama-server") as caught:
        _parse(_chunked(_data({"content": "before"}) + b"data: " + event + b"\n\n"))
    assert caught.value.code == ErrorCode.UPSTREAM_ERROR


def test_events_before_the_nonsense_are_kept() -> None:
    parser = ResponseParser()
    with pytest.raises(RequestError):
        parser.feed(_chunked(_data({"content": "kept"}) + b"data: nonsense\n\n"))
    assert [e.content for e in parser.events] == ["kept"]


@pytest.mark.parametrize(
    "response",
    [
        b"\x16\x03\x01\x02\x00",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        _chunked(b"<html>hello</html>\n\n").replace(b"event-stream", b"html"),
    ],
)
def test_what_is_no_llama_server(response: bytes) -> None:
    with pytest.raises(RequestError, match="did not answer as a llama-server"):
        _parse(response)


def test_neither_headers_nor_an_event_may_grow_for_ever() -> None:
    with pytest.raises(RequestError, match="headers without an end"):
        _parse(HEAD, *[b"X-More: " + b"x" * 1000 + b"\r\n"] * 100)
    parser = EventStream()
    with pytest.raises(RequestError, match="an event of more than"):
        for _ in range(MAX_EVENT // (1 << 20) + 2):
            parser.feed(b"x" * (1 << 20))
    body = b"x" * (1 << 20)
    parser2 = ResponseParser()
    with pytest.raises(RequestError) as caught:
        parser2.feed(b"HTTP/1.1 500 No\r\nConnection: close\r\n\r\n" + body)
    assert len(caught.value.message) < 1000


def _error(code: Any, message: str, kind: str = "") -> bytes:
    return json.dumps({"error": {"code": code, "message": message, "type": kind}}).encode()


@pytest.mark.parametrize(
    ("status", "body", "code", "retry", "words"),
    [
        (400, _error(400, "bad grammar"), "invalid_request", False, "bad grammar"),
        (
            400,
            _error(400, "request exceeds", "exceed_context_size_error"),
            "context_exceeded",
            False,
            "the prompt is too long: request exceeds",
        ),
        (401, _error(401, "Invalid API Key"), "upstream_error", False, "another API key"),
        (404, b"", "upstream_error", False, "404: no reason given"),
        (500, b"plain text", "upstream_error", True, "500: plain text"),
        (500, _error(500, "two\nlines\there"), "upstream_error", True, "two lines here"),
        (503, _error(503, "Loading model"), "upstream_unavailable", True, "Loading model"),
        (502, b"<html>\nBad\r\nGateway", "upstream_error", True, "Bad Gateway"),
        (500, b"\xff\xfe", "upstream_error", True, "500"),
        (500, b"[1, 2]", "upstream_error", True, "500"),
        (500, b'{"error": "text"}', "upstream_error", True, "text"),
        (500, b"[" * 60_000, "upstream_error", True, "500"),
        (500, b'{"error":{"message":"' + b"x" * 5000 + b'"}}', "upstream_error", True, "xxx"),
    ],
)
def test_error_answers_in_our_words(
    status: int, body: bytes, code: str, retry: bool, words: str
) -> None:
    error = upstream_failure(status, body)
    assert (error.code, error.retry) == (code, retry)
    assert words in error.message
    assert "\n" not in error.message
    assert len(error.message) < 700
    for head in (b"Content-Length: %d\r\n" % len(body), b"Connection: close\r\n"):
        parser = ResponseParser()
        with pytest.raises(RequestError) as caught:
            for i in range(0, len(body) + 1, 10_000):
                parser.feed(
                    (b"HTTP/1.1 %d No\r\n%b\r\n" % (status, head) if i == 0 else b"")
                    + body[i : i + 10_000]
                )
            parser.feed_eof()
        assert (caught.value.code, caught.value.message) == (error.code, error.message)


@pytest.mark.parametrize("prefix", [b"data: ", b"error: "])
def test_an_error_in_the_middle_of_the_stream(prefix: bytes) -> None:
    body = _data({"content": "a"}) + prefix + _error(500, "it broke") + b"\n\n"
    with pytest.raises(RequestError, match="it broke") as caught:
        _parse(_chunked(body))
    assert caught.value.retry


def test_a_text_too_long_to_embed_is_told_without_advice_for_others() -> None:
    said = (
        "input (602 tokens) is too large to process. increase the physical batch size "
        "(current batch size: 512)"
    )
    error = upstream_failure(500, json.dumps({"error": {"code": 500, "message": said}}).encode())
    assert (error.code, error.retry) == (ErrorCode.CONTEXT_EXCEEDED, False)
    assert error.message == (
        "a text to embed or to rank is too long: 602 tokens, where the upstream takes 512"
    )


def test_what_a_llama_server_was_not_started_for_is_unsupported() -> None:
    body = (
        b'{"error":{"code":501,"message":"This server does not support embeddings. Start it with '
        b'`--embeddings`","type":"not_supported_error"}}'
    )
    error = upstream_failure(501, body)
    assert (error.code, error.retry) == (ErrorCode.UNSUPPORTED, False)
    assert "--embeddings" in error.message


def _event_chunk(content: str, head: str = "{:x}", tail: bytes = b"\n\n") -> bytes:
    data = b"data: " + json.dumps({"content": content}, ensure_ascii=False).encode() + tail
    return head.format(len(data)).encode() + b"\r\n" + data + b"\r\n"


_PIECES = st.one_of(
    st.builds(_event_chunk, st.text(st.characters(exclude_categories=["Cs"]), max_size=12)),
    st.builds(
        _event_chunk,
        st.sampled_from(["", "word", "\n", "x" * 300]),
        st.sampled_from(["{:X}", "0{:x}", "0x{:x}", "+{:x}", "1_{:x}", "{:x};a=b", " {:x}", "f"]),
        st.sampled_from([b"\n\n", b"\r\n\r\n", b"\n", b"\n\n\n", b"\r\r", b"}\n\n"]),
    ),
    st.sampled_from(
        [
            b"0\r\n\r\n",
            b"7\r\n: ping\n\r\n",
            b"10\r\ndata: {oh no!}\n\n\r\n",
            b'19\r\ndata: {"error":{"a":1}}\n\n\r\n',
            b'15\r\ndata: {"stop":true}\n\n\r\n',
            b"e\r\ndata: [DONE]\n\n\r\n",
            b'8\r\ndata: {"\r\n10\r\ncontent":"a"}\n\n\r\n',
        ]
    ),
    st.binary(max_size=6),
)


def _all(chunks: list[bytes]) -> list[Any]:
    """Everything that can be seen of a parser, after each chunk."""
    parser = ResponseParser()
    seen: list[Any] = []
    for chunk in [HEAD + b"Transfer-Encoding: chunked\r\n\r\n", *chunks]:
        error = ""
        try:
            parser.feed(chunk)
        except RequestError as raised:
            error = raised.message
        events, parser.events = parser.events, []
        seen.append((events, error, parser.finished, parser.complete, parser.unfinished))
        if error:
            break
    return seen


@given(st.lists(_PIECES, max_size=8), st.lists(st.integers(0, 600), max_size=6))
@example([_event_chunk("a"), _event_chunk("b"), b"15\r\ndata: {"], [])
@example([_event_chunk("a"), _event_chunk("b") + _event_chunk("c") + b"zz\r\n"], [30])
def test_the_short_way_gives_what_the_parser_of_http_gives(
    pieces: list[bytes], cuts: list[int]
) -> None:
    data = b"".join(pieces)
    edges = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
    cut = [data[a:b] for a, b in itertools.pairwise(edges) if a < b]
    for chunks in (cut, [piece for piece in pieces if piece]):
        short = _all(chunks)
        with patch.object(sse, "_whole_events", lambda data: []):
            assert short == _all(chunks)


def test_the_short_way_is_taken() -> None:
    parser = ResponseParser()
    parser.feed(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + _event_chunk("a"))
    with patch.object(sse.EventStream, "feed", side_effect=AssertionError):
        parser.feed(_event_chunk("b"))
        parser.feed(_event_chunk("c") + _event_chunk("d"))
    assert [event.content for event in parser.events] == ["a", "b", "c", "d"]
