"""What a conversation is made of: a tree of entries.

An entry is an item that a client added, or a generation: what was asked with it and what it
answered stand there. Each goes on from another one, its parent, or begins; several may go on from
the same one, as versions of what was asked or answered. A path leads from an entry that begins to
any other one. The active path is that to the head: the entry that was added last.

A generation is named, and not copied: what it answered is where results are. Where that was
deleted or erased, its items are gone from the conversation, too; what went on from it stays.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec

from llcuda_net.errors import InvalidRequest
from llcuda_net.storage.objects.conversations import (
    Conversation,
    decoded,
    get,
    preview_of,
    previewed,
    set_preview,
)
from llcuda_net.storage.objects.feed import ADDED, CHANGED
from llcuda_net.storage.objects.interface import Database

#: Most entries of a conversation.
MOST_ENTRIES = 10_000
#: What entries that begin have in place of a parent.
ROOT = 0

_COLUMNS = "e.seq, e.parent, e.id, e.item, e.basis"


@dataclass(frozen=True, slots=True)
class Entry:
    """A part of a conversation.

    Attributes:
        seq: its number: greater than those of all that were added before.
        parent: the number of the entry that it goes on from; ROOT: it begins.
        id: of the item, or of the generation.
        item: None where it is a generation.
        basis: of a generation: names what it went on from; None: that is not known.
    """

    seq: int
    parent: int
    id: str
    item: dict[str, Any] | None
    basis: bytes | None = None


class Link(NamedTuple):
    """Where an entry is in the tree, without what it is."""

    seq: int
    parent: int
    id: str
    is_item: bool


def add_items(db: Database, conversation: Conversation, items: Sequence[dict[str, Any]]) -> None:
    """Add items at the end of the active path, each with its id, which no entry has yet.

    Raises:
        InvalidRequest: there would be too many entries, or the conversation was deleted.
    """
    _lock(db, conversation)
    for one in items:
        _add(db, conversation, None, one["id"], item=msgspec.json.encode(one))
        if one.get("role") == "user":
            _preview(db, conversation, _text_of(one), one["id"])
    db.changed(conversation.owner, conversation.id, ADDED)


def add_generation(
    db: Database,
    conversation: Conversation,
    generation: str,
    *,
    parent: int | None = None,
    basis: bytes | None = None,
    question: str = "",
) -> int:
    """Add a generation; one that is there already stays where, and as, it is.

    Args:
        parent: the entry that it goes on from; None: that at the end of the active path.
        basis: see Entry.
        question: what was asked with it.

    Returns:
        Its number.

    Raises:
        InvalidRequest: there would be too many entries, or the conversation or the parent was
            deleted.
    """
    _lock(db, conversation)
    seq = _add(db, conversation, parent, generation, basis=basis)
    _preview(db, conversation, question, generation)
    db.changed(conversation.owner, conversation.id, ADDED)
    return seq


def path(db: Database, conversation: Conversation, end: int | None = None) -> list[Entry]:
    """The entries from one that begins to this one.

    Args:
        end: its number; None: that of the head.

    Raises:
        StorageError: one is damaged.
    """
    # A parent is older, so no damage makes it walk in circles.
    found = db.rows(
        f"""
        WITH RECURSIVE e AS (
            SELECT * FROM entries WHERE seq = ? AND conversation = ?
            UNION ALL
            SELECT before.* FROM e JOIN entries AS before ON before.seq = e.parent
            WHERE before.conversation = e.conversation AND before.seq < e.seq
        )
        SELECT {_COLUMNS} FROM e ORDER BY seq
        """,
        (_head(db, conversation) if end is None else end, conversation.seq),
    )
    return [_entry(row) for row in found]


def links(db: Database, conversation: Conversation) -> list[Link]:
    """Where all entries are in the tree, in the order in which they were added."""
    found = db.rows(
        "SELECT seq, parent, id, item IS NOT NULL FROM entries WHERE conversation = ? ORDER BY seq",
        (conversation.seq,),
    )
    return [Link(seq, parent, id_, bool(is_item)) for seq, parent, id_, is_item in found]


def find(db: Database, conversation: Conversation, id_: str) -> Entry | None:
    """The entry with this id; None: there is none.

    Raises:
        StorageError: it is damaged.
    """
    found = db.rows(
        f"SELECT {_COLUMNS} FROM entries AS e WHERE conversation = ? AND id = ?",
        (conversation.seq, id_),
    )
    return next((_entry(row) for row in found), None)


def some(db: Database, seqs: Collection[int]) -> list[Entry]:
    """The entries with these numbers, in the order in which they were added.

    Raises:
        StorageError: one is damaged.
    """
    where, values = db.among("seq", seqs)
    found = db.rows(f"SELECT {_COLUMNS} FROM entries AS e WHERE {where} ORDER BY seq", (values,))
    return [_entry(row) for row in found]


def conversations_of(
    db: Database, generations: Collection[str], owner: str | None
) -> Mapping[str, str]:
    """By generation, the conversation of this owner (None: of anybody) that it came into first."""
    # From the generations to their conversations: an owner may have many more of these.
    where, values = db.among("id", generations)
    found = db.rows(
        f"SELECT seq, id, conversation FROM entries WHERE item IS NULL AND {where}", (values,)
    )
    where, values = db.among("seq", {conversation for _, _, conversation in found})
    mine = "" if owner is None else " AND owner = ?"
    named = dict(
        db.rows(
            f"SELECT seq, id FROM conversations WHERE {where}{mine}",
            (values,) if owner is None else (values, owner),
        )
    )
    return {
        id_: named[conversation]
        for _, id_, conversation in sorted(found, reverse=True)
        if conversation in named
    }


def elsewhere(db: Database, conversation: Conversation, generations: Collection[str]) -> set[str]:
    """Those of these generations that are in other conversations, too."""
    where, values = db.among("id", generations)
    found = db.rows(
        f"SELECT id FROM entries WHERE item IS NULL AND conversation != ? AND {where}",
        (conversation.seq, values),
    )
    return {id_ for (id_,) in found}


def hidden(db: Database, conversation: Conversation) -> set[str]:
    """The items of generations that were deleted from a conversation."""
    found = db.rows("SELECT item FROM hidden WHERE conversation = ?", (conversation.seq,))
    return {item for (item,) in found}


def delete_item(db: Database, conversation: Conversation, item: str) -> None:
    """Delete an item that was added, or hide one of a generation.

    What went on from it goes on from what it went on from.
    """
    if not db.lock("conversations", conversation.seq):
        return
    found = db.rows(
        "DELETE FROM entries WHERE conversation = ? AND id = ? AND item IS NOT NULL"
        " RETURNING seq, parent",
        (conversation.seq, item),
    )
    for seq, parent in found:
        db.run(
            "UPDATE entries SET parent = ? WHERE conversation = ? AND parent = ?",
            (parent, conversation.seq, seq),
        )
        db.run(
            "UPDATE conversations SET size = size - 1,"
            " head = CASE head WHEN ? THEN ? ELSE head END WHERE seq = ?",
            (seq, parent, conversation.seq),
        )
    if not found:
        db.run(
            "INSERT INTO hidden (conversation, item) VALUES (?, ?) ON CONFLICT DO NOTHING",
            (conversation.seq, item),
        )
    _forget_preview(db, conversation, item)
    db.changed(conversation.owner, conversation.id, CHANGED)


def forget_words(db: Database, generation: str) -> None:
    """A generation was deleted: no conversation shows words of it any more."""
    for one in previewed(db, generation):
        now = get(db, one.id, None, to_change=True)
        if now is not None and now.preview_of == generation:
            set_preview(db, now, None, None)
            db.changed(now.owner, now.id, CHANGED)


def _add(
    db: Database,
    conversation: Conversation,
    parent: int | None,
    id_: str,
    item: bytes | None = None,
    basis: bytes | None = None,
) -> int:
    """Add an entry, unless it is there; its number."""
    known = db.value(
        "SELECT seq FROM entries WHERE conversation = ? AND id = ?", (conversation.seq, id_)
    )
    if isinstance(known, int):
        return known
    at = _head(db, conversation) if parent is None else parent
    there = "SELECT 1 FROM entries WHERE seq = ? AND conversation = ?"
    if at != ROOT and db.value(there, (at, conversation.seq)) is None:
        raise InvalidRequest("what it goes on from was deleted from the conversation meanwhile")
    seq = db.value(
        "INSERT INTO entries (conversation, id, item, basis, parent) VALUES (?, ?, ?, ?, ?)"
        " RETURNING seq",
        (conversation.seq, id_, item, basis, at),
    )
    assert isinstance(seq, int)
    now = time.time_ns()
    size = db.value(
        "UPDATE conversations SET head = ?, size = size + 1,"
        " updated = CASE WHEN updated < ? THEN ? ELSE updated + 1 END"
        " WHERE seq = ? RETURNING size",
        (seq, now, now, conversation.seq),
    )
    if not isinstance(size, int):
        raise _gone()
    if size > MOST_ENTRIES:
        raise InvalidRequest(
            f"a conversation has at most {MOST_ENTRIES} entries: begin another one"
        )
    return seq


def _lock(db: Database, conversation: Conversation) -> None:
    """Nobody else changes the conversation, or adds to it, until the end of the transaction."""
    if not db.lock("conversations", conversation.seq):
        raise _gone()


def _head(db: Database, conversation: Conversation) -> int:
    head = db.value("SELECT head FROM conversations WHERE seq = ?", (conversation.seq,))
    if not isinstance(head, int):
        raise _gone()
    return head


def _gone() -> InvalidRequest:
    return InvalidRequest("the conversation was deleted meanwhile")


def _preview(db: Database, conversation: Conversation, text: str, entry: str) -> None:
    """Words for the list, where the conversation has none."""
    words = preview_of(text)
    if words is not None:
        now = get(db, conversation.id, None)
        if now is not None and now.preview is None:
            set_preview(db, now, words, entry)


def _forget_preview(db: Database, conversation: Conversation, item: str) -> None:
    """An item was deleted: no words of it are shown any more."""
    now = get(db, conversation.id, None)
    of = None if now is None else now.preview_of
    # The id of an item of a generation has that of the generation in it.
    if now is not None and of is not None and of in item:
        set_preview(db, now, None, None)


def _text_of(item: Mapping[str, Any]) -> str:
    content = item.get("content")
    parts = content if isinstance(content, list) else []
    return " ".join(text for part in parts if isinstance(text := part.get("text"), str))


def _entry(row: Sequence[Any]) -> Entry:
    seq, parent, id_, item, basis = row
    return Entry(seq, parent, id_, None if item is None else decoded(item), basis)
