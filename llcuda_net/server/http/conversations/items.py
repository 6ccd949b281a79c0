"""The items of a conversation: a page of those on its active path, and any of them by its id."""

from __future__ import annotations

from llcuda_net.server.http.exchange import Exchange
from llcuda_net.server.http.request import PageQuery
from llcuda_net.server.http.responses import conversation as chains
from llcuda_net.server.http.responses import earlier
from llcuda_net.server.http.responses.transcript import Item
from llcuda_net.storage.objects import entries
from llcuda_net.storage.objects.conversations import Conversation
from llcuda_net.storage.objects.entries import Entry
from llcuda_net.storage.objects.interface import Database


async def page_of(
    exchange: Exchange, conversation: Conversation, wanted: PageQuery
) -> list[Item] | None:
    """The items of a page of those on the active path, and one more; None: `after` is none."""
    found, hidden = await chains.path_of(exchange, conversation)
    if not wanted.ascending:
        found.reverse()
    after = wanted.after
    if after is not None:
        of = earlier.generation_of(after) or after
        found = found[next((i for i, one in enumerate(found) if one.id == of), len(found)) :]
    listed: list[Item] = []
    for entry in found:
        some = await chains.listed_of(exchange, conversation, [entry], hidden, running=True)
        listed += some if wanted.ascending else some[::-1]
        if after is not None:
            ids = [one["id"] for one in listed]
            if after not in ids:
                return None
            listed, after = listed[ids.index(after) + 1 :], None
        if len(listed) > wanted.limit:
            break
    return listed if after is None else None


async def item_of(exchange: Exchange, conversation: Conversation, id_: str) -> Item | None:
    """An item of a conversation, on whatever path; None: there is none."""
    generation = earlier.generation_of(id_)

    def look(db: Database) -> tuple[Entry | None, set[str]]:
        found = entries.find(db, conversation, generation or id_)
        return found, entries.hidden(db, conversation)

    found, hidden = await exchange.host.objects.read(look)
    if found is None:
        return None
    listed = await chains.listed_of(exchange, conversation, [found], hidden, running=True)
    return next((one for one in listed if one["id"] == id_), None)
