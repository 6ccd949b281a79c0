"""What the routes of conversations take and give."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from llcuda_net.server.http.conversations.body import (
    ConversationBody,
    ConversationChange,
    ItemsBody,
)
from llcuda_net.server.http.conversations.routes import DEFAULT_PAGE, LARGEST_PAGE
from llcuda_net.server.http.openapi.answers import Page
from llcuda_net.server.http.openapi.operations import IGNORED, RUNS, Operation, pages
from llcuda_net.server.http.openapi.responses import ItemList


class ConversationView(msgspec.Struct):
    """A conversation, without its items; those from `title` on are our own."""

    id: str
    object: Literal["conversation"]
    created_at: int
    metadata: dict[str, str]
    title: str | None
    pinned: bool
    updated_at: int
    preview: str | None
    entries: int


class ConversationList(Page):
    """A page of conversations; the next one is that after `last_id`."""

    data: list[ConversationView]


class ConversationDeleted(msgspec.Struct):
    """A conversation is forgotten."""

    id: str
    object: Literal["conversation.deleted"]
    deleted: Literal[True]


_ITEM: dict[str, Any] = {
    "type": "message",
    "role": "user",
    "content": [{"type": "input_text", "text": "Hello"}],
}
#: By method and pattern.
OPERATIONS: dict[tuple[str, str], Operation] = {
    ("POST", "/v1/conversations"): Operation(
        "conversations",
        ConversationView,
        ConversationBody,
        example={"title": "Greetings", "items": [_ITEM]},
        optional=True,
        errors=RUNS,
        headers=IGNORED,
    ),
    ("GET", "/v1/conversations"): Operation(
        "conversations",
        ConversationList,
        parameters=pages(DEFAULT_PAGE, LARGEST_PAGE, ("desc",)),
        errors=(404,),
        headers=IGNORED,
    ),
    ("GET", "/v1/conversations/{id}"): Operation("conversations", ConversationView, errors=(404,)),
    ("POST", "/v1/conversations/{id}"): Operation(
        "conversations",
        ConversationView,
        ConversationChange,
        example={"pinned": True},
        errors=(404,),
        headers=IGNORED,
    ),
    ("DELETE", "/v1/conversations/{id}"): Operation(
        "conversations", ConversationDeleted, errors=(404,)
    ),
    ("GET", "/v1/conversations/{id}/items"): Operation(
        "conversations",
        ItemList,
        parameters=pages(DEFAULT_PAGE, LARGEST_PAGE),
        errors=RUNS,
        headers=IGNORED,
    ),
    ("POST", "/v1/conversations/{id}/items"): Operation(
        "conversations",
        ItemList,
        ItemsBody,
        example={"items": [_ITEM]},
        errors=RUNS,
        headers=IGNORED,
    ),
    ("GET", "/v1/conversations/{id}/items/{item}"): Operation(
        "conversations", dict, errors=RUNS, headers=IGNORED
    ),
    ("DELETE", "/v1/conversations/{id}/items/{item}"): Operation(
        "conversations", ConversationView, errors=RUNS
    ),
}
