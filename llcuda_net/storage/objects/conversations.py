"""Conversations: items that were added, and generations whose items stand between them, in order.

A generation is named, and not copied: what it answered is where results are. Where that was
deleted or erased, its items are gone from the conversation, too.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import apsw
import msgspec

from llcuda_net.errors import InvalidRequest, StorageError
from llcuda_net.storage.results.connection import rows

#: Begins the id of every conversation.
PREFIX = "conv_"
#: Most entries of a conversation.
MOST_ENTRIES = 10_000

_COLUMNS = "seq, id, owner, title, pinned, created, updated, metadata"


@dataclass(frozen=True, slots=True)
class Conversation:
    """A conversation, without what it is made of.

    Attributes:
        seq: its number in the store.
        title: None where nobody has given it one.
        created, updated: Unix times in nanoseconds.
        metadata: up to 16 texts by name, of the client.
    """

    seq: int
    id: str
    owner: str
    title: str | None
    pinned: bool
    created: int
    updated: int
    metadata: dict[str, str]


@dataclass(frozen=True, slots=True)
class Entry:
    """A part of a conversation.

    Attributes:
        id: of the item, or of the generation.
        item: None where it is a generation.
        basis: of a generation: names what it went on from; None: that is not known.
    """

    id: str
    item: dict[str, Any] | None
    basis: bytes | None = None


def create(
    db: apsw.Connection,
    owner: str,
    *,
    title: str | None = None,
    pinned: bool = False,
    metadata: Mapping[str, str] | None = None,
    items: Sequence[dict[str, Any]] = (),
) -> Conversation:
    """A new conversation.

    Args:
        items: its first ones, each with its id.

    Raises:
        InvalidRequest: there are too many items.
    """
    now = time.time_ns()
    seq = db.execute(
        "INSERT INTO conversations (id, owner, title, pinned, created, updated, metadata)"
        " VALUES (?, ?, ?, ?, ?, ?, ?) RETURNING seq",
        (
            f"{PREFIX}{uuid4().hex}",
            owner,
            title,
            pinned,
            now,
            now,
            msgspec.json.encode(metadata or {}),
        ),
    ).get
    assert isinstance(seq, int)
    found = _of(db, "seq = ?", seq)
    assert found is not None
    add_items(db, found, items)
    return found


def get(db: apsw.Connection, id_: str, owner: str | None) -> Conversation | None:
    """A conversation of this owner, of anybody where that is None; None: there is none."""
    found = _of(db, "id = ?", id_)
    return found if found is not None and owner in (None, found.owner) else None


def listed(
    db: apsw.Connection, owner: str, limit: int, after: Conversation | None = None
) -> list[Conversation]:
    """An owner's conversations: those that are pinned first, then the last that were used.

    Args:
        after: continue behind this one.
    """
    behind = ""
    values: list[str | int] = [owner]
    if after is not None:
        behind = " AND (pinned, updated, seq) < (?, ?, ?)"
        values += [after.pinned, after.updated, after.seq]
    found = rows(
        db,
        f"SELECT {_COLUMNS} FROM conversations WHERE owner = ?{behind}"
        " ORDER BY pinned DESC, updated DESC, seq DESC LIMIT ?",
        (*values, limit),
    )
    return [_conversation(row) for row in found]


def update(
    db: apsw.Connection,
    conversation: Conversation,
    *,
    title: str | None,
    pinned: bool,
    metadata: Mapping[str, str],
) -> Conversation:
    """The conversation with other members; it goes to no other place in the list by it."""
    db.execute(
        "UPDATE conversations SET title = ?, pinned = ?, metadata = ? WHERE seq = ?",
        (title, pinned, msgspec.json.encode(metadata), conversation.seq),
    )
    found = _of(db, "seq = ?", conversation.seq)
    return conversation if found is None else found


def delete(db: apsw.Connection, conversation: Conversation) -> None:
    """Delete a conversation; the generations in it stay."""
    for table, column in (("entries", "conversation"), ("hidden", "conversation")):
        db.execute(f"DELETE FROM {table} WHERE {column} = ?", (conversation.seq,))
    db.execute("DELETE FROM conversations WHERE seq = ?", (conversation.seq,))


def add_items(
    db: apsw.Connection, conversation: Conversation, items: Sequence[dict[str, Any]]
) -> None:
    """Add items at the end; one that is there already, by its id, stays as it is.

    Raises:
        InvalidRequest: there would be too many.
    """
    _add(db, conversation, [(item["id"], msgspec.json.encode(item), None) for item in items])


def add_generation(
    db: apsw.Connection, conversation: Conversation, generation: str, basis: bytes | None = None
) -> None:
    """Add a generation at the end; one that is there already stays where, and as, it is.

    Args:
        basis: see Entry.

    Raises:
        InvalidRequest: there would be too many entries.
    """
    _add(db, conversation, [(generation, None, basis)])


def entries(db: apsw.Connection, conversation: Conversation) -> list[Entry]:
    """All entries in order, at most MOST_ENTRIES.

    Raises:
        StorageError: one is damaged.
    """
    found = rows(
        db,
        "SELECT id, item, basis FROM entries WHERE conversation = ? ORDER BY seq",
        (conversation.seq,),
    )
    return [Entry(id_, None if item is None else _json(item), basis) for id_, item, basis in found]


def hidden(db: apsw.Connection, conversation: Conversation) -> set[str]:
    """The items of generations that were deleted from a conversation."""
    found = rows(db, "SELECT item FROM hidden WHERE conversation = ?", (conversation.seq,))
    return {item for (item,) in found}


def delete_item(db: apsw.Connection, conversation: Conversation, item: str) -> None:
    """Delete an item that was added, or hide one of a generation."""
    db.execute(
        "DELETE FROM entries WHERE conversation = ? AND id = ? AND item IS NOT NULL",
        (conversation.seq, item),
    )
    if not db.changes():
        db.execute(
            "INSERT OR IGNORE INTO hidden (conversation, item) VALUES (?, ?)",
            (conversation.seq, item),
        )


def _add(
    db: apsw.Connection,
    conversation: Conversation,
    added: Sequence[tuple[str, bytes | None, bytes | None]],
) -> None:
    for id_, item, basis in added:
        db.execute(
            "INSERT OR IGNORE INTO entries (conversation, id, item, basis) VALUES (?, ?, ?, ?)",
            (conversation.seq, id_, item, basis),
        )
    count = db.execute(
        "SELECT count(*) FROM entries WHERE conversation = ?", (conversation.seq,)
    ).get
    if isinstance(count, int) and count > MOST_ENTRIES:
        raise InvalidRequest(
            f"a conversation has at most {MOST_ENTRIES} entries: begin another one"
        )
    if added:
        db.execute(
            "UPDATE conversations SET updated = max(updated + 1, ?) WHERE seq = ?",
            (time.time_ns(), conversation.seq),
        )


def _of(db: apsw.Connection, where: str, value: int | str) -> Conversation | None:
    found = rows(db, f"SELECT {_COLUMNS} FROM conversations WHERE {where}", (value,))
    return next((_conversation(row) for row in found), None)


def _conversation(row: Sequence[Any]) -> Conversation:
    seq, id_, owner, title, pinned, created, updated, metadata = row
    return Conversation(seq, id_, owner, title, bool(pinned), created, updated, _json(metadata))


def _json(data: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(data, type=dict[str, Any])
    except msgspec.MsgspecError as error:
        raise StorageError(f"a conversation is damaged: {error}", StorageError.DAMAGED) from error
