"""The bodies of requests about conversations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any
from uuid import uuid4

import msgspec
from msgspec import UNSET, Meta, UnsetType

from llcuda_net.errors import InvalidRequest
from llcuda_net.server.http.exchange import Exchange
from llcuda_net.server.http.openai.bodies import Metadata, convert
from llcuda_net.server.http.openai.fields import FieldRules, Ignored
from llcuda_net.server.http.responses import earlier, items
from llcuda_net.server.http.responses.items import Input
from llcuda_net.server.http.responses.transcript import Item, prefix_of

#: Most items that a request adds, as OpenAI's API has it.
MOST_ADDED = 20
#: Characters of a search for conversations.
MOST_SEARCHED = 256

_Title = Annotated[str, Meta(max_length=256)]

_RULES = FieldRules({}, {}, {})


class ConversationBody(msgspec.Struct, kw_only=True):
    """The body of POST /v1/conversations.

    Attributes:
        items: the first ones; see `input` of a response.
        metadata: texts by name.
        title, pinned: for lists; no field of OpenAI's.
    """

    items: Annotated[list[dict[str, Any]], Meta(max_length=MOST_ADDED)] | None = None
    metadata: Metadata | None = None
    title: _Title | None = None
    pinned: bool | None = None


class ConversationChange(msgspec.Struct, kw_only=True):
    """The body of POST /v1/conversations/{id}; what is absent stays as it is.

    Attributes:
        title: null: it has none any more.
        pinned: null: it stays as it is.
    """

    metadata: Metadata | UnsetType | None = UNSET
    title: _Title | UnsetType | None = UNSET
    pinned: bool | UnsetType | None = UNSET


class ItemsBody(msgspec.Struct, kw_only=True):
    """The body of POST /v1/conversations/{id}/items."""

    items: Annotated[list[dict[str, Any]], Meta(min_length=1, max_length=MOST_ADDED)]


def read_new(data: dict[str, Any], ignored: Ignored) -> tuple[ConversationBody, Input | None]:
    """What a new conversation is to be, and its first items.

    Raises:
        HttpError: the body is wrong.
    """
    body = convert(ignored.keep(data, ConversationBody.__struct_fields__), ConversationBody)
    return body, items.parse(body.items, ignored) if body.items else None


def read_change(data: dict[str, Any], ignored: Ignored) -> ConversationChange:
    """What is to be changed.

    Raises:
        HttpError: the body is wrong.
    """
    known = ConversationChange.__struct_fields__
    kept = ignored.keep(data, known)
    # A null that means something: the title goes, and so does the metadata.
    nulls = {name: None for name in ("title", "metadata") if name in data and data[name] is None}
    return convert({**kept, **nulls}, ConversationChange)


def read_items(data: dict[str, Any], ignored: Ignored) -> Input:
    """The items to add.

    Raises:
        HttpError: the body is wrong.
    """
    body = convert(ignored.keep(data, ItemsBody.__struct_fields__), ItemsBody)
    return items.parse(body.items, ignored)


def read_words(query: Mapping[str, str]) -> list[str]:
    """The words that a search asks for; none: there is no search.

    Raises:
        InvalidRequest: it has none, or too many.
    """
    text = query.get("q")
    if text is None:
        return []
    words = text.split()
    if not words or len(text) > MOST_SEARCHED:
        raise InvalidRequest(f"q has 1 to {MOST_SEARCHED} characters, and a word")
    return words


def read_pinned(query: Mapping[str, str]) -> bool | None:
    """Whether a list is of those that are pinned, or of the others; None: of all.

    Raises:
        InvalidRequest: it is neither true nor false.
    """
    text = query.get("pinned")
    if text not in (None, "true", "false"):
        raise InvalidRequest(f"pinned is true or false, not {text[:60]!r}")
    return None if text is None else text == "true"


def rules(*, lenient: bool) -> Ignored:
    """What drops the fields that are ignored."""
    return Ignored(lenient=lenient, rules=_RULES)


async def added(exchange: Exchange, given: Input | None) -> list[Item]:
    """Items as they are kept, each with an id of its own.

    Raises:
        HttpError: one refers to what is not there.
    """
    if given is None:
        return []
    found = await earlier.resolved(exchange, given)
    return [
        {"id": f"{prefix_of(item)}_{uuid4().hex}", **item, "status": "completed"}
        for item in found.items
    ]
