"""The generations of a user over HTTP: their list, one of them, its events, its end.

What belongs to somebody else is answered as what does not exist.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import trio

from llcuda_net.errors import InvalidRequest
from llcuda_net.generation.generation import Generation
from llcuda_net.generation.memory import sizes
from llcuda_net.server.http.delivery.deliver import choices_of, find, last_event_id, resumed
from llcuda_net.server.http.delivery.leaving import wanted_policy
from llcuda_net.server.http.delivery.stream import EventStream
from llcuda_net.server.http.delivery.whole import WholeReader
from llcuda_net.server.http.errors import HttpError
from llcuda_net.server.http.exchange import Exchange
from llcuda_net.server.http.formats import format_of
from llcuda_net.server.http.generations import export as exports
from llcuda_net.server.http.generations.details import details
from llcuda_net.server.http.generations.pages import conversations_of, list_all
from llcuda_net.server.http.generations.view import view
from llcuda_net.server.http.markdown import RENDERERS
from llcuda_net.server.http.request import check_names
from llcuda_net.server.http.route import Route
from llcuda_net.storage.channels import REASONING, TEXT, Switch

#: Seconds that an answer to a cancel waits for the end.
_CANCEL_PATIENCE = 5.0
#: Bytes of a document that is encoded at once; a larger one is, in a thread.
_AT_ONCE = 256 << 10


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
    """One generation: what was asked, its text so far, and how it went."""
    as_html = _wants_html(exchange.request.query)
    generation = await find(exchange, exchange.request.parameters["id"])
    await _show(exchange, generation, as_html=as_html)


async def export(exchange: Exchange) -> None:
    """One generation as a file: Markdown or JSON."""
    form = exports.wanted_format(exchange.request.query)
    generation = await find(exchange, exchange.request.parameters["id"])
    document = await _document(exchange, generation)
    await exports.respond(exchange, generation, document, form)


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
    await exchange.host.generations.delete(id_, exchange.request.user)
    _respond(exchange, {"id": id_, "object": "generation.deleted", "deleted": True}, id_)


ROUTES = [
    Route("GET", "/v1/generations", list_all),
    Route("GET", "/v1/generations/{id}", show),
    Route("DELETE", "/v1/generations/{id}", delete),
    Route("GET", "/v1/generations/{id}/events", events),
    Route("GET", "/v1/generations/{id}/export", export),
    Route("POST", "/v1/generations/{id}/cancel", cancel, json=False),
]


def _wants_html(query: Mapping[str, str]) -> bool:
    check_names(query, ("render",))
    wanted = query.get("render")
    if wanted not in (None, "html"):
        message = f"render must be html, not {wanted[:60]!r}"
        raise HttpError(400, message, param="render", code="invalid_request")
    return wanted is not None


async def _show(exchange: Exchange, generation: Generation, *, as_html: bool = False) -> None:
    """Answer with a generation as it is now."""
    if generation.shelved is not None:  # so it is over: nothing ends with this reader
        await _wait(exchange, generation)
    pieces, switches = generation.pieces[: generation.visible], [*generation.switches]
    document = await _document(exchange, generation)
    host, user = exchange.host, exchange.request.user
    # The document and its JSON; of HTML, what is made of it on the way.
    size = (8 if as_html else 2) * sizes.of(document)
    with host.holding(user, size):
        if as_html:
            document |= await trio.to_thread.run_sync(
                _rendered, pieces, switches, limiter=RENDERERS
            )
        if size > _AT_ONCE:
            body = await trio.to_thread.run_sync(msgspec.json.encode, document)
        else:
            body = msgspec.json.encode(document)
        exchange.respond(200, body, headers={"x-llcuda-generation": generation.id})


async def _document(exchange: Exchange, generation: Generation) -> dict[str, Any]:
    if generation.shelved is not None:
        await _wait(exchange, generation)
    document = view(generation) | await details(exchange, generation)
    known = await conversations_of(exchange, [generation.id])
    return document | {"conversation": known.get(generation.id)}


def _rendered(pieces: Sequence[str], switches: Sequence[Switch]) -> dict[str, Any]:
    from llcuda_net.server.http.markdown.blocks import blocks_of  # few ask for it

    blocks = blocks_of(pieces, switches)
    html = {
        kind: "".join(block["html"] for block in blocks if block["channel"] == kind)
        for kind in (TEXT, REASONING)
    }
    return {"html": {"text": html[TEXT], "reasoning": html[REASONING] or None}, "blocks": blocks}


async def _wait(exchange: Exchange, generation: Generation) -> None:
    """Until it is over, and its log is in memory."""
    reader = WholeReader(exchange, [generation])
    try:
        await reader.wait()
    finally:
        reader.leave()


def _respond(exchange: Exchange, document: dict[str, Any], id_: str) -> None:
    body = msgspec.json.encode(document)
    exchange.respond(200, body, headers={"x-llcuda-generation": id_})
