"""Words of all scripts: what is indexed, what a query finds, and what an excerpt shows."""

from __future__ import annotations

import unicodedata

import apsw
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llcuda_net.storage.words import (
    HIGHLIGHT,
    Text,
    Wanted,
    excerpts,
    match_expression,
    normal,
    parse,
)

#: Text of scripts without spaces, mixed with others, and with what separates words.
SPACELESS = (
    "東京都に住むコンピュータがラーメン麺々〇書い𠮷野家กรุงเทพสวัสดีลาวຂອງខ្មែរမြန်မာ서울에서한국어"
)
MIXED = SPACELESS + "aBc1 .,、。éßÅʼ "


def is_found(text: str, query: str) -> bool:
    """Whether SQLite finds a text by a query; excerpts must agree with it."""
    db = apsw.Connection(":memory:")
    try:
        db.execute("CREATE VIRTUAL TABLE words USING fts5 (text, tokenize='ascii')")
        db.execute("INSERT INTO words VALUES (?)", (normal(text),))
        wanted = parse(query)
        sql = "SELECT 1 FROM words WHERE words MATCH ?"
        found = db.execute(sql, (match_expression(wanted),)).get is not None
        assert (excerpts(wanted, text) is not None) == found, (text, query)
        return found
    finally:
        db.close()


def marked(text: str, query: str) -> list[str]:
    """What an excerpt highlights; without its marks it must be a part of the text."""
    left, right = HIGHLIGHT
    found = excerpts(parse(query), text)
    assert found is not None, (text, query)
    (excerpt,) = found
    plain = excerpt.replace(left, "").replace(right, "")
    assert plain.removeprefix("…").removesuffix("…") in text
    return [part.split(right)[0] for part in excerpt.split(left)[1:]]


FOUND = [
    ("東京都に住んでいます。", "東京"),
    ("東京都に住んでいます。", "京"),
    ("東京都に住んでいます。", "住んでいま"),
    ("東京都に住んでいます。", '"東京 都"'),
    ("ﾃﾞｰﾀを読む", "データ"),
    ("データを読む", "ﾃﾞｰﾀ"),
    ("中文和English混合iPhone手机。", "iphone手机"),
    ("中文和English混合", "english"),
    ("𠮷野家で食べる", "𠮷野"),
    ("กรุงเทพมหานคร", "เทพ"),
    ("ພາສາລາວ", "ລາວ"),
    ("ភាសាខ្មែរ", "ខ្មែរ"),
    ("မြန်မာဘာသာ", "ဘာသာ"),
    ("서울에서 만나요", "서울"),
    ("서울에서 만나요", "서울*"),
    ("ＡＢＣ１２３", "abc123"),
    ("abc123", "ＡＢＣ１２３"),
    ("the oﬃce", "office"),
    ("Straße", "STRASSE"),
    ("STRASSE", "straße"),
    ("İstanbul'da", "istanbul"),
    ("ISPARTA", "ısparta"),
    ("café", "cafe"),
    ("cafe\u0301 noir", "café"),
    ("Việt Nam", "viet nam"),
    ("Ελλάδα", "ελλαδα"),
    ("كَتَبَ", "كتب"),
    ("كـــتب", "كتب"),
    ("שָׁלוֹם", "שלום"),
    ("हिन्दी में", "हिन्दी"),
    ("so good 👍🏽!", "👍"),
    ("family 👨‍👩‍👧", "👩"),
    ("soft\u00adware", "software"),
    ("it's a-b", "a-b"),
    ("Слово", "СЛОВО"),
    ("ᏣᎳᎩ", "ꮳꮃꭹ"),
    ("Ο ΛΌΓΟΣ", "λόγος"),
]


@pytest.mark.parametrize(("text", "query"), FOUND)
def test_it_is_found(text: str, query: str) -> None:
    assert is_found(text, query)
    assert is_found(f"Some words, {text}, and more of them.", query)
    assert marked(f"Some words, {text}, and more of them.", query)


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("東京都", "京東"),
        ("東北と京都", "東京"),
        ("か", "が"),
        ("が", "か"),
        ("हिन्दी", "हन्द"),
        ("cafe", "caf"),
        ("one two", '"two one"'),
        ("one two", "three OR four"),
        ("one two", "one three"),
    ],
)
def test_it_is_not_found(text: str, query: str) -> None:
    assert not is_found(text, query)


def test_highlights_are_of_the_original() -> None:
    assert marked("私は東京都民です", "東京") == ["東京"]
    assert marked("ﾃﾞｰﾀとデータ", "データ") == ["ﾃﾞｰﾀ", "データ"]
    assert marked("The oﬃce, the OFFICE", "office") == ["oﬃce", "OFFICE"]
    assert marked("cafe\u0301 and café", "cafe") == ["cafe\u0301", "café"]
    assert marked("so 👍🏽, so 👍", "👍") == ["👍🏽", "👍"]
    assert marked("slow readers read", "read*") == ["readers", "read"]
    assert marked("one parallel sequence", '"one parallel" sequence') == [
        "one parallel",
        "sequence",
    ]
    assert excerpts(parse("b"), "a\x02b\x03c") == ("a \x02b\x03 c",)
    assert excerpts(parse("x"), "no", "an x") == ("no", "an \x02x\x03")


def test_an_excerpt_is_short_and_has_the_most_matches() -> None:
    text = "begin needle " + "hay " * 200 + "needle and needle again " + "straw " * 200
    assert marked(text, "needle") == ["needle", "needle"]
    (excerpt,) = excerpts(parse("needle"), text) or ("",)
    assert len(excerpt) < 200
    assert (excerpt[0], excerpt[-1]) == ("…", "…")
    assert marked("字" * 5000 + "東京" + "字" * 5000, "東京") == ["東京"]


OPERATORS: list[tuple[str, str]] = [
    ("a b", '("a" AND "b")'),
    ("a OR b c", '("a") OR ("b" AND "c")'),
    ("OR a OR", '("a")'),
    ('"a b" c*', '("a b" AND "c"*)'),
    ("東京* 'x'", '("東 京"* AND "x")'),
    ('＂NOT＂ (x) "', '("not" AND "x")'),
]


@pytest.mark.parametrize(("query", "expression"), OPERATORS)
def test_operators(query: str, expression: str) -> None:
    assert match_expression(parse(query)) == expression


@given(st.data())
def test_any_part_of_a_text_without_spaces_is_found(data: st.DataObject) -> None:
    # Of marks of several classes on one letter Unicode has one right order: no cut within them.
    letters = [c for c in SPACELESS if unicodedata.combining(c) in (0, 107)]
    text = data.draw(st.text(letters, min_size=1, max_size=40))
    start = data.draw(st.integers(0, len(text) - 1))
    part = text[start : start + data.draw(st.integers(1, 6))]
    assert is_found(f"before {text} after", part)
    assert "".join(marked(f"before {text} after", part)).count(part) >= 1


@given(st.text(st.sampled_from(MIXED), max_size=60), st.text(st.sampled_from(MIXED), max_size=4))
def test_excerpts_and_sqlite_agree(text: str, query: str) -> None:
    wanted: Wanted = parse(f"{query} x")
    assert wanted
    is_found(text, f"{query} OR x")


@given(st.text(max_size=40))
@example("\u1100\u1161\u11a8\u1100")
@example("\u3131\u314f\uffa1\uffc2\uffa8")
@example("\u0344\u0dd9\u0dcf\u0f71\u0f72")
@example("か\u3099ﾊ\uff9f")
@example("\u0e33\u0e48 ａ\u0301ẞ\x00\"'\ud800")
def test_the_words_of_a_text_are_those_of_its_index(text: str) -> None:
    """Normalised as a whole or in parts, a text has the same words, at places in their order."""
    parts = Text(text)
    index = (c if c.isalnum() or ord(c) > 127 else " " for c in normal(text))
    whole = "".join(c.lower() if c.isascii() else c for c in index).split(" ")
    assert parts._words == [word for word in whole if word]
    assert parts._places == sorted(parts._places)
    assert all(0 <= start < end <= len(text) for start, end in parts._places)
