"""DELETE /v1/conversations/{id}: a conversation is forgotten, and with it its answers, if asked."""

from __future__ import annotations

from collections.abc import Collection

import msgspec
import trio

from llcuda_net.errors import InvalidRequest, UnknownGeneration
from llcuda_net.generation.state import State
from llcuda_net.server.changes import DELETED
from llcuda_net.server.http.conversations.pages import known
from llcuda_net.server.http.delivery.deliver import find
from llcuda_net.server.http.errors import HttpError
from llcuda_net.server.http.exchange import Exchange
from llcuda_net.server.http.request import check_names
from llcuda_net.server.http.responses import conversation as chains
from llcuda_net.storage.objects import conversations, entries

#: Seconds in which responses that were cancelled must end, and between two looks at them.
_PATIENCE, _EVERY = 5.0, 0.05
_RUNNING = (State.QUEUED, State.RUNNING)


async def delete(exchange: Exchange) -> None:
    """Forget a conversation; its responses stay, unless they are to go, too."""
    host = exchange.host
    with_responses = _wants_all(exchange)
    found = await chains.named(exchange, exchange.request.parameters["id"])
    document = {"id": found.id, "object": "conversation.deleted", "deleted": True}
    async with host.objects.alone(found.id):
        if with_responses:
            states = (await known(exchange, found)).states
            shared = await host.objects.read(lambda db: entries.elsewhere(db, found, states))
            own = [id_ for id_ in states if id_ not in shared]
            await _end(exchange, [id_ for id_ in own if states[id_] in _RUNNING])
            # Last comes what names them: who is interrupted can begin again.
            for id_ in own:
                try:
                    await host.generations.delete(id_, exchange.request.user)
                except UnknownGeneration:  # somebody else has just deleted it
                    continue
            document["responses"] = {"deleted": len(own), "kept": len(shared)}
        await host.objects.write(lambda db: conversations.delete(db, found))
    host.changes.note(found.owner, found.id, DELETED)
    exchange.respond(200, msgspec.json.encode(document))


def _wants_all(exchange: Exchange) -> bool:
    check_names(exchange.request.query, ("responses",))
    text = exchange.request.query.get("responses", "false")
    if text not in ("true", "false"):
        raise InvalidRequest(f"responses is true or false, not {text[:60]!r}")
    return text == "true"


async def _end(exchange: Exchange, ids: Collection[str]) -> None:
    """Cancel responses, and wait until they are over.

    Raises:
        HttpError: one takes too long; nothing was deleted.
    """
    for id_ in ids:
        generation = await find(exchange, id_)
        if not generation.ended:
            generation.cancel()
    with trio.move_on_after(_PATIENCE):
        while True:
            states = await exchange.host.generations.states(ids, exchange.request.user)
            if not any(state in _RUNNING for state in states.values()):
                return
            await trio.sleep(_EVERY)
    raise HttpError(
        409,
        "a response of this conversation was cancelled, and has not ended yet: try again",
        code="conversation_locked",
    )
