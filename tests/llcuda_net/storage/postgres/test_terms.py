"""The index finds everything that storage/words.py finds, in texts of all scripts and lengths."""

from __future__ import annotations

import random
from collections.abc import Iterator

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llcuda_net.errors import StorageError
from llcuda_net.storage.postgres import terms
from llcuda_net.storage.postgres.connection import Connection
from llcuda_net.storage.words import excerpts, parse
from tests.support.storage.postgres import Postgres

#: Few words and characters, so that much of what is asked for is there.
PARTS = [
    "slot",
    "Slots",
    "a",
    "straße",
    "Zürich",
    "東",
    "京",
    "都",
    "東京",
    "กรุง",
    "서울",
    "👋",
    "👋🏽",
]
PARTS += [" ", ". ", "。", '"', "'", "\\", ":*", "&|!()<->", "\0", "x" * 600, "ﬁ", "\uff11\uff12"]
TEXTS = st.lists(st.sampled_from(PARTS), max_size=12).map("".join)
WORDS = st.lists(st.sampled_from([*PARTS, "OR", "sl*", "東*", '"', "*"]), min_size=1, max_size=5)


@pytest.fixture(scope="module")
def database(postgres: Postgres) -> Iterator[Connection]:
    with psycopg.connect(postgres.new_database(), autocommit=True) as connection:
        yield connection


def is_found(database: Connection, vector: str, query: str) -> bool:
    row = database.execute("SELECT %s::tsvector @@ %s::tsquery", (vector, query)).fetchone()
    assert row is not None
    return bool(row[0])


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(prompt=TEXTS, text=TEXTS, words=WORDS.map(" ".join))
def test_what_is_there_is_found(database: Connection, prompt: str, text: str, words: str) -> None:
    try:
        wanted = parse(words)
    except StorageError:  # there is no word in it
        return
    vector = terms.vector([prompt, text], [terms.tag(terms.OWNER, "ann")])
    tags = [[terms.tag(terms.OWNER, "ann"), terms.tag(terms.OWNER, "bob")]]
    there = excerpts(wanted, prompt, text) is not None
    assert not there or is_found(database, vector, terms.query(wanted, tags))
    assert not is_found(database, vector, terms.query(wanted, [[terms.tag(terms.OWNER, "eve")]]))
    database.execute(
        "SELECT ts_rank(%s::tsvector, %s::tsquery, 1)", (vector, terms.any_word(wanted))
    )


def found(database: Connection, texts: list[str], words: str) -> bool:
    return is_found(database, terms.vector(texts, []), terms.query(parse(words)))


def test_a_phrase_is_looked_up_by_its_pairs(database: Connection) -> None:
    assert found(database, ["東京都に住む。"], "東京")
    assert found(database, ["東京都に住む。"], "京都に")
    assert not found(database, ["京に東、東の京"], "東京")
    assert "'東京'" in terms.query(parse("東京"))
    assert not found(database, ["one two", "three"], '"two three"')
    assert found(database, ["one two", "three"], '"one tw*"') is False  # no prefix in quotes


def test_a_long_text_is_found_where_it_has_no_places_any_more(database: Connection) -> None:
    often = "the cat " * 400 + "sat down"
    assert found(database, [often], '"cat sat"')  # "cat" has more places than there is room for
    long = " ".join(f"w{n}" for n in range(20_000))
    assert found(database, [long], '"w19998 w19999"')
    assert found(database, [long], "w19999")
    assert not found(database, [long], "w20000")


def test_a_text_with_more_words_than_there_is_room_for_is_indexed_in_part(
    database: Connection,
) -> None:
    rng = random.Random(1)
    text = "".join(chr(rng.randrange(0x4E00, 0x9FFF)) for _ in range(120_000))
    assert found(database, [text], text[:5])
    assert found(database, ["x" * 3000], "x" * 3000)
    assert found(database, ["x" * 3000], "x" * 700 + "*")
