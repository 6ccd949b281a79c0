"""The paths of conversations. What belongs to somebody else is answered as what does not exist."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET

from llcuda_net.config.users import view_of
from llcuda_net.errors import InvalidRequest
from llcuda_net.server.changes import ADDED, CHANGED, CREATED
from llcuda_net.server.http.conversations import body as bodies
from llcuda_net.server.http.conversations import deletion, export, items, pages
from llcuda_net.server.http.conversations.view import current, view
from llcuda_net.server.http.errors import HttpError
from llcuda_net.server.http.exchange import Exchange
from llcuda_net.server.http.openai import strict_json
from llcuda_net.server.http.openai.fields import Ignored
from llcuda_net.server.http.request import PAGING, PageQuery, page
from llcuda_net.server.http.responses import conversation as chains
from llcuda_net.server.http.responses.transcript import Item, shown
from llcuda_net.server.http.route import Route
from llcuda_net.storage.objects import conversations, entries
from llcuda_net.storage.objects.conversations import Conversation
from llcuda_net.storage.objects.interface import Database

#: Entries of a page, where a request does not say, and at most.
DEFAULT_PAGE, LARGEST_PAGE = 20, 100


async def create(exchange: Exchange) -> None:
    """Begin a conversation, empty or with items."""
    ignored = bodies.rules(lenient=exchange.host.settings.lenient)
    data = exchange.request.body or b"{}"
    given, first = await strict_json.read(data, lambda value: bodies.read_new(value, ignored))
    exchange.drop_body()
    added = await bodies.added(exchange, first)
    owner, id_ = exchange.request.user.name, conversations.new_id()

    def write(db: Database) -> Conversation:
        made = conversations.create(
            db,
            owner,
            id_=id_,
            title=given.title,
            pinned=bool(given.pinned),
            metadata=given.metadata,
        )
        entries.add_items(db, made, added)
        return conversations.get(db, made.id, owner) or made

    made = await exchange.host.objects.write(write)
    exchange.host.changes.note(owner, made.id, CREATED)
    _respond(exchange, view(made), ignored.headers())


async def list_all(exchange: Exchange) -> None:
    """The user's conversations: those that are pinned, then the last ones that were used."""
    request = exchange.request
    ignored = Ignored(lenient=exchange.host.settings.lenient)
    ignored.check_query(request.query, (*PAGING, "q", "pinned"))
    wanted = PageQuery.of(request.query, default=DEFAULT_PAGE, most=LARGEST_PAGE)
    words = bodies.read_words(request.query)
    pinned = bodies.read_pinned(request.query)
    if wanted.ascending:
        raise InvalidRequest("order of conversations is desc: the last that was used comes first")
    after = None
    if wanted.after is not None:
        after = await chains.named(exchange, wanted.after, "after")
    owner = request.user.name
    found = await exchange.host.objects.read(
        lambda db: conversations.listed(
            db, owner, wanted.limit + 1, after, words=words, pinned=pinned
        )
    )
    listed = [view(one) for one in await current(exchange, found[: wanted.limit])]
    _respond(exchange, page(listed, more=len(found) > wanted.limit), ignored.headers())


async def show(exchange: Exchange) -> None:
    """One conversation, without its items."""
    (found,) = await current(exchange, [await _named(exchange)])
    _respond(exchange, view(found))


async def change(exchange: Exchange) -> None:
    """Give a conversation another title or other metadata, pin it, or let it go."""
    ignored = bodies.rules(lenient=exchange.host.settings.lenient)
    given = await strict_json.read(
        exchange.request.body, lambda value: bodies.read_change(value, ignored)
    )
    exchange.drop_body()
    id_, owner = exchange.request.parameters["id"][:256], view_of(exchange.request.user)

    def write(db: Database) -> Conversation | None:
        known = conversations.get(db, id_, owner, to_change=True)
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
    if changed is not None:
        exchange.host.changes.note(changed.owner, changed.id, CHANGED)
    _respond(exchange, view(changed or await _named(exchange)), ignored.headers())


async def list_items(exchange: Exchange) -> None:
    """The items of a conversation, in pages, the last one first."""
    query = exchange.request.query
    ignored = Ignored(lenient=exchange.host.settings.lenient)
    ignored.check_query(query, PAGING)
    wanted = PageQuery.of(query, default=DEFAULT_PAGE, most=LARGEST_PAGE)
    conversation = await _named(exchange)
    found = await items.page_of(exchange, conversation, wanted)
    if found is None:
        raise _no_item(wanted.after or "", "after")
    listed = [shown(one) for one in found[: wanted.limit]]
    _respond(exchange, page(listed, more=len(found) > wanted.limit), ignored.headers())


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
    async with exchange.host.objects.alone(found.id):
        await exchange.host.objects.write(lambda db: entries.add_items(db, found, added))
    exchange.host.changes.note(found.owner, found.id, ADDED)
    _respond(exchange, page([shown(one) for one in added], more=False), ignored.headers())


async def show_item(exchange: Exchange) -> None:
    """One item of a conversation."""
    ignored = Ignored(lenient=exchange.host.settings.lenient)
    ignored.check_query(exchange.request.query)
    item = await _item(exchange, await _named(exchange))
    _respond(exchange, shown(item), ignored.headers())


async def delete_item(exchange: Exchange) -> None:
    """Take an item out of a conversation; a response that it is of stays as it is."""
    conversation = await _named(exchange)
    item = await _item(exchange, conversation)
    async with exchange.host.objects.alone(conversation.id):
        await exchange.host.objects.write(
            lambda db: entries.delete_item(db, conversation, item["id"])
        )
    exchange.host.changes.note(conversation.owner, conversation.id, CHANGED)
    _respond(exchange, view(await _named(exchange)))


ROUTES = [
    Route("POST", "/v1/conversations", create),
    Route("GET", "/v1/conversations", list_all),
    Route("GET", "/v1/conversations/{id}", show),
    Route("POST", "/v1/conversations/{id}", change),
    Route("DELETE", "/v1/conversations/{id}", deletion.delete),
    Route("GET", "/v1/conversations/{id}/responses", pages.listed),
    Route("GET", "/v1/conversations/{id}/export", export.export),
    Route("GET", "/v1/conversations/{id}/items", list_items),
    Route("POST", "/v1/conversations/{id}/items", add_items),
    Route("GET", "/v1/conversations/{id}/items/{item}", show_item),
    Route("DELETE", "/v1/conversations/{id}/items/{item}", delete_item),
]


async def _named(exchange: Exchange) -> Conversation:
    return await chains.named(exchange, exchange.request.parameters["id"])


async def _item(exchange: Exchange, conversation: Conversation) -> Item:
    """The item that the path names.

    Raises:
        HttpError: there is none.
    """
    id_ = exchange.request.parameters["item"][:256]
    found = await items.item_of(exchange, conversation, id_)
    if found is None:
        raise _no_item(id_)
    return found


def _no_item(id_: str, param: str | None = None) -> HttpError:
    return HttpError(
        404,
        f"there is no item {id_[:80]!r} in this conversation",
        param=param,
        code="item_not_found",
    )


def _respond(
    exchange: Exchange, document: dict[str, Any], headers: dict[str, str] | None = None
) -> None:
    exchange.respond(200, msgspec.json.encode(document), headers=headers or {})
