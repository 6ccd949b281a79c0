"""Conversations: their members, their list, and that nobody sees another's."""

from __future__ import annotations

from contextlib import closing

import apsw
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llcuda_net.errors import StorageError
from llcuda_net.storage.objects.conversations import (
    PREVIEW,
    Conversation,
    create,
    delete,
    get,
    listed,
    preview_of,
    set_preview,
    update,
)
from llcuda_net.storage.objects.database import SqliteDatabase
from llcuda_net.storage.objects.entries import add_items, delete_item, links
from llcuda_net.storage.objects.interface import Database
from llcuda_net.storage.objects.migrations import OBJECTS
from llcuda_net.storage.results.migrations import migrate
from tests.support.storage.conversations import item
from tests.support.storage.objects import Emptied


def titles(db: Database, *words: str, pinned: bool | None = None) -> list[str | None]:
    return [one.title for one in listed(db, "ann", 99, words=words, pinned=pinned)]


def test_what_was_created_is_found_by_its_owner_and_an_admin(db: Database) -> None:
    made = create(db, "ann", title="t", pinned=True, metadata={"a": "b"})
    assert made.id.startswith("conv_")
    assert (made.title, made.pinned, made.metadata) == ("t", True, {"a": "b"})
    assert (made.head, made.size, made.preview) == (0, 0, None)
    assert get(db, made.id, "ann") == get(db, made.id, None) == made
    assert get(db, made.id, "bob") is None
    assert get(db, "conv_0", "ann") is None


def test_what_is_pinned_comes_first_and_then_the_last_that_was_used(db: Database) -> None:
    one, two, three = (create(db, "ann", title=str(i)) for i in range(3))
    create(db, "bob")
    add_items(db, one, [item("a")])
    update(db, two, title="2", pinned=True, metadata={})
    assert [c.id for c in listed(db, "ann", 9)] == [two.id, one.id, three.id]
    assert titles(db, pinned=True) == ["2"]
    assert titles(db, pinned=False) == ["0", "2"]


@given(pinned=st.lists(st.booleans(), max_size=9), page=st.integers(1, 4))
def test_pages_hold_each_once(emptied: Emptied, pinned: list[bool], page: int) -> None:
    with emptied() as db:
        for one in pinned:
            create(db, "ann", pinned=one)
        whole = listed(db, "ann", 100)
        assert len(whole) == len(pinned)
        assert [c.pinned for c in whole] == sorted(pinned, reverse=True)
        found: list[Conversation] = []
        while part := listed(db, "ann", page, found[-1] if found else None):
            assert len(part) <= page
            found += part
        assert found == whole


def test_they_are_found_by_words_of_titles_and_previews(db: Database) -> None:
    for title in ("Größe der Slots", "ÉCOLE 100%", None):
        create(db, "ann", title=title)
    create(db, "bob", title="Slots")
    (untitled,) = (one for one in listed(db, "ann", 9) if one.title is None)
    set_preview(db, untitled, "How many slots?", "e")
    assert titles(db, "slot") == [None, "Größe der Slots"]
    assert titles(db, "SLOT", "grosse") == ["Größe der Slots"]
    assert titles(db, "ecole") == ["ÉCOLE 100%"]
    assert titles(db, "%") == ["ÉCOLE 100%"]  # no character means another
    assert titles(db, "_") == titles(db, "slot", "ecole") == []
    update(db, untitled, title="new", pinned=False, metadata={})
    assert titles(db, "many", "new") == ["new"]
    first = listed(db, "ann", 1, words=["o"])
    assert listed(db, "ann", 9, first[0], words=["o"]) == listed(db, "ann", 9, words=["o"])[1:]


def test_one_of_an_earlier_version_is_found_by_its_title(db: Database) -> None:
    create(db, "ann", title="Old Slots")
    db.run("UPDATE conversations SET words = NULL")
    assert titles(db, "slots") == ["Old Slots"]


def test_another_title_moves_nothing(db: Database) -> None:
    first, second = create(db, "ann"), create(db, "ann")
    changed = update(db, first, title="new", pinned=False, metadata={"k": "v"})
    assert (changed.title, changed.metadata, changed.updated) == ("new", {"k": "v"}, first.updated)
    assert [c.id for c in listed(db, "ann", 9)] == [second.id, first.id]


def test_nothing_is_left_of_what_was_deleted(db: Database) -> None:
    made, other = create(db, "ann"), create(db, "ann")
    for one in (made, other):
        add_items(db, one, [item("a")])
    delete_item(db, made, "x")
    delete(db, made)
    assert get(db, made.id, "ann") is None
    assert [link.id for link in links(db, other)] == ["a"]
    for table in ("entries", "hidden"):
        counted = f"SELECT count(*) FROM {table} WHERE conversation = ?"
        assert db.value(counted, (made.seq,)) == 0


def test_a_preview_is_one_short_line() -> None:
    assert preview_of(" a\n\tb ") == "a b"
    assert preview_of(" \n ") is None
    long = preview_of("word " * 1000)
    assert long is not None
    assert len(long) <= PREVIEW
    assert long.endswith("word…")


def test_damage_is_an_error(db: Database) -> None:
    made = create(db, "ann")
    db.run("UPDATE conversations SET metadata = ?", (b"\xff",))
    with pytest.raises(StorageError) as caught:
        get(db, made.id, "ann")
    assert caught.value.code == StorageError.DAMAGED


def test_chains_of_an_earlier_version_become_paths() -> None:
    with closing(apsw.Connection(":memory:")) as connection:
        migrate(connection, OBJECTS[:4])
        db = SqliteDatabase(connection)
        for seq, id_ in ((1, "conv_1"), (2, "conv_2"), (3, "conv_3")):
            db.run(
                "INSERT INTO conversations (seq, id, owner, title, pinned, created, updated,"
                " metadata) VALUES (?, ?, 'ann', 'Title', 0, 1, 1, x'7b7d')",
                (seq, id_),
            )
        for conversation, id_ in ((1, "a"), (2, "b"), (1, "c"), (1, "d"), (2, "e")):
            db.run("INSERT INTO entries (conversation, id) VALUES (?, ?)", (conversation, id_))
        migrate(connection, OBJECTS)
        known = {one.id: one for one in listed(db, "ann", 9, words=["title"])}
        assert [known[f"conv_{n}"].head for n in (1, 2, 3)] == [4, 5, 0]
        assert [known[f"conv_{n}"].size for n in (1, 2, 3)] == [3, 2, 0]
        found = {id_: [link[:3] for link in links(db, one)] for id_, one in known.items()}
        assert found == {
            "conv_1": [(1, 0, "a"), (3, 1, "c"), (4, 3, "d")],
            "conv_2": [(2, 0, "b"), (5, 2, "e")],
            "conv_3": [],
        }
