"""GBNF is read as llama.cpp's guide describes it, and what llama.cpp cannot use is refused."""

from __future__ import annotations

import pytest

from llcuda_net.upstream.constraints.gbnf import (
    MAX_DEPTH,
    MAX_SYMBOLS,
    Chars,
    GrammarError,
    Ref,
    TokenRef,
    parse,
)

#: From grammars/README.md of llama.cpp, and its example grammars.
GOOD = [
    """root ::= (
      # a comment
      "1. " move " " move "\\n"
      ([1-9] [0-9]? ". " move "\\n")+
    )
    move ::= (pawn | castle) [+#]?
    pawn ::= [a-h] [1-8]
    castle ::= "O-O" "-O"?""",
    "root ::= [ぁ-ゟ]+",
    'root ::= "\\x41\\u00e9\\U0001F600\\n\\t\\r\\\\\\"\\[\\]"',
    'root ::= [^\\n]+ "\\n"',
    'root ::= "a"{2} "b"{2,} "c"{0,3} "d"*',
    "root ::= <think> thinking </think> .*\nthinking ::= !</think>*",
    "root ::= <[1000]> (!<[1001]>)* <[1001]>",
    '# only\n\nroot ::= a |\n  b\r\na ::= "x"\r\nb ::= [-a-]',
    'root ::= a-B1\na-B1 ::= ""',
    'root ::= "(" | [(] # (((\n',
    'root ::= ( "a" | )',
]
BAD = [
    ("", "has no rules"),
    ("  # nothing\n", "has no rules"),
    ('x ::= "a"', "no rule named root"),
    ("root ::= nope", "uses the rule nope"),
    ('root ::= "a', "ends in the middle"),
    ("root ::= [a-", "ends in the middle"),
    ("root ::= (", "closing parenthesis"),
    ('root ::= "a" )', "does not belong"),
    ('root = "a"', "needs ::="),
    ('root ::= "a" b ::= "c"', "does not belong"),
    ('root ::= "\\q"', "unknown escape"),
    ('root ::= "\\x4"', "2 hexadecimal digits"),
    ('root ::= "\\U00110000"', "no character"),
    ("root ::= *", "nothing to repeat"),
    ('root ::= ""*', "nothing to repeat"),
    ('root ::= "a"{3,2}', "ends before it begins"),
    ('root ::= "a"{,2}', "where a brace begins"),
    ('root ::= "a"{2', "where a brace begins"),
    ('root ::= "a"{2001}', "more than 2000 times"),
    ('root ::= "a"{1234567890123}', "more than 2000 times"),
    ('root ::= "a"{2000}{2}', "more than 2000 times"),
    ("root ::= [z-a]", "down to"),
    ("root ::= []", "empty class"),
    ("root ::= [^\\U00000000-\\U0010FFFF]", "no character is in"),
    ("root ::= [\\uD800-\\uDFFF]", "no character is in"),
    ('root ::= "a"\0 | "b"', "NUL"),
    ("root ::= <>", "no token"),
    ('%llguidance {}\nstart: "a"', "name of a rule"),
    ("root ::= " + "(" * (MAX_DEPTH + 1), "parentheses in each other"),
    ("root ::= " + '("a"{2000})' * 200, f"more than {MAX_SYMBOLS:,} symbols"),
]


@pytest.mark.parametrize("text", GOOD)
def test_what_the_guide_shows_is_read(text: str) -> None:
    assert parse(text).rules


@pytest.mark.parametrize(("text", "why"), BAD)
def test_what_llama_cpp_cannot_use_is_refused(text: str, why: str) -> None:
    with pytest.raises(GrammarError, match=why.replace("{", r"\{")):
        parse(text)


def test_rules_are_as_they_were_written() -> None:
    grammar = parse('root ::= item "é" | .\nitem ::= [^a-c\\]] | <x>')
    a, b = grammar.rules[grammar.root]
    assert a[1:] == (Chars(((0xE9, 0xE9),)),)
    assert isinstance(a[0], Ref)
    assert b == (Chars((), negated=True),)
    assert grammar.rules[a[0].rule] == [
        (Chars(((97, 99), (93, 93)), negated=True),),
        (TokenRef(),),
    ]


def test_the_place_of_an_error_is_told() -> None:
    with pytest.raises(GrammarError, match="line 2, column 7"):
        parse("root ::= a\na ::= =")


def test_brackets_that_never_end_are_read_once() -> None:
    # Quadratic reading of these takes minutes, in which the suite would stand still.
    for text in ("root ::= " + "[" * 65_000, 'root ::= "' + '\\"' * 30_000):
        with pytest.raises(GrammarError):
            parse(text)
    parse("root ::= " + "()" * 30_000)
