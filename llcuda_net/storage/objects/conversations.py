"""Conversations: their members, and their list. What they are made of is in entries.py."""

from __future__ import annotations

import time
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import msgspec

from llcuda_net.errors import StorageError
from llcuda_net.storage.objects.feed import CHANGED, CREATED, DELETED
from llcuda_net.storage.objects.interface import Database

#: Begins the id of every conversation.
PREFIX = "conv_"
#: Characters of a preview.
PREVIEW = 100

_COLUMNS = (
    "seq, id, owner, title, pinned, created, updated, metadata, head, size, preview, preview_of"
)


@dataclass(frozen=True, slots=True)
class Conversation:
    """A conversation, without what it is made of.

    Attributes:
        seq: its number in the store.
        title: None where nobody has given it one.
        created, updated: Unix times in nanoseconds.
        metadata: up to 16 texts by name, of the client.
        head: the number of the entry with which its active path ends; 0: it has none.
        size: how many entries it has.
        preview: the first words of its first question; None: it has none.
        preview_of: the id of the item or the generation that they are of.
    """

    seq: int
    id: str
    owner: str
    title: str | None
    pinned: bool
    created: int
    updated: int
    metadata: dict[str, str]
    head: int = 0
    size: int = 0
    preview: str | None = None
    preview_of: str | None = None


def new_id() -> str:
    """An id that no conversation has."""
    return f"{PREFIX}{uuid4().hex}"


def create(
    db: Database,
    owner: str,
    *,
    id_: str | None = None,
    title: str | None = None,
    pinned: bool = False,
    metadata: Mapping[str, str] | None = None,
) -> Conversation:
    """A new conversation, without entries; one that is there already stays as it is.

    Args:
        id_: one of `new_id`.
    """
    now = time.time_ns()
    id_ = new_id() if id_ is None else id_
    db.run(
        "INSERT INTO conversations (id, owner, title, pinned, created, updated, metadata, words)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING",
        (id_, owner, title, pinned, now, now, msgspec.json.encode(metadata or {}), _words(title)),
    )
    db.changed(owner, id_, CREATED)
    found = get(db, id_, owner)
    assert found is not None
    return found


def get(
    db: Database, id_: str, owner: str | None, *, to_change: bool = False
) -> Conversation | None:
    """A conversation of this owner, of anybody where that is None; None: there is none.

    Args:
        to_change: nobody else changes it until the end of the transaction.
    """
    found = _of(db, "id = ?", id_)
    if found is None or owner not in (None, found.owner):
        return None
    if to_change and db.shared:
        db.lock("conversations", found.seq)
        return _of(db, "seq = ?", found.seq)  # as it is now
    return found


def listed(
    db: Database,
    owner: str,
    limit: int,
    after: Conversation | None = None,
    *,
    words: Collection[str] = (),
    pinned: bool | None = None,
) -> list[Conversation]:
    """An owner's conversations: those that are pinned first, then the last that were used.

    Args:
        after: continue behind this one.
        words: of those that have each of these in their titles or previews, in any case.
        pinned: of those that are, or that are not; None: of all.
    """
    where = "owner = ?"
    values: list[str | int] = [owner]
    if pinned is not None:
        where += " AND pinned = ?"
        values.append(pinned)
    if after is not None:
        where += " AND (pinned, updated, seq) < (?, ?, ?)"
        values += [after.pinned, after.updated, after.seq]
    for word in words:
        # Of an earlier version it has no words: there is its title.
        where += f" AND {db.contains('coalesce(words, lower(title))')}"
        values.append(folded(word))
    found = db.rows(
        f"SELECT {_COLUMNS} FROM conversations WHERE {where}"
        " ORDER BY pinned DESC, updated DESC, seq DESC LIMIT ?",
        (*values, limit),
    )
    return [_conversation(row) for row in found]


def update(
    db: Database,
    conversation: Conversation,
    *,
    title: str | None,
    pinned: bool,
    metadata: Mapping[str, str],
) -> Conversation:
    """The conversation with other members; it goes to no other place in the list by it."""
    db.run(
        "UPDATE conversations SET title = ?, pinned = ?, metadata = ? WHERE seq = ?",
        (title, pinned, msgspec.json.encode(metadata), conversation.seq),
    )
    _note_words(db, conversation)
    db.changed(conversation.owner, conversation.id, CHANGED)
    found = _of(db, "seq = ?", conversation.seq)
    return conversation if found is None else found


def delete(db: Database, conversation: Conversation) -> None:
    """Delete a conversation; the generations in it stay."""
    db.lock("conversations", conversation.seq)  # who adds to it has that, too
    for table in ("entries", "hidden"):
        db.run(f"DELETE FROM {table} WHERE conversation = ?", (conversation.seq,))
    db.run("DELETE FROM conversations WHERE seq = ?", (conversation.seq,))
    db.changed(conversation.owner, conversation.id, DELETED)


def set_preview(
    db: Database, conversation: Conversation, text: str | None, entry: str | None
) -> None:
    """What lists show of it where it has no title.

    Args:
        text: None: it has none any more, and the next question gives it one.
        entry: the one that the text is of.
    """
    db.run(
        "UPDATE conversations SET preview = ?, preview_of = ? WHERE seq = ?",
        (text, entry, conversation.seq),
    )
    _note_words(db, conversation)


def previewed(db: Database, entry: str) -> list[Conversation]:
    """The conversations whose previews are of an entry."""
    found = db.rows(
        f"SELECT {_COLUMNS} FROM conversations WHERE preview_of = ? AND seq IN"
        " (SELECT conversation FROM entries WHERE id = ? AND item IS NULL) ORDER BY seq",
        (entry, entry),
    )
    return [_conversation(row) for row in found]


def preview_of(text: str) -> str | None:
    """The first words of a text on one line; None: it has no words."""
    line = " ".join(text[: 8 * PREVIEW].split())
    if len(line) > PREVIEW:
        line = f"{line[: PREVIEW - 1].rstrip()}…"
    return line or None


def folded(text: str) -> str:
    """A text without case and accents."""
    plain = unicodedata.normalize("NFKD", text.casefold())
    return "".join(one for one in plain if not unicodedata.combining(one))


def _words(*texts: str | None) -> str:
    return folded("\n".join(text for text in texts if text is not None))


def _note_words(db: Database, conversation: Conversation) -> None:
    """Of the title and the preview as they are now."""
    for texts in db.rows(
        "SELECT title, preview FROM conversations WHERE seq = ?", (conversation.seq,)
    ):
        db.run(
            "UPDATE conversations SET words = ? WHERE seq = ?", (_words(*texts), conversation.seq)
        )


def _of(db: Database, where: str, value: int | str) -> Conversation | None:
    found = db.rows(f"SELECT {_COLUMNS} FROM conversations WHERE {where}", (value,))
    return next((_conversation(row) for row in found), None)


def _conversation(row: Sequence[Any]) -> Conversation:
    seq, id_, owner, title, pinned, created, updated, metadata, *rest = row
    return Conversation(
        seq, id_, owner, title, bool(pinned), created, updated, decoded(metadata), *rest
    )


def decoded(data: bytes) -> dict[str, Any]:
    """A JSON object of a row.

    Raises:
        StorageError: it is damaged.
    """
    try:
        return msgspec.json.decode(data, type=dict[str, Any])
    except msgspec.MsgspecError as error:
        raise StorageError(f"a conversation is damaged: {error}", StorageError.DAMAGED) from error
