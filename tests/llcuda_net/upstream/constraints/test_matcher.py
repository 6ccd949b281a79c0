"""Texts are of a grammar, begin one that is, or neither: as regular expressions say, too."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llcuda_net.upstream.constraints.gbnf import parse
from llcuda_net.upstream.constraints.matcher import Match, Matcher, TooComplexError

W, B, N = Match.WHOLE, Match.BEGINNING, Match.NO

JSON = r"""
root ::= value
value ::= object | array | string | number | "true" | "false" | "null"
object ::= "{" ws (pair ("," ws pair)*)? ws "}"
pair ::= string ":" ws value
array ::= "[" ws (value ("," ws value)*)? ws "]"
string ::= "\"" ([^"\\\x00-\x1F] | "\\" (["\\/bfnrt] | "u" [0-9a-fA-F]{4}))* "\""
number ::= "-"? ("0" | [1-9] [0-9]*) ("." [0-9]+)? ([eE] [-+]? [0-9]+)?
ws ::= [ \n]*
"""


@pytest.mark.parametrize(
    ("grammar", "text", "found"),
    [
        ('root ::= "a"{2,4}', "", B),
        ('root ::= "a"{2,4}', "a", B),
        ('root ::= "a"{2,4}', "aa", W),
        ('root ::= "a"{2,4}', "aaaaa", N),
        ('root ::= "a"{0} "b"', "b", W),
        ('root ::= ("a"?)*', "aaab", N),
        ('root ::= x*\nx ::= "a" | ""', "aaa", W),
        ('root ::= "a" root "b" | ""', "aabb", W),
        ('root ::= "a" root "b" | ""', "aab", B),
        ('root ::= "a" root "b" | ""', "aba", N),
        ("root ::= [^a-c\\]]+", "xyz", W),
        ("root ::= [^a-c\\]]+", "x]", N),
        ("root ::= [ぁ-ゟ]+", "ありがと", W),
        ('root ::= .{3} "!"', "a\n😀!", W),
        # The text of a token is known to the upstream only.
        ('root ::= <think> "x" </think> "y"', "<think>x</think>y", W),
        ('root ::= <think> "x" </think> "y"', "xy", W),
        ('root ::= <think> "x"', "no", B),
    ],
)
def test_texts_of_small_grammars(grammar: str, text: str, found: Match) -> None:
    assert Matcher(parse(grammar)).match(text) is found


_ITEMS = st.sampled_from(['"a"', '"bc"', "[ab]", "[^a]", "."])
_PATTERNS = st.recursive(
    _ITEMS,
    lambda inner: st.one_of(
        st.tuples(inner, inner).map(lambda two: f"{two[0]} {two[1]}"),
        st.tuples(inner, inner).map(lambda two: f"({two[0]} | {two[1]})"),
        st.tuples(inner, st.sampled_from("*+?")).map(lambda two: f"({two[0]}){two[1]}"),
        st.tuples(inner, st.integers(0, 2), st.integers(0, 2)).map(
            lambda three: f"({three[0]}){{{three[1]},{three[1] + three[2]}}}"
        ),
    ),
    max_leaves=6,
)


@settings(max_examples=60, deadline=None)
@given(_PATTERNS, st.text("abc", max_size=8))
def test_a_grammar_takes_what_the_same_regular_expression_takes(pattern: str, text: str) -> None:
    expression = pattern.replace('"', "").replace(" ", "")
    found = Matcher(parse(f"root ::= {pattern}")).match(text)
    assert (found is W) == bool(re.fullmatch(expression, text, re.DOTALL))


_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=40, deadline=None)
@given(_VALUES, st.data())
def test_json_and_each_beginning_of_it(value: object, data: st.DataObject) -> None:
    matcher = Matcher(parse(JSON))
    text = json.dumps(value)
    assert matcher.match(text) is W
    cut = data.draw(st.integers(0, len(text)))
    assert matcher.match(text[:cut]) is not N
    assert matcher.match(text + "}") is N


def test_a_long_text_makes_few_states() -> None:
    matcher = Matcher(parse(JSON))
    document = json.dumps([{"text": "x" * 5000, "n": [1, 2.5, None]} for _ in range(20)])
    assert matcher.match(document) is W
    assert len(matcher._states) < 200


def test_what_cannot_be_followed_is_given_up() -> None:
    with pytest.raises(TooComplexError):
        Matcher(parse('root ::= root "a" | "a"')).match("aaa")
