"""What a response goes on from: an earlier response, or items of one."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from llcuda_net.errors import InvalidRequest, RequestError, UnknownGeneration
from llcuda_net.generation.generation import Generation
from llcuda_net.server.http.delivery.deliver import find
from llcuda_net.server.http.delivery.whole import WholeReader
from llcuda_net.server.http.errors import HttpError, of_request_error
from llcuda_net.server.http.exchange import Exchange
from llcuda_net.server.http.openai.fields import Ignored
from llcuda_net.server.http.responses import items
from llcuda_net.server.http.responses.answers import RESPONSE, Shape, response_of
from llcuda_net.server.http.responses.response_format import form_of, form_of_api
from llcuda_net.server.http.responses.transcript import (
    Item,
    Message,
    items_of,
    prefix_of,
    unmerged,
)
from llcuda_net.storage.chat_history import history
from llcuda_net.storage.records import Level, Result

#: What ids of answers begin with, in whatever API.
_PREFIXES = (RESPONSE, "chatcmpl-", "cmpl-")
#: The id of an item of ours: its kind, its response, and its place in the output or the input.
_ITEM = re.compile(r"\A(?:msg|rs|fc|fco|item)_([0-9a-f-]{36})_([ib]?)([0-9]{1,6})\Z")


class Place(NamedTuple):
    """Where in a conversation a response stands.

    Attributes:
        parent: the number of the entry that it goes on from; 0: it begins.
        behind: the id of that entry; empty: it begins.
        is_new: that entry is still to be made the first one: a generation.
    """

    parent: int
    behind: str
    is_new: bool = False


class Before(NamedTuple):
    """What comes before the input of a response.

    Attributes:
        messages: one by one, without instructions; a later response may begin with them, too.
        model: the name of the model that was asked; None: the default one, or nothing comes before.
        is_response: its instructions are left out already.
        transient: it is not stored, so what holds its messages is not, either.
        level: what the next one survives, where it does not say; None: as the server has it.
        basis: of a conversation: names what was on the path.
        place: in a conversation; None: there is none.
    """

    messages: list[Message]
    model: str | None = None
    is_response: bool = True
    transient: bool = False
    level: str | None = None
    basis: bytes | None = None
    place: Place | None = None


def generation_id(id_: str) -> str:
    """The id of the generation that a response is."""
    for prefix in _PREFIXES:
        if id_.startswith(prefix):
            return id_.removeprefix(prefix)
    return id_


def generation_of(item: str) -> str | None:
    """The id of the generation that an item is of; None: a client added it."""
    found = _ITEM.match(item)
    return None if found is None else found[1]


async def before(exchange: Exchange, previous: str | None) -> Before:
    """What a response goes on from.

    Args:
        previous: the id of an earlier one; any generation of the user that is over will do.

    Raises:
        HttpError: there is none, it still runs, or said nothing.
    """
    if previous is None:
        return Before([])
    try:
        result = await exchange.host.generations.result(
            generation_id(previous)[:256], exchange.request.user
        )
        return _before(result)
    except UnknownGeneration:
        raise HttpError(
            400,
            f"Previous response with id {previous[:60]!r} not found.",
            param="previous_response_id",
            code="previous_response_not_found",
        ) from None
    except RequestError as error:
        raise of_request_error(error, "previous_response_id") from None


def _before(result: Result) -> Before:
    *asked, answer = history(result)
    form = form_of_api(result.request.get("api"))
    messages = [*own_and_inherited(asked, form), answer]
    level = str(result.level) if result.level is Level.MEMORY else None
    model = result.request.get("model")
    return Before(messages, model, form is not None, result.transient, level)


def own_and_inherited(asked: list[Message], shape: Shape | None) -> list[Message]:
    """The messages of a request one by one, without its instructions."""
    if shape is None:
        return list(asked)
    found = unmerged(asked, shape.merges)
    return found if shape.instructions is None else found[1:]


async def inherited(exchange: Exchange, generation: Generation) -> list[Message] | None:
    """The messages that a response which is over went on from; None: some were left out of it.

    Raises:
        RequestError: it is not there any more.
    """
    shape: Shape = form_of(generation)
    if shape.truncated:
        return None
    result = await exchange.host.generations.result(generation.id, exchange.request.user)
    asked = result.request.get("messages")
    return None if asked is None else own_and_inherited(asked, shape)[: shape.inherited]


async def resolved(exchange: Exchange, given: items.Input) -> items.Input:
    """An input with the items of earlier responses in the places of references to them.

    Raises:
        HttpError: there is no such item.
    """
    found: list[Item] = []
    messages: list[Message | None] = []
    transient = False
    for item, message in zip(given.items, given.messages, strict=True):
        if message is not None:
            found.append(item)
            messages.append(message)
            continue
        known, of = await _item(exchange, item["id"])
        transient = transient or of.transient
        again = items.parse([known], Ignored(lenient=True))
        found += again.items
        messages += again.messages
    return items.Input(found, messages, transient)


async def _item(exchange: Exchange, id_: str) -> tuple[Item, Generation]:
    """An item by its id, and what it is of."""
    named = _ITEM.match(id_)
    missing = HttpError(
        404, f"Item with id {id_[:80]!r} not found.", param="input", code="item_not_found"
    )
    if named is None:
        raise missing
    try:
        generation = await find(exchange, named[1])
        if named[2]:
            listed = await input_of(exchange, generation, whole=named[2] == "b")
        else:
            await here(exchange, generation)
            listed = response_of(generation, form_of(generation))["output"]
    except UnknownGeneration:
        raise missing from None
    for item in listed:
        if item["id"] == id_:
            return item, generation
    raise missing


async def here(exchange: Exchange, generation: Generation) -> None:
    """Return when the log of a generation is in memory."""
    if generation.shelved is None:
        return
    reader = WholeReader(exchange, [generation])
    try:
        await reader.wait()
    finally:
        reader.leave()


async def input_of(
    exchange: Exchange, generation: Generation, *, whole: bool = False
) -> list[Item]:
    """The items of the input of a response, oldest first, each with its id.

    Args:
        whole: with those of earlier responses that it went on from.

    Raises:
        RequestError: it is not there any more.
    """
    if generation.ended:
        result = await exchange.host.generations.result(generation.id, exchange.request.user)
        request: dict[str, Any] = result.request
        messages, prompt = request.get("messages"), request.get("prompt")
    else:
        messages, prompt = generation.messages, generation.prompt
    return input_items(generation.id, form_of(generation), messages, prompt, whole=whole)


def input_items(
    id_: str,
    shape: Shape,
    messages: list[Message] | None,
    prompt: str | list[int] | None,
    *,
    whole: bool = False,
) -> list[Item]:
    """The items of what a generation was asked; see `input_of`.

    Raises:
        InvalidRequest: it was token ids.
    """
    if messages is None and not isinstance(prompt, str):
        raise InvalidRequest("its prompt was token ids, which are no items")
    asked = messages or [{"role": "user", "content": prompt}]
    every = own_and_inherited(asked, shape)
    before = items_of(every[: shape.inherited]) if whole else []
    found = items_of(every[shape.inherited :])
    found = found if shape.count is None else found[: shape.count]
    for place, item in shape.given:
        if place < len(found):
            found[place] = item
        else:
            found.append(item)
    return [
        {"id": f"{prefix_of(item)}_{id_}_{kind}{place}", **item, "status": "completed"}
        for kind, some in (("b", before), ("i", found))
        for place, item in enumerate(some)
    ]


def kept(own: list[Message], listed: list[Item]) -> tuple[list[tuple[int, Item]], int | None]:
    """What is to be kept of the items of an input, since the messages do not give it back.

    Returns:
        Items with their places, and how many there are where the messages give another number.
    """
    found = items_of(own)
    same = len(found) == len(listed)
    differing = [
        (place, item)
        for place, item in enumerate(listed)
        if place >= len(found) or found[place] != item
    ]
    return differing, None if same else len(listed)
