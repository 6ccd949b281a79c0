"""A conversation as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from llcuda_net.server.http.exchange import Exchange
from llcuda_net.storage.objects import entries
from llcuda_net.storage.objects.conversations import Conversation
from llcuda_net.storage.objects.interface import Database


def view(conversation: Conversation) -> dict[str, Any]:
    """A conversation as JSON values; times are in seconds since 1970."""
    return {
        "id": conversation.id,
        "object": "conversation",
        "created_at": conversation.created // 10**9,
        "metadata": conversation.metadata,
        "title": conversation.title,
        "pinned": conversation.pinned,
        "updated_at": conversation.updated // 10**9,
        "preview": conversation.preview,
        "entries": conversation.size,
    }


async def current(exchange: Exchange, found: Sequence[Conversation]) -> list[Conversation]:
    """Conversations without words of what was deleted elsewhere, such as by `results prune`.

    Raises:
        RequestError: what there is cannot be read.
    """
    # Items that clients added are no generations, and have other ids.
    of = {one.preview_of for one in found if one.preview_of and "_" not in one.preview_of}
    ids = [id_ for id_ in of if id_ is not None]
    there = await exchange.host.generations.states(ids, exchange.request.user) if ids else {}
    gone = [id_ for id_ in ids if id_ not in there]
    if not gone:
        return list(found)

    def write(db: Database) -> None:
        for id_ in gone:
            entries.forget_words(db, id_)

    await exchange.host.objects.write(write)
    return [replace(one, preview=None) if one.preview_of in gone else one for one in found]
