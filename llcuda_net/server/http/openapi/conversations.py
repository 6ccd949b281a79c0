"""What the routes of conversations take and give."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from llcuda_net.server.http.conversations import pages as tree
from llcuda_net.server.http.conversations.body import (
    MOST_SEARCHED,
    ConversationBody,
    ConversationChange,
    ItemsBody,
)
from llcuda_net.server.http.conversations.export import FORMATS, VERSIONS
from llcuda_net.server.http.conversations.routes import DEFAULT_PAGE, LARGEST_PAGE
from llcuda_net.server.http.openapi.answers import Block, Count, Page, Queued
from llcuda_net.server.http.openapi.operations import (
    IGNORED,
    MARKDOWN,
    RUNS,
    Operation,
    pages,
    query,
)
from llcuda_net.server.http.openapi.responses import ItemList, ResponseFailure


class ConversationFields(msgspec.Struct):
    """What there is to say of a conversation itself; what is from `title` on is our own."""

    id: str
    object: Literal["conversation"]
    created_at: int
    metadata: dict[str, str]
    title: str | None
    pinned: bool
    updated_at: int
    preview: str | None


class ConversationView(ConversationFields):
    """A conversation, without its items: of its entries, their number."""

    entries: int


class ConversationList(Page):
    """A page of conversations; the next one is that after `last_id`."""

    data: list[ConversationView]


class ResponsesGone(msgspec.Struct):
    """How many responses were deleted with a conversation, and how many another one has, too."""

    deleted: Count
    kept: Count


class ConversationDeleted(msgspec.Struct):
    """A conversation is forgotten."""

    id: str
    object: Literal["conversation.deleted"]
    deleted: Literal[True]
    responses: ResponsesGone | None = None


class ConversationEntry(msgspec.Struct):
    """A response of a conversation, or an item that a client added, and where it stands.

    `previous` is what it goes on from, and `versions` are all that go on from the same. Times are
    in seconds since 1970, `timings` in milliseconds by phase. An item has no member beside those
    of the first lines.
    """

    id: str
    object: Literal["conversation.entry"]
    type: Literal["response", "item"]
    previous: str | None
    versions: list[str]
    input: list[dict[str, Any]]
    output: list[dict[str, Any]]
    blocks: list[Block] | None = None
    generation: str | None = None
    created_at: float | None = None
    completed_at: float | None = None
    model: str | None = None
    status: str | None = None
    error: ResponseFailure | None = None
    incomplete_details: dict[str, Any] | None = None
    text: str | None = None
    reasoning: str | None = None
    tokens: Count | None = None
    tokens_per_second: float | None = None
    queue: Queued | None = None
    usage: dict[str, Any] | None = None
    timings: dict[str, float] | None = None
    instructions: str | None = None
    sampling: dict[str, Any] | None = None
    seed: int | None = None
    max_output_tokens: Count | None = None
    reasoning_effort: str | None = None
    logprobs: Count | None = None
    tools: list[dict[str, Any]] | None = None
    metadata: dict[str, str] | None = None


class EntryList(Page):
    """A page of what a conversation is made of; the next one is that after `last_id`."""

    data: list[ConversationEntry]
    conversation: ConversationView
    active: str | None


class ConversationExport(ConversationFields):
    """A conversation in a file."""

    active: str | None
    entries: list[ConversationEntry]


_SWITCH: dict[str, Any] = {"enum": ["true", "false"]}
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
        parameters=(
            *pages(DEFAULT_PAGE, LARGEST_PAGE, ("desc",)),
            query(
                "q",
                "those whose titles or first questions have all of these words, or parts of words",
                {"type": "string", "minLength": 1, "maxLength": MOST_SEARCHED},
            ),
            query("pinned", "those that are, or that are not", _SWITCH),
        ),
        errors=(404,),
        headers=IGNORED,
    ),
    ("GET", "/v1/conversations/{id}/responses"): Operation(
        "conversations",
        EntryList,
        parameters=(
            *pages(tree.DEFAULT_PAGE, tree.LARGEST_PAGE),
            query(
                "path",
                "active: those of the path to what was added last; the id of an entry: those of "
                "the path through that one; absent: all",
                {"type": "string"},
            ),
            query("render", "the answers as blocks of safe HTML, too", {"const": "html"}),
        ),
        errors=RUNS,
        headers={**IGNORED, "ETag": "what there was; with it in If-None-Match: 304 while it is so"},
    ),
    ("GET", "/v1/conversations/{id}/export"): Operation(
        "conversations",
        ConversationExport,
        contents={MARKDOWN: "what was said on the active path"},
        parameters=(
            query("format", "of the file", {"enum": [*FORMATS], "default": "markdown"}),
            query("versions", "all: not only of the active path", {"enum": [*VERSIONS]}),
        ),
        errors=(404,),
        headers={"Content-Disposition": "that it is a file, and its name"},
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
        "conversations",
        ConversationDeleted,
        parameters=(query("responses", "true: with its responses", _SWITCH),),
        errors=(404, 409),
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
