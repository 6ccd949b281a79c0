"""GET /v1/generations: a user's generations in pages, and those that a search finds."""

from __future__ import annotations

from typing import Any

import msgspec

from llcuda_net.generation.listing import of_summary, told
from llcuda_net.server.http.exchange import Exchange
from llcuda_net.server.http.generations.wanted import Wanted
from llcuda_net.server.http.request import page
from llcuda_net.storage.words import highlights

#: Bytes that an entry takes in memory and in the answer, about.
_ENTRY = 4 << 10


async def listed(exchange: Exchange) -> None:
    """The user's generations in pages, or those that a search finds."""
    wanted = Wanted.of(exchange.request.query)
    with exchange.host.holding(exchange.request.user, _ENTRY * wanted.limit):
        if wanted.words is not None:
            document = await _with_words(exchange, wanted.words, wanted)
        elif wanted.meaning is not None:
            document = await _by_meaning(exchange, wanted.meaning, wanted.limit)
        else:
            document = await _page(exchange, wanted)
        exchange.respond(200, msgspec.json.encode(document))


async def _page(exchange: Exchange, wanted: Wanted) -> dict[str, Any]:
    host, user = exchange.host, exchange.request.user
    found, cut = await host.queries.list_generations(wanted.selection, user)
    entries = [_entry(one) for one in found[: wanted.limit]]
    if wanted.backwards:
        entries.reverse()
    return page(entries, more=len(found) > wanted.limit or cut > 0)


async def _with_words(exchange: Exchange, words: str, wanted: Wanted) -> dict[str, Any]:
    found = await exchange.host.queries.find_words(words, wanted.selection, exchange.request.user)
    entries = []
    for hit in found.hits:
        prompt, text = highlights(hit.prompt), highlights(hit.text)
        entry = told(of_summary(hit.summary, text[0]), with_owner=found.with_owners)
        excerpts = {
            name: {"excerpt": plain, "highlights": spans}
            for name, (plain, spans) in (("prompt", prompt), ("text", text))
            if plain
        }
        entries.append(_entry(entry) | {"score": hit.score, "matches": excerpts})
    document = page(entries, more=False)
    newest = found.hits[0].of_newest if found.hits else None
    return {**document, "search": {"unindexed": found.unindexed, "of_newest": newest}}


async def _by_meaning(exchange: Exchange, text: str, limit: int) -> dict[str, Any]:
    found = await exchange.host.queries.search(text, limit, exchange.request.user)
    entries = [
        _entry(told(of_summary(summary, begin), with_owner=found.with_owners)) | {"score": cosine}
        for summary, begin, cosine in found.hits
    ]
    document = page(entries, more=False)
    return {**document, "search": {"searched": found.searched, "backlog": found.backlog}}


def _entry(entry: dict[str, Any]) -> dict[str, Any]:
    return {"object": "generation", **entry}
