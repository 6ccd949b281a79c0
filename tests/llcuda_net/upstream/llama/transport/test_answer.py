"""The answer to a short request, byte by byte and whole: what it says, and what it may take."""

from __future__ import annotations

import pytest

from llcuda_net.errors import RequestError
from llcuda_net.upstream.llama.failures import MAX_ERROR_BODY, MAX_HEAD
from llcuda_net.upstream.llama.transport.answer import Answer

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
WITH_LENGTH = HEAD + b"Content-Length: 2\r\n\r\n{}"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n1\r\n}\r\n0\r\nTrailer: x\r\n\r\n"


def fed(data: bytes, step: int = 0, most: int = 100) -> Answer:
    answer = Answer("/x", most)
    for start in range(0, len(data), step or len(data)):
        answer.feed(data[start : start + (step or len(data))])
    return answer


@pytest.mark.parametrize("step", [0, 1, 7])
@pytest.mark.parametrize("before", [b"", b"HTTP/1.1 102 Processing\r\nX: y\r\n\r\n"])
@pytest.mark.parametrize("data", [WITH_LENGTH, CHUNKED])
def test_a_whole_answer_leaves_its_connection_to_the_next(
    data: bytes, before: bytes, step: int
) -> None:
    answer = fed(before + data, step)
    assert (answer.complete, answer.reusable, answer.status) == (True, True, 200)
    assert bytes(answer.body) == b"{}"
    assert answer.headers["content-type"] == "application/json"
    assert not {"x", "trailer"} & answer.headers.keys()


@pytest.mark.parametrize(
    "data",
    [
        HEAD + b"Connection: close\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        WITH_LENGTH + b"HTTP/1.1 200 OK\r\n",  # what nobody has asked for
    ],
)
def test_some_connections_take_no_other_request(data: bytes) -> None:
    answer = fed(data)
    assert (answer.complete, answer.reusable) == (True, False)
    assert bytes(answer.body) == b"{}"


def test_what_ends_with_its_connection() -> None:
    answer = fed(HEAD + b"\r\n{}")
    assert not answer.complete
    answer.feed_eof()
    assert (answer.complete, answer.reusable, bytes(answer.body)) == (True, False, b"{}")
    for cut in (HEAD, HEAD + b"Content-Length: 2\r\n\r\n{", CHUNKED[:-10]):
        answer = fed(cut)
        answer.feed_eof()
        assert not answer.complete


def test_nothing_is_longer_than_it_may_be() -> None:
    with pytest.raises(RequestError, match="/x has more than 100 bytes"):
        fed(HEAD + b"\r\n" + b"x" * 101)
    error = fed(b"HTTP/1.1 500 X\r\n\r\n" + b"x" * (MAX_ERROR_BODY + 1))
    assert (error.complete, error.reusable, len(error.body)) == (True, False, MAX_ERROR_BODY)
    for endless in (HEAD + b"X: y\r\n" * MAX_HEAD, b"HTTP/1.1 100 Go on\r\n\r\n" * MAX_HEAD):
        with pytest.raises(RequestError, match="did not answer as a llama-server"):
            fed(endless, 4096)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"this is no HTTP at all", "not HTTP"),
        (HEAD + b"Content-Encoding: gzip\r\n\r\n", "content-encoding: gzip"),
    ],
)
def test_what_is_no_answer(data: bytes, words: str) -> None:
    with pytest.raises(RequestError, match=words):
        fed(data)
