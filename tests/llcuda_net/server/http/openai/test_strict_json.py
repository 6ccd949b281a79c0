"""Bodies that two programs could read differently are refused; others are read."""

from __future__ import annotations

import contextlib
import json
import threading
import time

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from llcuda_net.server.http.errors import HttpError
from llcuda_net.server.http.openai import strict_json
from llcuda_net.server.http.openai.strict_json import MAX_DEPTH, MAX_VALUES, parse

_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "is empty"),
        (b"  \n", "is empty"),
        (b"[]", "must be a JSON object"),
        (b'"x"', "must be a JSON object"),
        (b'{"a":', "not valid JSON"),
        (b'{"a":1} x', "trailing characters"),
        (b"\xef\xbb\xbf{}", "not valid JSON"),
        (b'{"a":"\xff"}', "not UTF-8 (byte 6)"),
        (b'{"a":"\xed\xa0\x80"}', "not UTF-8"),
        (b'{"a":NaN}', "not valid JSON"),
        (b'{"a":18446744073709551616}', "64 bits"),
        (b'{"a":[-9223372036854775809]}', "64 bits"),
        (b'{"a":-Infinity}', "not valid JSON"),
        (b'{"a":1e999}', "out of range"),
        (b'{"a":"\\ud800"}', "surrogate"),
        (b'{"a":"\\ud800 and text behind it"}', "surrogate"),
        (b'{"a":"\\udc00"}', "surrogate"),
        (b'{"a":1,"a":2}', "the key 'a' twice"),
        (b'{"a":[{"b":1,"c":{},"b":1}]}', "the key 'b' twice"),
        (b'{"a":1,"\\u0061":2}', "the key 'a' twice"),
        (b'{"a":' * 100_000, "deeper"),
        (b'{"a":' + b"[" * MAX_DEPTH + b"]" * MAX_DEPTH + b"}", "deeper"),
        (b'{"a":[' + b"0," * MAX_VALUES + b"0]}", "values"),
        (b'{"a":1' + b"0" * 5000 + b"}", ""),
        (b'{"url":"data:x","url":"data:y"}', "the key 'url' twice"),
        (b'{"data:x":1,"b":2,"data:x":3}', "twice"),
        (b'{"a":"\\\\\\"data:","a":"x"}', "the key 'a' twice"),
    ],
)
def test_what_is_refused(body: bytes, message: str) -> None:
    with pytest.raises(HttpError) as caught:
        parse(body)
    assert message in caught.value.message
    assert (caught.value.status, caught.value.code) == (400, "invalid_json")


@given(st.dictionaries(st.text(), _VALUES, max_size=5))
def test_what_json_can_hold_is_read(value: dict[str, object]) -> None:
    assert parse(json.dumps(value).encode()) == value
    assert parse(json.dumps(value, ensure_ascii=False).encode()) == value


@given(st.binary(max_size=60))
def test_no_bytes_raise_anything_else(body: bytes) -> None:
    with contextlib.suppress(HttpError):
        assert type(parse(body)) is dict


def test_commas_of_a_text_are_no_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strict_json, "MAX_VALUES", 10)
    assert parse(rb'{"a": ",,,,,,,,,,,,\",,,,,,,[{"}')["a"].startswith(",,")
    assert parse(b'{"a":' + b"[" * 9 + b"]" * 9 + b"}")


@pytest.mark.parametrize("end", [b"", b'"', b'"}', b"\\"])
def test_a_text_full_of_escaped_quotes_is_soon_read(
    monkeypatch: pytest.MonkeyPatch, end: bytes
) -> None:
    monkeypatch.setattr(strict_json, "MAX_VALUES", 10)
    with contextlib.suppress(HttpError):  # time that grows with the square would be many minutes
        assert len(parse(b'{"a":"' + b'\\",' * 200_000 + end)["a"]) == 400_000


@given(st.dictionaries(st.text('ab\\",[{'), _VALUES, max_size=5), st.integers(0, 30))
def test_values_are_counted_as_they_are(value: dict[str, object], most: int) -> None:
    def count(of: object) -> int:
        inner = list(of.values()) if isinstance(of, dict) else of
        if not isinstance(inner, list):
            return 0
        return 1 + max(0, len(inner) - 1) + sum(map(count, inner))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(strict_json, "MAX_VALUES", most)
        if count(value) <= most:
            parse(json.dumps(value).encode())
        else:
            with pytest.raises(HttpError, match="values"):
                parse(json.dumps(value).encode())


async def test_large_bodies_are_read_in_a_thread_one_at_a_time() -> None:
    threads, running = [], []

    def make(value: dict[str, object]) -> int:
        threads.append(threading.get_ident())
        running.append(1)
        assert len(running) == 1
        time.sleep(0.001)
        running.pop()
        return len(value)

    body = b'{"a":"%b"}' % (b"x" * strict_json.AT_ONCE)
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(strict_json.read, body, make)
    assert len(threads) == 3
    assert threading.get_ident() not in threads
    assert await strict_json.read(b'{"a":1}', make) == 1
    assert threads[-1] == threading.get_ident()
    with pytest.raises(HttpError, match="valid JSON"):
        await strict_json.read(body[:-1], make)


def test_keys_that_look_like_images_are_two() -> None:
    assert len(parse(b'{"data:x":1,"data:y" :"data:z"}')) == 2


def test_a_body_at_the_depth_is_read() -> None:
    assert parse(b'{"a":' + b"[" * (MAX_DEPTH - 1) + b"]" * (MAX_DEPTH - 1) + b"}")
