"""A conversation as what a response goes on from, and is added to.

Its items are those that clients added, and those of its responses in their places: what was asked,
and what was answered. A response that failed is no part of it; one that was cancelled is, as far as
it came. A request that is sent again must mean what it meant, so the response that it began is not
part of what it goes on from.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from itertools import takewhile
from typing import Any

import msgspec

from llcuda_net.config.users import view_of
from llcuda_net.errors import RequestError, UnknownGeneration
from llcuda_net.generation.generation import Generation
from llcuda_net.generation.state import State
from llcuda_net.server.http.delivery.deliver import find, idempotency_key, last_event_id
from llcuda_net.server.http.delivery.event_ids import parse
from llcuda_net.server.http.delivery.leaving import is_retry, joinable
from llcuda_net.server.http.errors import HttpError
from llcuda_net.server.http.exchange import Exchange
from llcuda_net.server.http.openai.fields import Ignored
from llcuda_net.server.http.responses import earlier, items
from llcuda_net.server.http.responses.answers import response_of
from llcuda_net.server.http.responses.earlier import Before
from llcuda_net.server.http.responses.response_format import form_of
from llcuda_net.server.http.responses.transcript import Item, Message
from llcuda_net.storage.objects import conversations
from llcuda_net.storage.objects.conversations import Conversation, Entry

#: Ends of a generation by which it is no part of a conversation.
_FAILED = (State.FAILED, State.INTERRUPTED)


async def named(exchange: Exchange, id_: str, param: str | None = None) -> Conversation:
    """A conversation of the user.

    Args:
        param: the field that names it.

    Raises:
        HttpError: there is none.
    """
    owner = view_of(exchange.request.user)
    found = await exchange.host.objects.read(lambda db: conversations.get(db, id_[:256], owner))
    if found is None:
        raise HttpError(
            404,
            f"there is no conversation {id_[:80]!r} of yours",
            param=param,
            code="conversation_not_found",
        )
    return found


async def before(exchange: Exchange, conversation: Conversation, cut: str | None) -> Before:
    """What a response in a conversation goes on from.

    The request of its last response holds all that came before that. So it is read, and no earlier
    one is, unless something was deleted since.

    Args:
        cut: a generation; what comes from it on does not count.

    Raises:
        HttpError: its last response still runs.
    """
    hidden = await _hidden(exchange, conversation)
    entries = await _there(exchange, await _entries(exchange, conversation, cut))
    basis = _basis(entries, hidden)
    known, entries = await _shortened(exchange, entries, hidden)
    listed = await _listed(exchange, entries, hidden, running=False)
    if not listed:
        return Before(known, basis=basis)
    found = items.parse([one for one in listed if not _half(one)], Ignored(lenient=True))
    messages = [one for one in found.messages if one is not None]
    return Before(items.together(known, messages), basis=basis)


async def _there(exchange: Exchange, entries: list[Entry]) -> list[Entry]:
    """The entries that are part of a conversation: no response that was deleted, or has failed.

    Raises:
        HttpError: one still runs.
    """
    generations = [one.id for one in entries if one.item is None]
    states = await exchange.host.states(generations, exchange.request.user)
    for id_ in generations:
        if states.get(id_) in (State.QUEUED, State.RUNNING):
            raise _locked(id_)
    return [
        one
        for one in entries
        if one.item is not None or (one.id in states and states[one.id] not in _FAILED)
    ]


async def _shortened(
    exchange: Exchange, entries: list[Entry], hidden: set[str]
) -> tuple[list[Message], list[Entry]]:
    """The messages before the last response, and the entries from it on.

    None, and all entries, where the conversation is not what that response went on from.
    """
    last = max((i for i, one in enumerate(entries) if one.item is None), default=0)
    if not last:
        return [], entries
    generation = entries[last].id
    others = {one for one in hidden if generation not in one}
    if entries[last].basis != _basis(entries[:last], others):
        return [], entries
    try:
        known = await earlier.inherited(exchange, await find(exchange, generation))
    except UnknownGeneration:  # it has just been deleted
        known = None
    return ([], entries) if known is None else (known, entries[last:])


def _basis(entries: Iterable[Entry], hidden: Iterable[str]) -> bytes:
    """Names what is in a conversation."""
    named = [[one.id for one in entries], sorted(hidden)]
    return blake2b(msgspec.json.encode(named), digest_size=16).digest()


async def begun(exchange: Exchange, conversation: Conversation) -> Generation | None:
    """The response that the same request seems to have begun before; None: there is none."""
    request, host = exchange.request, exchange.host
    last, key = last_event_id(exchange), idempotency_key(request.headers)
    if last:
        return await find(exchange, next(iter(parse(last))))
    if key is not None:
        return await host.find_by_key(key, request.user.name)
    if not is_retry(request.headers):
        return None
    entries = await _entries(exchange, conversation)
    if not entries or entries[-1].item is not None:
        return None
    try:
        found = await find(exchange, entries[-1].id)
    except UnknownGeneration:
        return None
    return found if joinable(found) else None


async def add(
    exchange: Exchange, conversation: Conversation, generation: Generation, basis: bytes | None
) -> None:
    """Make a response part of a conversation; on the disk when this returns.

    Args:
        basis: names what it went on from, where that is known.

    Raises:
        RequestError: that cannot be; the response is cancelled.
    """
    try:
        await exchange.host.objects.write(
            lambda db: conversations.add_generation(db, conversation, generation.id, basis)
        )
    except RequestError:
        generation.cancel()
        raise


async def items_of(exchange: Exchange, conversation: Conversation) -> list[Item]:
    """All items of a conversation in order, each with its id.

    Responses that still run are there as far as they have come.
    """
    hidden = await _hidden(exchange, conversation)
    return await _listed(exchange, await _entries(exchange, conversation), hidden, running=True)


async def _listed(
    exchange: Exchange, entries: Iterable[Entry], hidden: set[str], *, running: bool
) -> list[Item]:
    """The items of entries, without those that were deleted.

    Raises:
        HttpError: a response still runs, and may not.
    """
    found: list[Item] = []
    for entry in entries:
        if entry.item is not None:
            found.append(entry.item)
        else:
            found += await _of_generation(exchange, entry.id, running=running)
    return [one for one in found if one["id"] not in hidden]


async def _hidden(exchange: Exchange, conversation: Conversation) -> set[str]:
    return await exchange.host.objects.read(lambda db: conversations.hidden(db, conversation))


async def _entries(
    exchange: Exchange, conversation: Conversation, cut: str | None = None
) -> list[Entry]:
    """The entries of a conversation, up to a generation."""
    found = await exchange.host.objects.read(lambda db: conversations.entries(db, conversation))
    return list(takewhile(lambda one: one.id != cut, found))


def _locked(id_: str) -> HttpError:
    return HttpError(
        409,
        f"the last response of this conversation, resp_{id_}, still runs: wait for its end, or "
        "cancel it",
        param="conversation",
        code="conversation_locked",
        headers={"x-should-retry": "false"},
    )


async def _of_generation(exchange: Exchange, id_: str, *, running: bool) -> list[Item]:
    try:
        generation = await find(exchange, id_)
        if not generation.ended and not running:
            raise _locked(id_)
        if generation.state in _FAILED:
            return []
        await earlier.here(exchange, generation)
        asked = await earlier.input_of(exchange, generation)
    except UnknownGeneration:  # it was deleted
        return []
    answer: dict[str, Any] = response_of(generation, form_of(generation))
    return [*asked, *answer["output"]]


def _half(item: Item) -> bool:
    """Whether it is a call that ends in its midst: no template takes it."""
    return item["type"] == "function_call" and item.get("status") == "incomplete"
