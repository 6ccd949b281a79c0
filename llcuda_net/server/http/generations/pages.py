"""GET /v1/generations: a user's generations in pages, and those that a search finds."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import msgspec

from llcuda_net.config.users import view_of
from llcuda_net.generation.listing import of_summary, told
from llcuda_net.server.http.exchange import Exchange
from llcuda_net.server.http.generations.wanted import Wanted
from llcuda_net.server.http.request import page
from llcuda_net.storage.objects import entries
from llcuda_net.storage.words import highlights

#: Bytes that an entry takes in memory and in the answer, about.
_ENTRY = 4 << 10


async def list_all(exchange: Exchange) -> None:
    """The user's generations in pages, or those that a search finds."""
    wanted = Wanted.of(exchange.request.query)
    with exchange.host.holding(exchange.request.user, _ENTRY * wanted.limit):
        if wanted.words is not None:
            document = await _with_words(exchange, wanted.words, wanted)
        elif wanted.meaning is not None:
            document = await _by_meaning(exchange, wanted.meaning, wanted.limit)
        else:
            document = await _page(exchange, wanted)
        known = await conversations_of(exchange, [entry["id"] for entry in document["data"]])
        for entry in document["data"]:
            entry["conversation"] = known.get(entry["id"])
        exchange.respond(200, msgspec.json.encode(document))


async def conversations_of(exchange: Exchange, ids: Collection[str]) -> Mapping[str, str]:
    """By generation, the conversation of the user that it is part of; of several, the first.

    Raises:
        RequestError: they cannot be read.
    """
    if not exchange.host.objects.keeps:
        return {}
    owner = view_of(exchange.request.user)
    return await exchange.host.objects.read(lambda db: entries.conversations_of(db, ids, owner))


async def _page(exchange: Exchange, wanted: Wanted) -> dict[str, Any]:
    host, user = exchange.host, exchange.request.user
    found, cut = await host.queries.list_generations(wanted.selection, user)
    listed = [_entry(one) for one in found[: wanted.limit]]
    if wanted.backwards:
        listed.reverse()
    return page(listed, more=len(found) > wanted.limit or cut > 0)


async def _with_words(exchange: Exchange, words: str, wanted: Wanted) -> dict[str, Any]:
    found = await exchange.host.queries.find_words(words, wanted.selection, exchange.request.user)
    listed = []
    for hit in found.hits:
        prompt, text = highlights(hit.prompt), highlights(hit.text)
        entry = told(of_summary(hit.summary, text[0]), with_owner=found.with_owners)
        excerpts = {
            name: {"excerpt": plain, "highlights": spans}
            for name, (plain, spans) in (("prompt", prompt), ("text", text))
            if plain
        }
        listed.append(_entry(entry) | {"score": hit.score, "matches": excerpts})
    document = page(listed, more=False)
    newest = found.hits[0].of_newest if found.hits else None
    return {**document, "search": {"unindexed": found.unindexed, "of_newest": newest}}


async def _by_meaning(exchange: Exchange, text: str, limit: int) -> dict[str, Any]:
    found = await exchange.host.queries.search(text, limit, exchange.request.user)
    listed = [
        _entry(told(of_summary(summary, begin), with_owner=found.with_owners)) | {"score": cosine}
        for summary, begin, cosine in found.hits
    ]
    document = page(listed, more=False)
    return {**document, "search": {"searched": found.searched, "backlog": found.backlog}}


def _entry(entry: dict[str, Any]) -> dict[str, Any]:
    return {"object": "generation", **entry}
