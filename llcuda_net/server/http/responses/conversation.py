"""A conversation as what a response goes on from, and is added to.

A conversation is a tree of entries, and a response goes on from a path in it: from the items there
that clients added, and those of its responses in their places: what was asked, and what was
answered. A response that failed is no part of it; one that was cancelled is, as far as it came. A
request that is sent again must mean what it meant, so it goes on from what the response went on
from that it began.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from hashlib import blake2b
from typing import Any

import msgspec

from llcuda_net.config.users import view_of
from llcuda_net.errors import RequestError, UnknownGeneration
from llcuda_net.generation.generation import Generation
from llcuda_net.generation.state import State
from llcuda_net.server.changes import ADDED
from llcuda_net.server.http.delivery.deliver import find, idempotency_key, last_event_id
from llcuda_net.server.http.delivery.event_ids import parse
from llcuda_net.server.http.delivery.leaving import is_retry, joinable
from llcuda_net.server.http.errors import HttpError
from llcuda_net.server.http.exchange import Exchange
from llcuda_net.server.http.openai.bodies import wrong
from llcuda_net.server.http.openai.fields import Ignored
from llcuda_net.server.http.responses import earlier, items
from llcuda_net.server.http.responses.answers import response_of
from llcuda_net.server.http.responses.body import ResponseBody
from llcuda_net.server.http.responses.earlier import Before, Place
from llcuda_net.server.http.responses.response_format import form_of, form_of_api
from llcuda_net.server.http.responses.transcript import Item, Message, text_of
from llcuda_net.storage.objects import conversations, entries
from llcuda_net.storage.objects.conversations import Conversation
from llcuda_net.storage.objects.entries import ROOT, Entry
from llcuda_net.storage.objects.interface import Database

#: Ends of a generation by which it is no part of a conversation.
_FAILED = (State.FAILED, State.INTERRUPTED)
#: Responses, the last ones of a conversation, that the retry of an SDK may mean.
_RETRIED = 8


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


# -- where a response stands ----------------------------------------------------------------------


async def place(exchange: Exchange, conversation: Conversation, body: ResponseBody) -> Place:
    """Where a new response stands, by what its request says.

    Raises:
        HttpError: it names what is not there, or what nothing can go on from.
    """
    if body.instead_of is not None:
        beside = await _named(exchange, conversation, body.instead_of)
        if beside is None:
            raise _missing(body.instead_of, "instead_of")
        return await exchange.host.objects.read(lambda db: _at(db, beside.parent))
    if body.previous_response_id is None:
        return await exchange.host.objects.read(lambda db: _at_end(db, conversation))
    before = await _named(exchange, conversation, body.previous_response_id)
    if before is not None:
        return Place(before.seq, before.id)
    known = await named(exchange, conversation.id, "conversation")
    if known.size:
        raise _missing(body.previous_response_id, "previous_response_id")
    return Place(ROOT, await _first(exchange, body.previous_response_id), is_new=True)


async def place_of(
    exchange: Exchange, conversation: Conversation, begun: Generation
) -> Place | None:
    """Where a response stands that has begun; None: that is not known of this conversation."""
    form = form_of_api(begun.api)
    behind = None if form is None else form.behind

    def look(db: Database) -> Place | None:
        known = entries.find(db, conversation, begun.id)
        if known is not None:
            return _at(db, known.parent)
        if not behind:
            return None if behind is None else Place(ROOT, "")
        before = entries.find(db, conversation, behind)
        if before is not None:
            return Place(before.seq, before.id)
        empty = not entries.links(db, conversation)
        return Place(ROOT, behind, is_new=True) if empty else None

    return await exchange.host.objects.read(look)


async def begun(
    exchange: Exchange, conversation: Conversation, body: ResponseBody
) -> list[Generation]:
    """The responses that the same request may have begun before, the likeliest first."""
    request, host = exchange.request, exchange.host
    last, key = last_event_id(exchange), idempotency_key(request.headers)
    if last:
        return [await find(exchange, next(iter(parse(last))))]
    if key is not None:
        known = await host.generations.find_by_key(key, request.user.name)
        return [] if known is None else [known]
    # Where its place is named, it is known by what it goes on from, as without a conversation.
    named_place = body.instead_of is not None or body.previous_response_id is not None
    if not is_retry(request.headers) or named_place:
        return []
    links = await host.objects.read(lambda db: entries.links(db, conversation))
    found = []
    for link in [one for one in reversed(links) if not one.is_item][:_RETRIED]:
        try:
            generation = await find(exchange, link.id)
        except UnknownGeneration:
            continue
        if joinable(generation):
            found.append(generation)
    return found


async def add(
    exchange: Exchange,
    conversation: Conversation,
    generation: Generation,
    before: Before,
    question: str,
) -> None:
    """Make a response part of a conversation; on the disk when this returns.

    Args:
        before: what it goes on from, and so where it stands.
        question: what was asked with it, for the list.

    Raises:
        RequestError: that cannot be; the response is cancelled.
    """
    place = before.place
    assert place is not None
    first = ""
    if place.is_new:
        asked = await _of_generation(exchange, conversation, place.behind, running=False)
        first = question_of(asked)

    def write(db: Database) -> None:
        parent = place.parent
        if place.is_new:
            parent = entries.add_generation(
                db, conversation, place.behind, parent=ROOT, question=first
            )
        entries.add_generation(
            db,
            conversation,
            generation.id,
            parent=parent,
            basis=before.basis,
            question=question,
        )

    try:
        await exchange.host.objects.write(write)
    except RequestError:
        generation.cancel()
        raise
    exchange.host.changes.note(conversation.owner, conversation.id, ADDED)


def question_of(asked: Iterable[Item]) -> str:
    """The text of the first question among items; empty: there is none."""
    said = (text_of(one) for one in asked if one.get("role") == "user")
    return next(filter(None, said), "")


async def _named(exchange: Exchange, conversation: Conversation, id_: str) -> Entry | None:
    """An entry by the id of its item, or of its response; None: there is none."""
    generation = earlier.generation_id(id_)

    def look(db: Database) -> Entry | None:
        found = entries.find(db, conversation, generation)
        return found or entries.find(db, conversation, id_)

    found = await exchange.host.objects.read(look)
    if found is not None and found.item is None:
        states = await exchange.host.generations.states([found.id], exchange.request.user)
        return found if states else None
    return found


async def _first(exchange: Exchange, id_: str) -> str:
    """The generation with which an empty conversation may begin.

    Raises:
        HttpError: it cannot.
    """
    param = "previous_response_id"
    try:
        found = await find(exchange, earlier.generation_id(id_))
    except UnknownGeneration:
        raise _missing(id_, param) from None
    if not found.ended:
        raise _locked(found.id)
    if found.state in _FAILED:
        raise wrong(param, f"{id_[:80]} failed: a conversation cannot go on from it")
    if found.transient:
        raise wrong(param, "what is not stored cannot be part of a conversation")
    return found.id


def _at(db: Database, seq: int) -> Place:
    """The place behind an entry; where that is gone, the first one."""
    found = entries.some(db, [seq])
    return Place(seq, found[0].id) if found else Place(ROOT, "")


def _at_end(db: Database, conversation: Conversation) -> Place:
    known = conversations.get(db, conversation.id, None)
    return Place(ROOT, "") if known is None else _at(db, known.head)


def _missing(id_: str, param: str) -> HttpError:
    return HttpError(
        400,
        f"there is no response {id_[:80]!r} in this conversation",
        param=param,
        code="previous_response_not_found",
    )


# -- what it goes on from -------------------------------------------------------------------------


async def before(exchange: Exchange, conversation: Conversation, place: Place) -> Before:
    """What a response at this place in a conversation goes on from.

    The request of the last response before it holds all that came before that. So it is read, and
    no earlier one is, unless something was deleted since.

    Raises:
        HttpError: a response that it would go on from still runs.
    """
    found, hidden = await path_of(exchange, conversation, place.parent)
    if place.is_new:
        found = [Entry(0, ROOT, place.behind, None)]
    found = await _there(exchange, found)
    basis = _basis(found, hidden)
    known, found = await _shortened(exchange, found, hidden)
    listed = await listed_of(exchange, conversation, found, hidden, running=False)
    if not listed:
        return Before(known, basis=basis, place=place)
    said = items.parse([one for one in listed if not _half(one)], Ignored(lenient=True))
    messages = [one for one in said.messages if one is not None]
    return Before(items.together(known, messages), basis=basis, place=place)


async def _there(exchange: Exchange, found: Sequence[Entry]) -> list[Entry]:
    """Those of these entries that count: no response that was deleted, or has failed.

    Raises:
        HttpError: one still runs.
    """
    generations = [one.id for one in found if one.item is None]
    states = await exchange.host.generations.states(generations, exchange.request.user)
    for id_ in generations:
        if states.get(id_) in (State.QUEUED, State.RUNNING):
            raise _locked(id_)
    return [
        one
        for one in found
        if one.item is not None or (one.id in states and states[one.id] not in _FAILED)
    ]


async def _shortened(
    exchange: Exchange, found: list[Entry], hidden: set[str]
) -> tuple[list[Message], list[Entry]]:
    """The messages before the last response of a path, and the entries from it on.

    None, and all entries, where the path is not what that response went on from.
    """
    last = max((i for i, one in enumerate(found) if one.item is None), default=0)
    if not last or found[last].basis != _basis(found[:last], hidden):
        return [], found
    try:
        known = await earlier.inherited(exchange, await find(exchange, found[last].id))
    except UnknownGeneration:  # it has just been deleted
        known = None
    return ([], found) if known is None else (known, found[last:])


def _basis(found: Sequence[Entry], hidden: Collection[str]) -> bytes:
    """Names what is on a path: its entries, and what was deleted of their items."""
    ids = [one.id for one in found]
    known = set(ids)
    gone = sorted(one for one in hidden if earlier.generation_of(one) in known)
    return blake2b(msgspec.json.encode([ids, gone]), digest_size=16).digest()


async def listed_of(
    exchange: Exchange,
    conversation: Conversation,
    found: Iterable[Entry],
    hidden: set[str],
    *,
    running: bool,
) -> list[Item]:
    """The items of entries, without those that were deleted.

    Raises:
        HttpError: a response still runs, and may not.
    """
    listed: list[Item] = []
    for entry in found:
        if entry.item is not None:
            listed.append(entry.item)
        else:
            listed += await _of_generation(exchange, conversation, entry.id, running=running)
    return [one for one in listed if one["id"] not in hidden]


async def path_of(
    exchange: Exchange, conversation: Conversation, end: int | None = None
) -> tuple[list[Entry], set[str]]:
    """A path of a conversation (the active one, where no end is given), and its hidden items."""
    return await exchange.host.objects.read(
        lambda db: (entries.path(db, conversation, end), entries.hidden(db, conversation))
    )


def _locked(id_: str) -> HttpError:
    return HttpError(
        409,
        f"the response resp_{id_}, which this one would go on from, still runs: wait for its end, "
        "or cancel it",
        param="conversation",
        code="conversation_locked",
        headers={"x-should-retry": "false"},
    )


async def _of_generation(
    exchange: Exchange, conversation: Conversation, id_: str, *, running: bool
) -> list[Item]:
    try:
        generation = await find(exchange, id_)
        if not generation.ended and not running:
            raise _locked(id_)
        if generation.state in _FAILED:
            return []
        await earlier.here(exchange, generation)
        form = form_of(generation)
        # What it went on from elsewhere is here with it.
        whole = form.conversation != conversation.id
        asked = await earlier.input_of(exchange, generation, whole=whole)
    except UnknownGeneration:  # it was deleted
        return []
    answer: dict[str, Any] = response_of(generation, form)
    return [*asked, *answer["output"]]


def _half(item: Item) -> bool:
    """Whether it is a call that ends in its midst: no template takes it."""
    return item["type"] == "function_call" and item.get("status") == "incomplete"
