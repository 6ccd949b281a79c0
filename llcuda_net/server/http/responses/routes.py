"""The paths of the Responses API: a response is created, read, cancelled and deleted."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import msgspec
import trio

from llcuda_net.errors import InvalidRequest
from llcuda_net.generation.generation import Generation
from llcuda_net.server.http.delivery.deliver import find, last_event_id, resumed
from llcuda_net.server.http.delivery.leaving import wanted_policy
from llcuda_net.server.http.delivery.stream import EventStream
from llcuda_net.server.http.delivery.whole import WholeReader
from llcuda_net.server.http.exchange import Exchange
from llcuda_net.server.http.llama.counting import count
from llcuda_net.server.http.openai import strict_json
from llcuda_net.server.http.openai.bodies import MAX_TOP_LOGPROBS
from llcuda_net.server.http.openai.fields import Ignored
from llcuda_net.server.http.request import PAGING, PageQuery, page
from llcuda_net.server.http.responses import conversation, earlier
from llcuda_net.server.http.responses.answers import RESPONSE, encode
from llcuda_net.server.http.responses.body import LOGPROBS, Asked, conversation_of, read
from llcuda_net.server.http.responses.create import create, prepared
from llcuda_net.server.http.responses.events import Reached
from llcuda_net.server.http.responses.fields import COUNT_RULES
from llcuda_net.server.http.responses.response_format import form_of
from llcuda_net.server.http.responses.transcript import shown
from llcuda_net.server.http.route import Route

#: Seconds that an answer to a cancel waits for the end.
_CANCEL_PATIENCE = 5.0
#: Names that clients give to what is to be included.
_INCLUDE = ("include", "include[]")
#: Items of a page, where a request does not say, and at most.
DEFAULT_PAGE, LARGEST_PAGE = 20, 100


async def show(exchange: Exchange) -> None:
    """A response as it is now, or its events from any of them on."""
    query = exchange.request.query
    ignored = Ignored(lenient=exchange.host.settings.lenient)
    included = [name for name in _INCLUDE if query.get(name) == LOGPROBS]
    rest = [name for name in query if name not in included]
    ignored.check_query(rest, ("stream", "starting_after"))
    generation = await _find(exchange)
    after = _starting_after(query)
    if _flag(query, "stream"):
        await _events(exchange, generation, after, ignored.headers())
        return
    if after is not None:
        raise InvalidRequest("starting_after goes with stream=true")
    await _respond(exchange, generation, ignored.headers(), logprobs=bool(included))


async def cancel(exchange: Exchange) -> None:
    """End a response; one that is over stays as it is."""
    generation = await _find(exchange)
    if not generation.ended:
        generation.cancel()
        with trio.move_on_after(_CANCEL_PATIENCE):
            reader = WholeReader(exchange, [generation])
            try:
                await reader.wait()
            finally:
                reader.leave()
    await _respond(exchange, generation)


async def delete(exchange: Exchange) -> None:
    """Forget a response that is over."""
    id_ = earlier.generation_id(exchange.request.parameters["id"])
    await exchange.host.generations.delete(id_, exchange.request.user)
    document = {"id": f"{RESPONSE}{id_}", "object": "response", "deleted": True}
    exchange.respond(200, encode(document), headers={"x-llcuda-generation": id_})


async def input_items(exchange: Exchange) -> None:
    """The items of a response's input, in pages, the last one first."""
    query = exchange.request.query
    ignored = Ignored(lenient=exchange.host.settings.lenient)
    ignored.check_query(query, PAGING)
    wanted = PageQuery.of(query, default=DEFAULT_PAGE, most=LARGEST_PAGE)
    generation = await _find(exchange)
    found = await earlier.input_of(exchange, generation)
    if not wanted.ascending:
        found.reverse()
    if wanted.after is not None:
        ids = [item["id"] for item in found]
        if wanted.after not in ids:
            raise InvalidRequest(f"after names no item of this input: {wanted.after[:80]!r}")
        found = found[ids.index(wanted.after) + 1 :]
    listed = [shown(item) for item in found[: wanted.limit]]
    document = page(listed, more=len(found) > wanted.limit)
    headers = {**ignored.headers(), "x-llcuda-generation": generation.id}
    exchange.respond(200, encode(document), headers=headers)


async def input_tokens(exchange: Exchange) -> None:
    """The tokens of a response's input, whose body it takes: nothing is generated."""
    ignored = Ignored(lenient=exchange.host.settings.lenient, rules=COUNT_RULES)

    def take(data: dict[str, Any]) -> Asked:
        if data.get("input") is None:
            data = {**data, "input": ""}
        return read(data, ignored)

    asked = await strict_json.read(exchange.request.body, take)
    chain = conversation_of(asked.body)
    if chain is None:
        before = await earlier.before(exchange, asked.body.previous_response_id)
    else:
        part_of = await conversation.named(exchange, chain, "conversation")
        place = await conversation.place(exchange, part_of, asked.body)
        before = await conversation.before(exchange, part_of, place)
    request, _ = await prepared(exchange, asked, before)
    exchange.drop_body()
    found = await count(exchange, request.model, request.messages or (), request.chat)
    document = {"object": "response.input_tokens", "input_tokens": found}
    exchange.respond(200, encode(document), headers=ignored.headers())


ROUTES = [
    Route("POST", "/v1/responses", create),
    Route("POST", "/v1/responses/input_tokens", input_tokens),
    Route("GET", "/v1/responses/{id}", show),
    Route("DELETE", "/v1/responses/{id}", delete),
    Route("POST", "/v1/responses/{id}/cancel", cancel, json=False),
    Route("GET", "/v1/responses/{id}/input_items", input_items),
]


async def _find(exchange: Exchange) -> Generation:
    """The generation that a response is.

    Raises:
        RequestError: there is none of the user.
    """
    return await find(exchange, earlier.generation_id(exchange.request.parameters["id"]))


async def _respond(
    exchange: Exchange,
    generation: Generation,
    headers: Mapping[str, str] = MappingProxyType({}),
    *,
    logprobs: bool = False,
) -> None:
    """Answer with a response as it is now.

    Args:
        logprobs: with the log-probabilities that there are, whatever API they were asked for by.
    """
    await earlier.here(exchange, generation)
    form = form_of(generation)
    if logprobs and form.logprobs is None and generation.logprobs is not None:
        form = msgspec.structs.replace(form, logprobs=MAX_TOP_LOGPROBS)
    body = form.whole([generation])
    exchange.respond(200, body, headers={**headers, "x-llcuda-generation": generation.id})


async def _events(
    exchange: Exchange, generation: Generation, after: int | None, headers: dict[str, str]
) -> None:
    """The events of a response, behind the last one that the reader has."""
    seconds = wanted_policy(exchange.request.headers)
    if seconds is not None:
        generation.on_disconnect = seconds
    form, sent = form_of(generation), [0]
    last = last_event_id(exchange)
    if last and after is None:
        found, sent = await resumed(exchange, last)
        if [one.id for one in found] != [generation.id]:
            raise InvalidRequest(f"Last-Event-ID does not name the response {generation.id}")
    elif after is not None:
        await earlier.here(exchange, generation)
        reached = Reached(generation, form, after)
        await generation.reach(reached.known)
        await earlier.here(exchange, generation)
        sent = [reached.position()]
    stream = EventStream(exchange, [generation], form, sent=sent, after=after, headers=headers)
    await stream.run()


def _flag(query: Mapping[str, str], name: str) -> bool:
    text = query.get(name, "false").lower()
    if text not in ("true", "false", "1", "0"):
        raise InvalidRequest(f"{name} is true or false, not {text[:60]!r}")
    return text in ("true", "1")


def _starting_after(query: Mapping[str, str]) -> int | None:
    """The number of the last event that the reader has; None: it does not say."""
    text = query.get("starting_after")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 15):
        raise InvalidRequest(f"starting_after is a number from 0 on, not {text[:60]!r}")
    return int(text)
