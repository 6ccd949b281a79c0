"""The input of a batch: its lines are found however it comes, and checked."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llcuda_net.server.batches import lines as module
from llcuda_net.server.batches.lines import MOST_ERRORS, Checker, Splitter, body_of

ENDPOINT = "/v1/chat/completions"


def request(custom_id: Any = "a", **changes: Any) -> dict[str, Any]:
    found = {
        "custom_id": custom_id,
        "method": "POST",
        "url": ENDPOINT,
        "body": {"messages": []},
        **changes,
    }
    return {name: value for name, value in found.items() if value is not ...}


def written(*requests: Any) -> bytes:
    return b"".join(json.dumps(one).encode() + b"\n" for one in requests)


def checked(data: bytes, size: int | None = None, most: int = 1000) -> Checker:
    checker = Checker(ENDPOINT, most)
    step = size or max(1, len(data))
    for at in range(0, len(data), step):
        checker.feed(data[at : at + step])
    checker.close()
    return checker


@given(
    data=st.lists(st.sampled_from([b"a", b"bc", b"\n", b"\n\n", b"\r\n", b"x" * 30])).map(b"".join),
    cuts=st.lists(st.integers(0, 200), max_size=5),
)
def test_lines_are_the_same_however_they_come(data: bytes, cuts: list[int]) -> None:
    splitter = Splitter(20)
    found: list[tuple[int, bytes | None]] = []
    places = sorted({0, len(data), *(min(cut, len(data)) for cut in cuts)})
    for start, end in zip(places, places[1:], strict=False):  # noqa: RUF007
        found += splitter.feed(data[start:end])
    found += splitter.close()
    wanted: list[tuple[int, bytes | None]] = []
    at = 0
    for line in data.split(b"\n"):
        wanted.append((at, line) if len(line) <= 20 else (0, None))
        at += len(line) + 1
    if data.endswith(b"\n") or not data:
        wanted.pop()
    assert [(start if line is not None else 0, line) for start, line in found] == wanted


@pytest.mark.parametrize("size", [1, 7, None])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_requests_are_found_where_they_are(size: int | None, end: bytes) -> None:
    data = b"\xef\xbb\xbf" + end.join(
        json.dumps(request(name, body={"n": name})).encode() for name in ("a", "ü", "c" * 512)
    )
    data = data.replace(b"}" + end, b"}" + end + b"  " + end, 1)
    checker = checked(data, size, 2000)
    assert not checker.errors
    assert [line.custom_id for line in checker.lines] == ["a", "ü", "c" * 512]
    assert [line.number for line in checker.lines] == [0, 1, 2]
    for line in checker.lines:
        body = body_of(data[line.start : line.start + line.size])
        assert json.loads(body) == {"n": line.custom_id}


def test_a_body_is_taken_as_it_came() -> None:
    body = b'{ "a":1.0e2,\t"b" : "\\u00fc" }'
    line = b'{"custom_id":"a","body":' + body + b',"method":"POST","url":"' + ENDPOINT.encode()
    assert body_of(line + b'"}') == body


@pytest.mark.parametrize(
    ("line", "code", "param", "says"),
    [
        (b"nonsense", "invalid_json_line", None, "the line is not valid JSON"),
        (b"[1]", "invalid_json_line", None, "the line must be a JSON object"),
        (b'{"a":1,"a":2}', "invalid_json_line", None, "twice"),
        (b'"\xff"', "invalid_json_line", None, "UTF-8"),
        (b"x" * 1001, "invalid_json_line", None, "more than 1,000 bytes"),
        (request(...), "missing_required_parameter", "custom_id", "is missing"),
        (request(body=...), "missing_required_parameter", "body", "is missing"),
        (request(model="x"), "invalid_request", "model", "there is no field 'model'"),
        (request(7), "invalid_request", "custom_id", "1 to 512 characters"),
        (request(""), "invalid_request", "custom_id", "1 to 512 characters"),
        (request("x" * 513), "invalid_request", "custom_id", "1 to 512 characters"),
        (request(method="GET"), "invalid_request", "method", "must be POST"),
        (request(url="/v1/embeddings"), "mismatched_endpoint", "url", ENDPOINT),
        (request(body=[]), "invalid_request", "body", "must be an object"),
        (request(body={"stream": True}), "invalid_request", "body.stream", "leave it out"),
        (request(body={"background": 1}), "invalid_request", "body.background", "leave it out"),
        (request("first"), "duplicate_custom_id", "custom_id", "'first' was there before"),
    ],
)
def test_what_is_wrong_with_a_line(line: Any, code: str, param: str | None, says: str) -> None:
    wrong = line if isinstance(line, bytes) else json.dumps(line).encode()
    data = written(request("first")) + b"\n" + wrong + b"\n" + written(request("last"))
    checker = checked(data)
    (error,) = checker.errors
    assert (error["code"], error["param"], error["line"]) == (code, param, 3)
    assert says in error["message"]
    assert "\n" not in error["message"]
    assert checker.total == 2


def test_stream_false_is_no_stream() -> None:
    checker = checked(written(request(body={"stream": False, "background": None})))
    assert not checker.errors


@pytest.mark.parametrize("data", [b"", b"\n\n  \n"])
def test_a_file_without_requests(data: bytes) -> None:
    (error,) = checked(data).errors
    assert (error["code"], error["line"]) == ("empty_file", None)


def test_no_more_errors_are_told_than_can_be_read() -> None:
    checker = checked(b"x\n" * 500)
    assert len(checker.errors) == MOST_ERRORS
    assert checker.over


def test_more_lines_than_a_batch_may_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_LINES", 3)
    assert not checked(written(*(request(f"{n}") for n in range(3)))).errors
    checker = checked(written(*(request(f"{n}") for n in range(9))))
    (error,) = checker.errors
    assert (error["code"], error["line"]) == ("too_many_lines", 4)
    assert checker.over


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_more_blank_lines_than_a_file_may_have(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(module, "MOST_IN_FILE", 5)
    assert not checked(written(request()) + b"\n" * 4, size).errors
    checker = checked(written(request()) + b"\n" * 1000, size)
    (error,) = checker.errors
    assert (error["code"], error["line"]) == ("too_many_lines", 6)
    assert "5 lines, blank ones among them" in error["message"]
    assert checker.over
