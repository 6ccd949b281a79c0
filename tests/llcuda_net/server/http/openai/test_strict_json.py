"""Bodies that two programs could read differently are refused; others are read."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llcuda_net.server.http.errors import HttpError
from llcuda_net.server.http.openai import strict_json
from llcuda_net.server.http.openai.strict_json import MAX_DEPTH, MAX_VALUES, parse

_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
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


def test_keys_that_look_like_images_are_two() -> None:
    assert len(parse(b'{"data:x":1,"data:y" :"data:z"}')) == 2


def test_a_body_at_the_depth_is_read() -> None:
    assert parse(b'{"a":' + b"[" * (MAX_DEPTH - 1) + b"]" * (MAX_DEPTH - 1) + b"}")
