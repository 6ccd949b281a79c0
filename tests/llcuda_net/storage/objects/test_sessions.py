"""Sessions in objects.db: kept, renewed, forgotten; and what a table that is stolen gives away."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llcuda_net.storage.objects.interface import Database
from llcuda_net.storage.objects.sessions import Session, change, every
from tests.support.storage.objects import Emptied


def session(number: int, user: str = "ann", expires: int = 100) -> Session:
    return Session(bytes([number]) * 32, user, b"bound", number, expires)


def test_what_is_kept_is_there_until_it_is_forgotten(db: Database) -> None:
    one, two = session(1), session(2, "")
    change(db, one)
    change(db, two)
    assert every(db) == [one, two]
    change(db, None, [one.hash, b"none of ours"])
    assert every(db) == [two]


def test_a_session_is_renewed_and_changes_its_user_never(db: Database) -> None:
    change(db, session(1))
    change(db, session(1, "mallory", expires=200))
    assert every(db) == [session(1, expires=200)]


def test_one_may_take_the_place_of_another(db: Database) -> None:
    change(db, session(1))
    change(db, session(2), [session(1).hash])
    assert every(db) == [session(2)]


_CHANGES = st.tuples(st.integers(0, 5), st.lists(st.integers(0, 5), max_size=3), st.integers(1, 9))


@given(st.lists(_CHANGES, max_size=20))
def test_it_is_a_table_by_hash(emptied: Emptied, changes: list[tuple[int, list[int], int]]) -> None:
    kept: dict[bytes, Session] = {}
    with emptied() as db:
        for number, ended, expires in changes:
            made = session(number, expires=expires)
            change(db, made, [session(one).hash for one in ended])
            for one in ended:
                kept.pop(session(one).hash, None)
            kept[made.hash] = made
            assert {one.hash: one for one in every(db)} == kept
