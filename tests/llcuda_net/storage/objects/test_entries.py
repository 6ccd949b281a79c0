"""The tree of a conversation: paths in it, what is added where, and what becomes of the rest."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llcuda_net.errors import InvalidRequest, StorageError
from llcuda_net.storage.objects import entries
from llcuda_net.storage.objects.conversations import Conversation, create, delete, get
from llcuda_net.storage.objects.entries import (
    ROOT,
    Entry,
    Link,
    add_generation,
    add_items,
    conversations_of,
    delete_item,
    elsewhere,
    find,
    forget_words,
    hidden,
    links,
    path,
    some,
)
from llcuda_net.storage.objects.interface import Database
from tests.support.storage.conversations import item
from tests.support.storage.objects import Emptied


def ids(db: Database, conversation: Conversation, end: int | None = None) -> list[str]:
    return [one.id for one in path(db, conversation, end)]


def now(db: Database, conversation: Conversation) -> Conversation:
    found = get(db, conversation.id, None)
    assert found is not None
    return found


def test_entries_keep_their_order_and_come_once(db: Database) -> None:
    made = create(db, "ann")
    before = made.updated
    add_items(db, made, [item("a"), item("b")])
    g = add_generation(db, made, "g", basis=b"basis")
    add_items(db, made, [item("a"), item("c")])
    assert add_generation(db, made, "g", parent=ROOT, basis=b"another") == g
    assert ids(db, made) == ["a", "b", "g", "c"]
    assert find(db, made, "g") == Entry(g, g - 1, "g", None, b"basis")
    assert find(db, made, "h") is None
    assert links(db, made)[0] == Link(1, ROOT, "a", True)
    assert now(db, made).size == 4
    assert now(db, made).updated > before


def test_the_active_path_is_that_to_the_last_one(db: Database) -> None:
    made = create(db, "ann")
    add_items(db, made, [item("q")])
    a = add_generation(db, made, "a")
    add_generation(db, made, "a1")
    b = add_generation(db, made, "b", parent=1)  # beside a
    assert ids(db, made) == ["q", "b"]
    add_items(db, made, [item("x")])
    assert ids(db, made) == ["q", "b", "x"]
    c = add_generation(db, made, "c", parent=a)
    assert ids(db, made) == ["q", "a", "c"]
    assert ids(db, made, b) == ["q", "b"]
    add_generation(db, made, "other", parent=ROOT)
    assert ids(db, made) == ["other"]
    assert [one.id for one in some(db, {c, b})] == ["b", "c"]
    add_generation(db, made, "a")  # it is there: nothing moves
    assert ids(db, made) == ["other"]


def test_nothing_goes_on_from_what_is_not_there(db: Database) -> None:
    made, other = create(db, "ann"), create(db, "ann")
    a = add_generation(db, made, "a")
    for conversation, wrong in ((other, a), (made, 99)):
        with pytest.raises(InvalidRequest, match="deleted"):
            add_generation(db, conversation, "b", parent=wrong)
    assert path(db, other, a) == []
    delete(db, made)
    for parent in (None, ROOT):
        with pytest.raises(InvalidRequest, match="deleted"):
            add_generation(db, made, "b", parent=parent)
    with pytest.raises(InvalidRequest, match="deleted"):
        add_items(db, made, [item("i")])
    assert links(db, made) == []


def test_what_stood_behind_a_deleted_item_stands_behind_what_was_before_it(
    db: Database,
) -> None:
    made = create(db, "ann")
    add_items(db, made, [item("a"), item("b")])
    c, d = (add_generation(db, made, id_, parent=2) for id_ in "cd")
    delete_item(db, made, "b")
    assert ids(db, made, c) == ["a", "c"]
    assert ids(db, made, d) == ["a", "d"]
    delete_item(db, made, "a")
    assert ids(db, made, c) == ["c"]
    assert now(db, made).size == 2
    # The active path ends where it did, less what was deleted of it.
    add_items(db, made, [item("x")])
    delete_item(db, made, "x")
    assert ids(db, made) == ["d"]


def test_an_item_that_was_added_is_deleted_and_one_of_a_generation_hidden(
    db: Database,
) -> None:
    made = create(db, "ann")
    add_items(db, made, [item("a")])
    add_generation(db, made, "g")
    delete_item(db, made, "a")
    delete_item(db, made, "msg_g_0")
    delete_item(db, made, "msg_g_0")
    assert ids(db, made) == ["g"]
    assert hidden(db, made) == {"msg_g_0"}
    delete_item(db, made, "g")  # the id of a generation is none of an item
    assert ids(db, made) == ["g"]


@given(seed=st.integers(0, 10_000))
def test_paths_are_those_of_a_tree_whatever_is_deleted(emptied: Emptied, seed: int) -> None:
    chance = Random(seed)
    with emptied() as db:
        made, other = create(db, "ann"), create(db, "ann")
        parents: dict[str, str] = {"": ""}  # the model: by id
        head, seqs = "", {"": ROOT}
        for n in range(25):
            id_ = f"e{n}"
            does = chance.choice(["item", "end", "branch", "branch", "delete"])
            items = [one for one in parents if one.startswith("i")]
            if does == "item":
                id_ = f"i{n}"
                add_items(db, made, [item(id_)])
                parents[id_], head = head, id_
            elif does == "end":
                add_generation(db, made, id_)
                parents[id_], head = head, id_
            elif does == "branch":
                at = chance.choice([*parents])
                add_generation(db, made, id_, parent=seqs[at])
                parents[id_], head = at, id_
            elif items:
                gone = chance.choice(items)
                delete_item(db, made, gone)
                above = parents.pop(gone)
                parents = {one: above if of == gone else of for one, of in parents.items()}
                head = above if head == gone else head
            add_items(db, other, [item(f"o{n}")])
            seqs = {"": ROOT} | {link.id: link.seq for link in links(db, made)}
            assert seqs.keys() == parents.keys()
            assert now(db, made).size == len(parents) - 1
            assert now(db, made).head == seqs[head]
            for end in parents:
                wanted: list[str] = []
                while end:
                    wanted.insert(0, end)
                    end = parents[end]
                assert ids(db, made, seqs[wanted[-1]] if wanted else ROOT) == wanted


def test_the_first_question_is_what_lists_show(db: Database) -> None:
    made = create(db, "ann")
    add_generation(db, made, "g")
    assert now(db, made).preview is None
    add_generation(db, made, "h", question="What is  a\nslot?")
    add_items(db, made, [item("i", "Another")])
    assert now(db, made).preview == "What is a slot?"
    forget_words(db, "g")
    assert now(db, made).preview == "What is a slot?"
    forget_words(db, "h")  # it was deleted
    assert now(db, made).preview is None
    add_items(db, made, [item("j", "Why?"), item("k", "How?")])
    assert now(db, made).preview == "Why?"
    delete_item(db, made, "k")
    assert now(db, made).preview == "Why?"
    delete_item(db, made, "j")
    assert now(db, made).preview is None
    add_generation(db, made, "l", question="Who?")
    delete_item(db, made, "msg_h_i0")
    assert now(db, made).preview == "Who?"
    delete_item(db, made, "msg_l_i0")  # hidden, and so are its words
    assert now(db, made).preview is None


def test_the_conversation_of_a_generation_is_the_first_that_it_came_into(
    db: Database,
) -> None:
    first, second, of_bob = create(db, "ann"), create(db, "ann"), create(db, "bob")
    for one in (first, second, of_bob):
        add_generation(db, one, "g")
    add_generation(db, of_bob, "h")
    add_items(db, second, [item("i")])
    assert conversations_of(db, ["g", "h", "i", "j"], "ann") == {"g": first.id}
    assert conversations_of(db, ["g", "h"], None) == {"g": first.id, "h": of_bob.id}
    delete(db, first)
    assert conversations_of(db, ["g"], "ann") == {"g": second.id}
    assert elsewhere(db, second, ["g", "h", "i"]) == {"g", "h"}


def test_it_has_a_bound(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entries, "MOST_ENTRIES", 2)
    made = create(db, "ann")
    add_items(db, made, [item("a"), item("b")])
    add_items(db, made, [item("b")])
    with pytest.raises(InvalidRequest, match="at most 2"):
        add_generation(db, made, "g")


def test_no_damage_makes_a_path_endless(db: Database) -> None:
    made = create(db, "ann")
    add_items(db, made, [item("a"), item("b")])
    db.run("UPDATE entries SET parent = 2")
    assert ids(db, made) == ["b"]


def test_damage_is_an_error(db: Database) -> None:
    made = create(db, "ann")
    add_items(db, made, [item("a")])
    db.run("UPDATE entries SET item = ?", (b"\xff",))
    with pytest.raises(StorageError) as caught:
        path(db, made)
    assert caught.value.code == StorageError.DAMAGED
