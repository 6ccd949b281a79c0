"""Conversations in a database in memory."""

from __future__ import annotations

from typing import Any

import apsw

from llcuda_net.storage.objects.migrations import OBJECTS
from llcuda_net.storage.results.migrations import migrate


def opened() -> apsw.Connection:
    """A database of objects, empty."""
    db = apsw.Connection(":memory:")
    migrate(db, OBJECTS)
    return db


def item(id_: str, text: str = "") -> dict[str, Any]:
    """What a user said."""
    content = [{"type": "input_text", "text": text}] if text else []
    return {"id": id_, "type": "message", "role": "user", "content": content}
