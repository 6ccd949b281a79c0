"""Streams of chat completions, as several servers write them: whole and one byte at a time."""

from __future__ import annotations

import pytest

from llcuda_net.batch.targets.chat_stream import ChatParser
from llcuda_net.errors import InvalidRequest, RequestError, UpstreamBusy, UpstreamError
from tests.support.chat_server import DONE, USAGE, chunk, ending

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
ROLE = b'data: {"choices":[{"delta":{"role":"assistant","content":""},"finish_reason":null}]}\n\n'
THINKS = b'data: {"choices":[{"delta":{"content":null,"reasoning_content":"hm"}}]}\n\n'
BOTH = b'data: {"choices":[{"delta":{"content":"so","reasoning":"why "}}]}\n\n'
CALLS = (
    b'data: {"choices":[{"delta":{"tool_calls":[{"function":{"name":"f","arguments":"{"}}]}}]}\n\n'
    b'data: {"choices":[{"delta":{"tool_calls":[{"function":{"arguments":"\\"a\\":1}"}}]}}]}\n\n'
)
TWO_LINES = b'data: {"choices":\ndata: [{"delta":{"content":"b"}}]}\n\n'


def parse(data: bytes, step: int, *, eof: bool) -> tuple[ChatParser, list[str]]:
    parser, pieces = ChatParser(), []
    for start in range(0, len(data), step):
        parser.feed(data[start : start + step])
        pieces += parser.pieces
        parser.pieces.clear()
    if eof:
        parser.feed_eof()
    return parser, pieces


@pytest.mark.parametrize(
    ("body", "pieces", "tokens"),
    [
        (ROLE + chunk("a") + chunk("b") + ending() + USAGE + DONE, ["a", "b"], 3),
        (chunk("a") + ending() + DONE, ["a"], None),  # no usage
        (chunk("a") + ending(), ["a"], None),  # nor [DONE]
        (chunk("a", usage=None) + THINKS + ending() + USAGE + DONE, ["a", "hm"], 3),
        (
            b": alive\n\n" + TWO_LINES + b"event: x\nid: 1\n" + chunk("c") + ending(),
            ["b", "c"],
            None,
        ),
        ((chunk("ä\n") + ending() + DONE).replace(b"\n\n", b"\r\n\r\n"), ["ä\n"], None),
        (chunk("a").replace(b"data: ", b"data:") + ending(), ["a"], None),
        (b"\xef\xbb\xbf" + (chunk("a") + ending()).replace(b"\n", b"\r"), ["a"], None),
        (b": alive\n" + chunk("a") + ending() + b"data:[DONE]\n\n", ["a"], None),
        (chunk("a", usage={"completion_tokens": 1}) + chunk("b") + ending() + USAGE, ["a", "b"], 3),
        (BOTH + ending() + DONE, ["why so"], None),
        (CALLS + ending() + DONE, ["f{", '"a":1}'], None),
        (b"data\n\nevent: ping\ndata: 1\n\n" + chunk("a") + ending(), ["a"], None),
        (chunk("a") + ending() + b"data: [DONE]", ["a"], None),
    ],
)
def test_what_servers_stream(body: bytes, pieces: list[str], tokens: int | None) -> None:
    for trailing in (b"", b"data: nonsense\n\n") if DONE in body else (b"",):
        for step in (1, 7, 10_000):
            parser, found = parse(HEAD + body + trailing, step, eof=True)
            assert found == pieces
            assert parser.finished
            assert parser.reason == "length"
            counted = parser.usage.completion_tokens if parser.usage else None
            assert counted == tokens


@pytest.mark.parametrize("more", [b"", ending()[:-2], ending() + USAGE[:-1]])
def test_an_answer_that_breaks_off_is_not_finished(more: bytes) -> None:
    for step in (1, 10_000):
        parser, found = parse(HEAD + chunk("a") + more, step, eof=True)
        assert found == ["a"]
        assert not parser.finished


@pytest.mark.parametrize(
    ("data", "error", "said"),
    [
        (b'HTTP/1.1 400 X\r\nContent-Length: 18\r\n\r\n{"error": "seed?"}', InvalidRequest, "seed"),
        (b'HTTP/1.1 429 X\r\n\r\n{"error": {"message": "slow down"}}', UpstreamBusy, "slow down"),
        (b'HTTP/1.1 401 X\r\n\r\n{"error": "key"}', UpstreamError, "another API key"),
        (b"HTTP/1.1 500 X\r\n\r\n", UpstreamError, "answered 500"),
        (HEAD + b'data: {"error": {"message": "no memory"}}\n\n', UpstreamError, "no memory"),
        (
            b'HTTP/1.1 200 X\r\nContent-Type: application/json\r\n\r\n{"error": {"message": "a"}}',
            UpstreamError,
            "answered 500: a",
        ),
        (HEAD[:-2] + b"Content-Encoding: gzip\r\n\r\n\x1f", UpstreamError, "encoded"),
        (HEAD + b"data: {]\n\n", UpstreamError, "not a chat completion chunk"),
        (HEAD + b'data: {"choices": 3}\n\n', UpstreamError, "not a chat completion chunk"),
        (b"SSH-2.0-OpenSSH\r\n", UpstreamError, "not HTTP"),
    ],
)  # fmt: skip
def test_what_is_no_answer(data: bytes, error: type[RequestError], said: str) -> None:
    for step in (1, 10_000):
        with pytest.raises(error, match=said):
            parse(data, step, eof=True)
