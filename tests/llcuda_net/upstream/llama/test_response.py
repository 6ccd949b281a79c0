"""The HTTP answer around an event stream: what it may be, and what it is named where it is not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llcuda_net.errors import (
    InvalidRequest,
    RequestError,
    UpstreamBusy,
    UpstreamError,
    UpstreamLacks,
    UpstreamNotReady,
    UpstreamUnavailable,
)
from llcuda_net.upstream.llama.failures import MAX_HEAD, retry_after, upstream_failure
from llcuda_net.upstream.llama.sse import MAX_EVENT, ResponseParser, longest_event
from llcuda_protocol import ErrorCode

OK = b"HTTP/1.1 200 OK\r\n"
SSE = OK + b"Content-Type: text/event-stream\r\n"
CHUNKED = SSE + b"Transfer-Encoding: chunked\r\n\r\n"
FINAL = b'data: {"content":"b","stop":true}\n\n'
EVENTS = b'data: {"content":"a"}\n\n' + FINAL


def chunk(data: bytes, more: bytes = b"") -> bytes:
    return b"%x%b\r\n%b\r\n" % (len(data), more, data)


def texts(data: bytes, step: int = 1 << 20) -> list[str]:
    parser = ResponseParser()
    found: list[str] = []
    for at in range(0, len(data), step):
        parser.feed(data[at : at + step])
        found += [event.content for event in parser.events]
        parser.events = []
    assert parser.finished
    return found


def failure(*data: bytes, step: int = 1 << 20) -> RequestError:
    with pytest.raises(RequestError) as caught:
        parser = ResponseParser()
        for each in data:
            for at in range(0, len(each), step):
                parser.feed(each[at : at + step])
        parser.feed_eof()
    assert "\n" not in caught.value.message
    return caught.value


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 100 Continue\r\n\r\n" + SSE + b"\r\n" + EVENTS,
        b"HTTP/1.1 103 Early Hints\r\nContent-Encoding: gzip\r\n\r\n" * 2 + SSE + b"\r\n" + EVENTS,
        CHUNKED + chunk(EVENTS, b';a=b;c="d"') + b"0\r\nTrailer: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncOnTeNt-TyPe: TEXT/EVENT-STREAM; charset=utf-8\r\n\r\n" + EVENTS,
        b"HTTP/1.0 200 OK\r\n\r\n" + EVENTS,
        SSE + b"Content-Encoding: identity\r\n\r\n" + EVENTS,
        SSE + b"Content-Length: %d\r\n\r\n" % len(EVENTS) + EVENTS + b"HTTP/1.1 500 X\r\n\r\n",
        SSE + b"\r\n" + b": alive\n" + EVENTS,
        SSE + b"\r\n" + b"\xef\xbb\xbf" + EVENTS.replace(b"\n", b"\r\n"),
        SSE + b"\r\n" + EVENTS.replace(b"\n", b"\r").replace(b"data: ", b"data:"),
        SSE + b"\r\n" + EVENTS.replace(b",", b",\ndata: ").replace(b"data", b"id: 1\nx\ndata", 1),
        SSE + b"\r\n" + b"data\n\ndata:[DONE]\n\nevent: ping\ndata: 1\n\n" + EVENTS,
    ],
)
def test_answers_that_http_and_the_standard_allow(data: bytes) -> None:
    for step in (1 << 20, 7, 1):
        assert texts(data, step) == ["a", "b"]


def _error(code: Any) -> bytes:
    return json.dumps({"error": {"code": code, "message": "no such slot", "type": "x"}}).encode()


JSON = OK + b"Content-Type: application/json; charset=utf-8\r\n"


@pytest.mark.parametrize("step", [1, 1 << 20])
@pytest.mark.parametrize(
    "answer",
    [
        JSON + b"Content-Length: %d\r\n\r\n" % len(_error(400)) + _error(400),
        JSON + b"\r\n" + _error(400),
        OK + b"Content-Type: application/problem+json\r\n\r\n" + _error(400),
        OK + b"Content-Type: text/plain\r\n\r\n " + _error(400),
        CHUNKED + chunk(b"data: " + _error(400) + b"\n\n"),
        CHUNKED + chunk(b"event: error\ndata: " + _error(400) + b"\n\n"),
        CHUNKED + chunk(b"error: " + _error(400) + b"\n\n"),
    ],
)
def test_an_error_with_status_200_is_the_upstreams_error(answer: bytes, step: int) -> None:
    error = failure(answer, step=step)
    assert error.code == ErrorCode.INVALID_REQUEST
    assert error.message == "the upstream refused it: no such slot"


def test_what_is_no_event_stream_is_named() -> None:
    assert "application/json in place of an event stream: [1]" in failure(JSON + b"\r\n[1]").message
    html = OK + b"Content-Type: text/html\r\n\r\n<html>\nhello</html>"
    assert "in place of an event stream: a proxy's page of HTML: hello" in failure(html).message
    upgrade = b"HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
    assert "the upstream answered 101" in failure(upgrade).message
    both = SSE + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert "Transfer-Encoding can't be present with Content-Length" in failure(both).message


@pytest.mark.parametrize(
    "header", [b"Content-Encoding: gzip", b"content-encoding: br, gzip", b"Transfer-Encoding: gzip"]
)
def test_an_encoded_body_is_refused_by_name(header: bytes) -> None:
    error = failure(SSE + header + b"\r\n\r\n", b"\x1f\x8b")
    assert type(error) is UpstreamError
    assert header.partition(b": ")[2].decode() in error.message
    assert "not asked for" in error.message
    busy = failure(b"HTTP/1.1 429 X\r\nRetry-After: 3\r\n" + header + b"\r\n\r\n", b"\x1f\x8b")
    assert isinstance(busy, UpstreamBusy)
    assert busy.retry_after == 3


@pytest.mark.parametrize(
    ("head", "filler"),
    [
        (OK, b"X-Filler: " + b"x" * 1000 + b"\r\n"),
        (OK + b"X-Filler: ", b"x" * 1000),
        (b"", b"HTTP/1.1 102 Processing\r\n\r\n" * 10),
        (CHUNKED + chunk(b": alive\n\n") + b"0\r\n", b"X-Trailer: " + b"x" * 1000 + b"\r\n"),
        (CHUNKED + b"1;", b"x" * 1000),
    ],
)
def test_what_is_around_the_body_is_bounded(head: bytes, filler: bytes) -> None:
    parser = ResponseParser()
    parser.feed(head)
    with pytest.raises(RequestError, match="headers without an end"):
        for _ in range(2 * MAX_HEAD // len(filler) + 1):
            parser.feed(filler)


@pytest.mark.parametrize("head", [b"HTTP/1.1 500 X\r\n\r\n", JSON + b"\r\n{"])
def test_a_body_that_is_no_event_stream_ends_at_a_bound(head: bytes) -> None:
    parser = ResponseParser()
    parser.feed(head)
    with pytest.raises(RequestError) as caught:
        for _ in range(100):
            parser.feed(b"x" * 1000)
    assert len(caught.value.message) < 1000


def test_an_event_is_bounded_by_what_was_asked_for() -> None:
    assert longest_event(0, 0) == 256 << 10
    assert longest_event(1000, 20) == (256 << 10) + 16_000 + 20 * 8192
    assert longest_event(1 << 20, 1024) == MAX_EVENT
    parser = ResponseParser(longest_event(0, 0))
    parser.feed(SSE + b"\r\n" + b'data: {"content":"')
    with pytest.raises(RequestError, match="an event of more than 262144 bytes"):
        for _ in range(300):
            parser.feed(b"x" * 1000)


def test_an_event_that_is_cut_off_is_no_event() -> None:
    parser = ResponseParser()
    parser.feed(SSE + b"\r\n" + b'data: {"content":"a"}\n\n' + FINAL[:-1])
    parser.feed_eof()
    assert [event.content for event in parser.events] == ["a"]
    assert not parser.finished
    assert parser.unfinished == b'{"content":"b","stop":true}'


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": "86400"}, 60.0),
        ({"retry-after": "9" * 400}, 60.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after-ms": "1500", "retry-after": "7"}, 1.5),
        ({"retry-after-ms": "x", "retry-after": "7"}, 7.0),
        (
            {
                "retry-after": "Wed, 21 Oct 2015 07:28:09 GMT",
                "date": "Wed, 21 Oct 2015 07:28:00 GMT",
            },
            9.0,
        ),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:09 GMT"}, 0.0),
        ({"retry-after": "Fri, 31 Dec 9999 23:59:59 GMT"}, 60.0),
        ({"retry-after": "Wed, 99 Oct 2015 07:28:09 GMT"}, None),
    ],
)
def test_when_to_ask_again(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers) == seconds


@pytest.mark.parametrize(
    ("status", "headers", "kind", "retry", "seconds"),
    [
        (429, {}, UpstreamBusy, True, None),
        (429, {"retry-after": "5"}, UpstreamBusy, True, 5.0),
        (503, {"retry-after": "5"}, UpstreamBusy, True, 5.0),
        (503, {}, UpstreamNotReady, True, 1.0),
        (429, {"x-should-retry": "false"}, UpstreamError, False, None),
        (500, {"retry-after": "5"}, UpstreamError, True, 5.0),
        (408, {}, UpstreamError, True, None),
        (404, {"retry-after": "5"}, UpstreamError, False, None),
    ],
)
def test_what_may_be_asked_again(
    status: int, headers: dict[str, str], kind: type, retry: bool, seconds: float | None
) -> None:
    error = upstream_failure(status, b"", headers)
    assert (type(error), error.retry, error.retry_after) == (kind, retry, seconds)
    if isinstance(error, UpstreamUnavailable):
        assert error.code == ErrorCode.UPSTREAM_UNAVAILABLE


def test_an_error_in_the_body_has_the_code_that_it_says() -> None:
    assert type(upstream_failure(200, _error(429))) is UpstreamBusy
    assert upstream_failure(500, _error(507)).message == "the upstream answered 507: no such slot"
    assert upstream_failure(500, _error(3)).message == "the upstream answered 500: no such slot"
    assert upstream_failure(500, _error("x")).message == "the upstream answered 500: no such slot"


_NGINX = (
    "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n<center><h1>502 Bad Gateway"
    "</h1></center>\r\n<hr><center>nginx/1.24.0</center>\r\n</body>\r\n</html>\r\n"
)


@pytest.mark.parametrize(
    ("status", "body", "headers", "said"),
    [
        (502, _NGINX, {}, "the upstream answered 502: a proxy's page of HTML: Bad Gateway"),
        (
            504,
            f"<!DOCTYPE html><!-- {'x' * 900} --><title\nx>\n Gone &amp; <b>away</b>\n</title>",
            {},
            "the upstream answered 504: a proxy's page of HTML: Gone & away",
        ),
        (
            404,
            "<p>nothing here</p><script>" + "x(); " * 100,
            {"content-type": "text/html; charset=utf-8"},
            "the upstream answered 404: a proxy's page of HTML: no title",
        ),
        (500, "a < b <html>", {}, "the upstream answered 500: a < b <html>"),
        (500, "<!--" + "--><!--" * 2000, {}, "the upstream answered 500: <!----><!--"),
    ],
)
def test_of_a_proxys_page_only_its_title_is_said(
    status: int, body: str, headers: dict[str, str], said: str
) -> None:
    message = upstream_failure(status, body.encode(), headers).message
    assert message.startswith(said)
    assert len(message) < 250


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("Failed to parse messages: Missing tool call type: 5", InvalidRequest),
        ("Failed to parse tools: key 'name' not found", InvalidRequest),
        ("Failed to parse tool call arguments as JSON: parse error", InvalidRequest),
        ("image input is not supported - hint: you may need to provide the mmproj", UpstreamLacks),
        ("Failed to parse", UpstreamError),
    ],
)
def test_a_chat_that_the_upstream_cannot_read_is_the_requests_fault(said: str, kind: type) -> None:
    body = json.dumps({"error": {"code": 500, "type": "server_error", "message": said}}).encode()
    error = upstream_failure(500, body)
    assert type(error) is kind
    assert error.retry == (kind is UpstreamError)


def test_a_grammar_that_the_upstream_loses_track_of_is_the_requests_fault() -> None:
    body = (
        b'{"error": {"code": 500, "type": "server_error", "message": "got exception: Unexpected '
        b'empty grammar stack after accepting piece: blog (18844)"}}'
    )
    error = upstream_failure(500, body)
    assert type(error) is InvalidRequest  # no failure of the upstream, and no retry elsewhere
    assert not error.retry
    assert "cannot follow the grammar" in error.message
