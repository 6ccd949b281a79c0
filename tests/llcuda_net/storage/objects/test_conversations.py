"""Conversations: their members, entries and order, and that nobody sees another's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import apsw
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llcuda_net.errors import InvalidRequest, StorageError
from llcuda_net.storage.objects import conversations
from llcuda_net.storage.objects.conversations import (
    Conversation,
    Entry,
    add_generation,
    add_items,
    create,
    delete,
    delete_item,
    entries,
    get,
    hidden,
    listed,
    update,
)
from llcuda_net.storage.objects.migrations import OBJECTS
from llcuda_net.storage.results.migrations import migrate


def opened() -> apsw.Connection:
    db = apsw.Connection(":memory:")
    migrate(db, OBJECTS)
    return db


@pytest.fixture
def db() -> Iterator[apsw.Connection]:
    with opened() as found:
        yield found


def item(id_: str) -> dict[str, Any]:
    return {"id": id_, "type": "message", "role": "user", "content": []}


def ids(db: apsw.Connection, conversation: Conversation) -> list[str]:
    return [one.id for one in entries(db, conversation)]


def test_what_was_created_is_found_by_its_owner_and_an_admin(db: apsw.Connection) -> None:
    made = create(db, "ann", title="t", pinned=True, metadata={"a": "b"}, items=[item("i1")])
    assert made.id.startswith("conv_")
    assert (made.title, made.pinned, made.metadata) == ("t", True, {"a": "b"})
    assert get(db, made.id, "ann") == get(db, made.id, None)
    assert get(db, made.id, "bob") is None
    assert get(db, "conv_0", "ann") is None
    assert entries(db, made) == [Entry("i1", item("i1"))]


def test_entries_keep_their_order_and_come_once(db: apsw.Connection) -> None:
    made = create(db, "ann")
    add_items(db, made, [item("a"), item("b")])
    add_generation(db, made, "g")
    add_items(db, made, [item("a"), item("c")])
    add_generation(db, made, "g")
    assert ids(db, made) == ["a", "b", "g", "c"]
    assert entries(db, made)[2].item is None
    add_generation(db, made, "h", b"basis")
    add_generation(db, made, "h", b"another")
    assert entries(db, made)[-1] == Entry("h", None, b"basis")


def test_an_item_that_was_added_is_deleted_and_one_of_a_generation_hidden(
    db: apsw.Connection,
) -> None:
    made = create(db, "ann", items=[item("a")])
    add_generation(db, made, "g")
    delete_item(db, made, "a")
    delete_item(db, made, "msg_g_0")
    delete_item(db, made, "msg_g_0")
    assert ids(db, made) == ["g"]
    assert hidden(db, made) == {"msg_g_0"}
    delete_item(db, made, "g")  # the id of a generation is none of an item
    assert ids(db, made) == ["g"]


def test_what_is_pinned_comes_first_and_then_the_last_that_was_used(db: apsw.Connection) -> None:
    one, two, three = (create(db, "ann", title=str(i)) for i in range(3))
    create(db, "bob")
    add_items(db, one, [item("a")])
    update(db, two, title="2", pinned=True, metadata={})
    assert [c.id for c in listed(db, "ann", 9)] == [two.id, one.id, three.id]


@given(pinned=st.lists(st.booleans(), max_size=9), page=st.integers(1, 4))
def test_pages_hold_each_once(pinned: list[bool], page: int) -> None:
    with opened() as db:
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


def test_another_title_moves_nothing(db: apsw.Connection) -> None:
    first, second = create(db, "ann"), create(db, "ann")
    changed = update(db, first, title="new", pinned=False, metadata={"k": "v"})
    assert (changed.title, changed.metadata, changed.updated) == ("new", {"k": "v"}, first.updated)
    assert [c.id for c in listed(db, "ann", 9)] == [second.id, first.id]


def test_nothing_is_left_of_what_was_deleted(db: apsw.Connection) -> None:
    made, other = create(db, "ann", items=[item("a")]), create(db, "ann", items=[item("a")])
    delete_item(db, made, "x")
    delete(db, made)
    assert get(db, made.id, "ann") is None
    assert ids(db, other) == ["a"]
    for table in ("entries", "hidden"):
        counted = f"SELECT count(*) FROM {table} WHERE conversation = ?"
        assert db.execute(counted, (made.seq,)).get == 0


def test_it_has_a_bound(db: apsw.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversations, "MOST_ENTRIES", 2)
    made = create(db, "ann", items=[item("a"), item("b")])
    add_items(db, made, [item("b")])
    with pytest.raises(InvalidRequest, match="at most 2"):
        add_generation(db, made, "g")


def test_damage_is_an_error(db: apsw.Connection) -> None:
    made = create(db, "ann", items=[item("a")])
    db.execute("UPDATE entries SET item = x'ff'")
    with pytest.raises(StorageError) as caught:
        entries(db, made)
    assert caught.value.code == StorageError.DAMAGED
