"""The generations of a user over HTTP: their list, one of them, its events, its end.

What belongs to somebody else is answered as what does not exist.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import trio

from llcuda_net.errors import InvalidRequest
from llcuda_net.generation.generation import Generation
from llcuda_net.server.http.delivery.deliver import choices_of, find, last_event_id, resumed
from llcuda_net.server.http.delivery.leaving import wanted_policy
from llcuda_net.server.http.delivery.stream import EventStream
from llcuda_net.server.http.delivery.whole import WholeReader
from llcuda_net.server.http.exchange import Exchange
from llcuda_net.server.http.formats import format_of
from llcuda_net.server.http.generations.view import view
from llcuda_net.server.http.route import Route
from llcuda_protocol import ListGenerations
from llcuda_protocol.kinds import MAX_LISTED

#: Seconds that an answer to a cancel waits for the end.
_CANCEL_PATIENCE = 5.0


async def events(exchange: Exchange) -> None:
    """The events of an answer, in the shape of the API that began it; the next ones of a reader."""
    last = last_event_id(exchange)
    id_ = exchange.request.parameters["id"]
    named = await find(exchange, id_)
    if last:
        generations, sent = await resumed(exchange, last)
        # Not by identity: one that ends meanwhile is another object when it is read from the store.
        if named.id not in [generation.id for generation in generations]:
            raise InvalidRequest(f"Last-Event-ID does not name the generation {id_[:60]}")
    else:
        generations, sent = await choices_of(exchange, named), []
    seconds = wanted_policy(exchange.request.headers)
    if seconds is not None:
        for generation in generations:
            generation.on_disconnect = seconds
    await EventStream(exchange, generations, format_of(named), sent=sent, headers={}).run()


async def show(exchange: Exchange) -> None:
    """One generation, with its text so far."""
    await _show(exchange, await find(exchange, exchange.request.parameters["id"]))


async def cancel(exchange: Exchange) -> None:
    """End a generation; one that is over stays as it is."""
    generation = await find(exchange, exchange.request.parameters["id"])
    if not generation.ended:
        generation.cancel()
        with trio.move_on_after(_CANCEL_PATIENCE):
            await _wait(exchange, generation)
    await _show(exchange, generation)


async def delete(exchange: Exchange) -> None:
    """Forget a generation."""
    id_ = exchange.request.parameters["id"]
    await exchange.host.delete(id_, exchange.request.user)
    _respond(exchange, {"id": id_, "object": "generation.deleted", "deleted": True}, id_)


async def listed(exchange: Exchange) -> None:
    """The user's generations, newest first, in pages as OpenAI's API has them."""
    query = exchange.request.query
    limit = _number(query, "limit", 20, MAX_LISTED - 1)
    request = ListGenerations(0, limit + 1, query.get("state"), query.get("after"))
    entries, cut = await exchange.host.list_generations(request, exchange.request.user)
    more = len(entries) > limit or cut > 0
    entries = [{"object": "generation", **entry} for entry in entries[:limit]]
    document = {
        "object": "list",
        "data": entries,
        "first_id": entries[0]["id"] if entries else None,
        "last_id": entries[-1]["id"] if entries else None,
        "has_more": more,
    }
    exchange.respond(200, msgspec.json.encode(document))


ROUTES = [
    Route("GET", "/v1/generations", listed),
    Route("GET", "/v1/generations/{id}", show),
    Route("DELETE", "/v1/generations/{id}", delete),
    Route("GET", "/v1/generations/{id}/events", events),
    Route("POST", "/v1/generations/{id}/cancel", cancel, json=False),
]


async def _show(exchange: Exchange, generation: Generation) -> None:
    """Answer with a generation as it is now."""
    if generation.shelved is not None:  # so it is over: nothing ends with this reader
        await _wait(exchange, generation)
    document = view(generation)
    _respond(exchange, document, generation.id)


async def _wait(exchange: Exchange, generation: Generation) -> None:
    """Until it is over, and its log is in memory."""
    reader = WholeReader(exchange, [generation])
    try:
        await reader.wait()
    finally:
        reader.leave()


def _number(query: Mapping[str, str], name: str, default: int, most: int) -> int:
    text = query.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= most):
        raise InvalidRequest(f"{name} is a number from 1 to {most}, not {text[:60]!r}")
    return int(text)


def _respond(exchange: Exchange, document: dict[str, Any], id_: str) -> None:
    body = msgspec.json.encode(document)
    exchange.respond(200, body, headers={"x-llcuda-generation": id_})
