"""The paths of conversations. What belongs to somebody else is answered as what does not exist."""

from __future__ import annotations

from typing import Any

import apsw
import msgspec
from msgspec import UNSET

from llcuda_net.config.users import view_of
from llcuda_net.errors import InvalidRequest
from llcuda_net.server.http.conversations import body as bodies
from llcuda_net.server.http.errors import HttpError
from llcuda_net.server.http.exchange import Exchange
from llcuda_net.server.http.openai import strict_json
from llcuda_net.server.http.openai.fields import Ignored
from llcuda_net.server.http.request import PAGING, PageQuery, page
from llcuda_net.server.http.responses import conversation as chains
from llcuda_net.server.http.responses.transcript import Item, shown
from llcuda_net.server.http.route import Route
from llcuda_net.storage.objects import conversations
from llcuda_net.storage.objects.conversations import Conversation

#: Entries of a page, where a request does not say, and at most.
DEFAULT_PAGE, LARGEST_PAGE = 20, 100


async def create(exchange: Exchange) -> None:
    """Begin a conversation, empty or with items."""
    ignored = bodies.rules(lenient=exchange.host.settings.lenient)
    data = exchange.request.body or b"{}"
    given, items = await strict_json.read(data, lambda value: bodies.read_new(value, ignored))
    exchange.drop_body()
    added = await bodies.added(exchange, items)
    owner = exchange.request.user.name
    made = await exchange.host.objects.write(
        lambda db: conversations.create(
            db,
            owner,
            title=given.title,
            pinned=bool(given.pinned),
            metadata=given.metadata,
            items=added,
        )
    )
    _respond(exchange, view(made), ignored.headers())


async def listed(exchange: Exchange) -> None:
    """The user's conversations: those that are pinned, then the last ones that were used."""
    request = exchange.request
    ignored = Ignored(lenient=exchange.host.settings.lenient)
    ignored.check_query(request.query, PAGING)
    wanted = PageQuery.of(request.query, default=DEFAULT_PAGE, most=LARGEST_PAGE)
    if wanted.ascending:
        raise InvalidRequest("order of conversations is desc: the last that was used comes first")
    after = None
    if wanted.after is not None:
        after = await chains.named(exchange, wanted.after, "after")
    owner = request.user.name
    found = await exchange.host.objects.read(
        lambda db: conversations.listed(db, owner, wanted.limit + 1, after)
    )
    entries = [view(one) for one in found[: wanted.limit]]
    _respond(exchange, page(entries, more=len(found) > wanted.limit), ignored.headers())


async def show(exchange: Exchange) -> None:
    """One conversation, without its items."""
    _respond(exchange, view(await _named(exchange)))


async def change(exchange: Exchange) -> None:
    """Give a conversation another title or other metadata, pin it, or let it go."""
    ignored = bodies.rules(lenient=exchange.host.settings.lenient)
    given = await strict_json.read(
        exchange.request.body, lambda value: bodies.read_change(value, ignored)
    )
    exchange.drop_body()
    id_, owner = exchange.request.parameters["id"][:256], view_of(exchange.request.user)

    def write(db: apsw.Connection) -> Conversation | None:
        known = conversations.get(db, id_, owner)
        if known is None:
            return None
        return conversations.update(
            db,
            known,
            title=known.title if given.title is UNSET else given.title,
            pinned=given.pinned if isinstance(given.pinned, bool) else known.pinned,
            metadata=known.metadata if given.metadata is UNSET else given.metadata or {},
        )

    changed = await exchange.host.objects.write(write)
    _respond(exchange, view(changed or await _named(exchange)), ignored.headers())


async def delete(exchange: Exchange) -> None:
    """Forget a conversation; its responses stay."""
    found = await _named(exchange)
    await exchange.host.objects.write(lambda db: conversations.delete(db, found))
    _respond(exchange, {"id": found.id, "object": "conversation.deleted", "deleted": True})


async def list_items(exchange: Exchange) -> None:
    """The items of a conversation, in pages, the last one first."""
    query = exchange.request.query
    ignored = Ignored(lenient=exchange.host.settings.lenient)
    ignored.check_query(query, PAGING)
    wanted = PageQuery.of(query, default=DEFAULT_PAGE, most=LARGEST_PAGE)
    found = await chains.items_of(exchange, await _named(exchange))
    if not wanted.ascending:
        found.reverse()
    if wanted.after is not None:
        _, place = _find(found, wanted.after, "after")
        found = found[place + 1 :]
    entries = [shown(one) for one in found[: wanted.limit]]
    _respond(exchange, page(entries, more=len(found) > wanted.limit), ignored.headers())


async def add_items(exchange: Exchange) -> None:
    """Put items at the end of a conversation."""
    ignored = bodies.rules(lenient=exchange.host.settings.lenient)
    ignored.check_query(exchange.request.query)
    given = await strict_json.read(
        exchange.request.body, lambda value: bodies.read_items(value, ignored)
    )
    exchange.drop_body()
    found = await _named(exchange)
    added = await bodies.added(exchange, given)
    await exchange.host.objects.write(lambda db: conversations.add_items(db, found, added))
    _respond(exchange, page([shown(one) for one in added], more=False), ignored.headers())


async def show_item(exchange: Exchange) -> None:
    """One item of a conversation."""
    ignored = Ignored(lenient=exchange.host.settings.lenient)
    ignored.check_query(exchange.request.query)
    found = await chains.items_of(exchange, await _named(exchange))
    item, _ = _find(found, exchange.request.parameters["item"])
    _respond(exchange, shown(item), ignored.headers())


async def delete_item(exchange: Exchange) -> None:
    """Take an item out of a conversation; a response that it is of stays as it is."""
    conversation = await _named(exchange)
    found = await chains.items_of(exchange, conversation)
    item, _ = _find(found, exchange.request.parameters["item"])
    await exchange.host.objects.write(
        lambda db: conversations.delete_item(db, conversation, item["id"])
    )
    _respond(exchange, view(conversation))


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
    }


ROUTES = [
    Route("POST", "/v1/conversations", create),
    Route("GET", "/v1/conversations", listed),
    Route("GET", "/v1/conversations/{id}", show),
    Route("POST", "/v1/conversations/{id}", change),
    Route("DELETE", "/v1/conversations/{id}", delete),
    Route("GET", "/v1/conversations/{id}/items", list_items),
    Route("POST", "/v1/conversations/{id}/items", add_items),
    Route("GET", "/v1/conversations/{id}/items/{item}", show_item),
    Route("DELETE", "/v1/conversations/{id}/items/{item}", delete_item),
]


async def _named(exchange: Exchange) -> Conversation:
    return await chains.named(exchange, exchange.request.parameters["id"])


def _find(found: list[Item], id_: str, param: str | None = None) -> tuple[Item, int]:
    """An item, and its place.

    Raises:
        HttpError: there is none.
    """
    for place, item in enumerate(found):
        if item["id"] == id_:
            return item, place
    raise HttpError(
        404,
        f"there is no item {id_[:80]!r} in this conversation",
        param=param,
        code="item_not_found",
    )


def _respond(
    exchange: Exchange, document: dict[str, Any], headers: dict[str, str] | None = None
) -> None:
    exchange.respond(200, msgspec.json.encode(document), headers=headers or {})
