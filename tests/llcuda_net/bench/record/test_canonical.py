"""One text for each value, in any language: vectors of RFC 8785, and values as they are drawn."""

from __future__ import annotations

import json
import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as some

from llcuda_net.bench.record.canonical import canonical, digest, number

#: RFC 8785, appendix B: the bits of a number, and its text.
NUMBERS = {
    "0000000000000000": "0",
    "8000000000000000": "0",
    "0000000000000001": "5e-324",
    "8000000000000001": "-5e-324",
    "7fefffffffffffff": "1.7976931348623157e+308",
    "ffefffffffffffff": "-1.7976931348623157e+308",
    "4340000000000000": "9007199254740992",
    "c340000000000000": "-9007199254740992",
    "4430000000000000": "295147905179352830000",
    "44b52d02c7e14af5": "9.999999999999997e+22",
    "44b52d02c7e14af6": "1e+23",
    "44b52d02c7e14af7": "1.0000000000000001e+23",
    "444b1ae4d6e2ef4e": "999999999999999700000",
    "444b1ae4d6e2ef4f": "999999999999999900000",
    "444b1ae4d6e2ef50": "1e+21",
    "3eb0c6f7a0b5ed8c": "9.999999999999997e-7",
    "3eb0c6f7a0b5ed8d": "0.000001",
    "41b3de4355555553": "333333333.3333332",
    "41b3de4355555554": "333333333.33333325",
    "41b3de4355555555": "333333333.3333333",
    "41b3de4355555556": "333333333.3333334",
    "41b3de4355555557": "333333333.33333343",
    "becbf647612f3696": "-0.0000033333333333333333",
    "43143ff3c1cb0959": "1424953923781206.2",
}


def test_numbers_of_the_rfc() -> None:
    for bits, text in NUMBERS.items():
        (value,) = struct.unpack(">d", bytes.fromhex(bits))
        assert number(value) == text, bits
    for value in (math.nan, math.inf, -math.inf):
        with pytest.raises(ValueError, match="is no number"):
            number(value)
    assert number(3) == number(3.0) == "3"
    assert number(1 << 60) == "1152921504606847000"  # as every number is a double there


@given(some.floats(allow_nan=False, allow_infinity=False))
def test_a_number_reads_back(value: float) -> None:
    assert float(number(value)) == value


def test_an_object_of_the_rfc() -> None:
    """Sections 3.2.2 and 3.2.3: numbers, strings, and the order of keys by UTF-16."""
    value = json.loads(
        '{"numbers": [333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],'
        ' "string": "\\u20ac$\\u000F\\u000aA\'\\u0042\\u0022\\u005c\\\\\\"\\/",'
        ' "literals": [null, true, false]}'
    )
    assert canonical(value).decode() == (
        '{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],'
        '"string":"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'
    )
    keys = ["\u20ac", "\r", "\ufb33", "1", "\U0001f600", "\u0080", "\u00f6"]
    inside = json.loads(canonical(dict.fromkeys(keys, 0)))
    assert list(inside) == ["\r", "1", "\u0080", "\u00f6", "\u20ac", "\U0001f600", "\ufb33"]
    with pytest.raises(ValueError, match="half a character"):
        canonical("\ud800")
    with pytest.raises(ValueError, match="is no JSON"):
        canonical({1})


def test_a_digest_is_of_everything_else() -> None:
    found = {"a": 1.0, "b": [1, {"c": None}]}
    told = digest(found)
    assert digest({"b": [1.0, {"c": None}], "a": 1, "digest": told}) == told
    for other in ({**found, "a": 2}, {**found, "c": 0}, {"a": 1.0}):
        assert digest(other) != told
