"""A conversation as JSON."""

from __future__ import annotations

from typing import Any

from llcuda_net.storage.objects.conversations import Conversation


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
