"""Each check: what it takes, what it refuses and what it says; and the guard on sizes."""

from __future__ import annotations

import time
import tracemalloc
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings

from llcuda_protocol.frames import FrameError, decode
from llcuda_protocol.guard import declares_too_much
from llcuda_protocol.schema import (
    MAX_DEPTH,
    MAX_VALUES,
    Check,
    Field,
    blob,
    boolean,
    integer,
    integers,
    json_map,
    list_of,
    map_of,
    number,
    record,
    text,
)
from llcuda_protocol.values.chat import CHAT
from tests.support.protocol.any_frame import JSON
from tests.support.protocol.every import every

NAN, INF = float("nan"), float("inf")


def nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth - 1):
        value = [value]
    return value


def test_all_tools_together_are_bounded() -> None:
    """Each of 128 might hold as much as one map may; that took minutes to look through."""
    tool = {"type": "function", "function": {"name": "f", "parameters": {"a": [0] * 100_000}}}
    with pytest.raises(ValueError, match="chat holds more than 262144 values"):
        CHAT({"tools": [tool] * 3}, "chat")
    CHAT({"tools": [tool] * 2}, "chat")
    deepest = {
        "type": "function",
        "function": {"name": "f", "parameters": {"a": nested(MAX_DEPTH)}},
    }
    CHAT({"tools": [deepest]}, "chat")
    CHAT({"chat_template_kwargs": {"a": nested(MAX_DEPTH)}}, "chat")
    for key in ("tools", "chat_template_kwargs"):
        with pytest.raises(ValueError, match="nested deeper"):
            CHAT({key: {"a": nested(MAX_DEPTH + 10)}}, "chat")


def test_takes() -> None:
    cases: list[tuple[Check, Any]] = [
        (integer(0, 5), 0),
        (integer(0, 5), 5),
        (integers(0, 5), []),
        (integers(0, 5), [0, 5]),
        (number(0, 5), 0),
        (number(0, 5), 5.0),
        (text(3), "äöü"),
        (text(), "x" * 100_000),
        (blob(2), b"ab"),
        (boolean, False),
        (list_of(text(), 2), []),
        (list_of(text(), 2, 1), ["a", "b"]),
        (map_of(integer(0, 5), 1), {"a": 1}),
        (json_map(2), {"a": [None, True, -1, 1.5, "x", {"y": []}], "b": 1 << 64}),
        (json_map(1), {"a": nested(MAX_DEPTH)}),
        (json_map(1), {"a": [0] * (MAX_VALUES - 1)}),
    ]
    for check, value in cases:
        assert check(value, "x") == value, check.says


def test_refuses() -> None:
    cases: list[tuple[Check, Any]] = [
        (integer(0, 5), -1),
        (integer(0, 5), 6),
        (integer(0, 5), True),
        (integer(0, 5), 1.0),
        (integers(0, 5), (1,)),
        (integers(0, 5), [-1]),
        (integers(0, 5), [6]),
        (integers(0, 5), [1, True]),
        (integers(0, 5), [1, 1.0]),
        (integers(0, 5), [1, None]),
        (number(0, 5), -0.1),
        (number(0, 5), 5.1),
        (number(0, 5), NAN),
        (number(0, 5), INF),
        (number(0, 5), 10**400),
        (number(0, 5), True),
        (number(0, 5), "1"),
        (text(3), "abcd"),
        (text(), b"a"),
        (blob(2), b"abc"),
        (blob(2), bytearray(b"a")),
        (blob(2), "a"),
        (boolean, 0),
        (list_of(text(), 2), ["a", "b", "c"]),
        (list_of(text(), 2, 1), []),
        (list_of(text(), 2), [1]),
        (list_of(text(), 2), ("a",)),
        (map_of(integer(0, 5), 1), {"a": 6}),
        (map_of(integer(0, 5), 1), {"a": 1, "b": 1}),
        (map_of(integer(0, 5), 1), {1: 1}),
        (map_of(integer(0, 5), 1), [1]),
        (json_map(1), {"a": 1, "b": 1}),
        (json_map(1), {"a": NAN}),
        (json_map(1), {"a": [INF]}),
        (json_map(1), {"a": b"x"}),
        (json_map(1), {"a": {1: 1}}),
        (json_map(1), {b"a": 1}),
        (json_map(1), {"a": nested(MAX_DEPTH + 1)}),
        (json_map(1), {"a": [0] * MAX_VALUES}),
        (json_map(1), {"a": [[0] * 1000] * (MAX_VALUES // 1000)}),
        (json_map(1), []),
    ]

    def refuse(check: Check, value: Any) -> None:
        with pytest.raises(ValueError, match="x"):
            check(value, "x")

    every(((f"{check.says}, {repr(value)[:50]}", check, value) for check, value in cases), refuse)


def test_record() -> None:
    check = record({"a": Field(integer(0, 5), required=True), "b": Field(text(3))})
    assert check({"a": 1}, "x") == {"a": 1}
    assert check({"a": 1, "b": None, "c": object(), 5: 6}, "x") == {"a": 1}
    for value, message in (
        ({}, "x lacks 'a'"),
        ({"a": None}, "x lacks 'a'"),
        ({"a": 6}, "x.a must be 0 to 5, not 6"),
        ({"a": 1, "b": "long"}, "x.b is 4 characters long; at most 3 fit"),
        ([], "x must be a map, not list"),
    ):
        with pytest.raises(ValueError, match="x") as caught:
            check(value, "x")
        assert str(caught.value) == message


def test_a_check_says_what_it_allows() -> None:
    says = list_of(record({"a": Field(integer(0, 5), required=True), "b": Field(text(3))}), 4, 1)
    assert says.says == (
        "list of 1 to 4 of: map with `a`: integer 0 to 5, required; "
        "`b`: string of at most 3 characters"
    )


@pytest.mark.parametrize("body", [b"\x91" * 500 + b"\xc1", b"\x91" * 500, b"\x81\xa1a" * 500])
def test_refused_frames_leave_nothing_behind(body: bytes) -> None:
    # msgpack before 1.2 leaked what it had built of a frame that it then refused.
    def refuse() -> None:
        with pytest.raises(FrameError):
            decode(body)

    refuse()
    tracemalloc.start()
    for _ in range(100):
        refuse()
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 200_000


@pytest.mark.parametrize("error", [MemoryError, RecursionError, OverflowError, TypeError])
def test_whatever_the_decoder_raises(error: type[Exception], monkeypatch: Any) -> None:
    def unpackb(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(msgpack, "unpackb", unpackb)
    with pytest.raises(FrameError, match=f"not msgpack: {error.__name__}"):
        decode(b"\x90")


# -- the guard --------------------------------------------------------------------------------


def bomb(size: int) -> bytes:
    """1000 arrays in each other, each declaring nearly as many items as there are bytes."""
    header = b"\xdd" + (size - 10_000).to_bytes(4, "big")
    return header * 1000 + b"\xc0" * (size - 5000)


def test_nested_arrays_are_refused_before_memory_is_taken() -> None:
    body = bomb(1 << 20)
    assert declares_too_much(body)
    with pytest.raises(FrameError, match="more items"):
        decode(body)


def test_declared_items_are_bounded_by_the_bytes() -> None:
    nils = b"\xc0" * 1_000_000
    for items, too_much in ((499_000, False), (501_000, True)):
        header = b"\xdd" + items.to_bytes(4, "big")
        assert declares_too_much((header * 2 + nils)[:1_000_000]) is too_much


@settings(max_examples=100, deadline=None)
@given(JSON)
def test_what_is_valid_is_never_refused(value: Any) -> None:
    filler = b"\xdc" * 3000  # looks like the headers of arrays, and is not
    for whole in (
        [value, filler],
        [filler.decode("latin-1"), value],
        [value, -1.5, 1 << 40, filler],
    ):
        assert not declares_too_much(msgpack.packb(whole))


def test_every_kind_of_value_is_skipped() -> None:
    long_list = [1] * 70_000  # declared by an array of 32 bits
    values = [
        *(None, True, -1, -200, -40_000, -3_000_000_000, 200, 40_000, 3_000_000_000, 1 << 40),
        *(1.5, "", "a" * 31, "a" * 255, "a" * 65_535, "a" * 65_536),
        *(b"\xdc" * 255, b"\xdd" * 65_535, b"\xdd" * 65_536),
        *([1] * 15, [1] * 16, {"a": 1}, {str(n): n for n in range(16)}),
        *(msgpack.ExtType(5, b"\xdd" * n) for n in (1, 2, 4, 8, 16, 3, 300, 70_000)),
        {str(n): n for n in range(70_000)},
        long_list,
    ]
    body = msgpack.packb(values) + b"\xdd"
    assert not declares_too_much(body)
    # After all of that it still sees where the next array begins.
    assert declares_too_much(msgpack.packb([*values, "x"])[:-2] + b"\xdd" + b"\xff" * 4)
    for end in range(len(body) - 200, len(body), 20):
        assert not declares_too_much(body[:end])


@pytest.mark.slow
def test_the_guard_is_quick() -> None:
    ids = msgpack.packb([2, 1, {"credit": 1, "prompt": [0xDCDC] * 300_000}])
    start = time.process_time()
    assert not declares_too_much(ids)
    assert time.process_time() - start < 1  # 0.02 s as a rule
