"""GET /v1/conversations/{id}/responses: what there is to see of a conversation, in pages.

There is one statement for the tree, one for the states of all generations, and a few steps in which
a thread reads the results of the page. What is over never changes: so a page has an entity tag that
is known before any result is read, and what was shown last is not read and rendered again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from hashlib import blake2b
from typing import NamedTuple

import msgspec
import trio

from llcuda_net.errors import UnknownGeneration
from llcuda_net.generation.generation import Generation
from llcuda_net.generation.state import State
from llcuda_net.server.http.conversations.cache import Key
from llcuda_net.server.http.conversations.nodes import Source, node_of, node_of_item
from llcuda_net.server.http.conversations.tree import Spot, Tree
from llcuda_net.server.http.conversations.view import view
from llcuda_net.server.http.delivery.deliver import find
from llcuda_net.server.http.errors import HttpError
from llcuda_net.server.http.exchange import Exchange
from llcuda_net.server.http.markdown import RENDERERS
from llcuda_net.server.http.openai.fields import Ignored
from llcuda_net.server.http.request import PAGING, PageQuery
from llcuda_net.server.http.responses import conversation as chains
from llcuda_net.server.http.responses import earlier
from llcuda_net.storage.objects import conversations, entries
from llcuda_net.storage.objects.conversations import Conversation
from llcuda_net.storage.objects.entries import Entry, Link
from llcuda_net.storage.objects.interface import Database
from llcuda_net.storage.records import Result
from llcuda_net.util.version import package_version

#: Entries of a page, where a request does not say, and at most.
DEFAULT_PAGE, LARGEST_PAGE = 50, 200
#: Entries that are made at once, and bytes after which a page takes no more of them.
_STEP, _MOST = 8, 4 << 20
#: Bytes that an entry takes, about.
_ENTRY = 16 << 10
_ACTIVE = "active"
_RUNNING = (State.QUEUED, State.RUNNING)


class Known(NamedTuple):
    """A conversation, before any result of it is read.

    Attributes:
        hidden: items that were deleted from it, and `hidden_of` those of each generation.
        digest: names all that was there.
    """

    conversation: Conversation
    hidden: set[str]
    hidden_of: dict[str, tuple[str, ...]]
    states: dict[str, State]
    tree: Tree
    digest: bytes


async def known(exchange: Exchange, conversation: Conversation) -> Known:
    """What a conversation is made of now.

    Raises:
        RequestError: it cannot be read.
    """

    def look(db: Database) -> tuple[Conversation | None, list[Link], set[str]]:
        return (
            conversations.get(db, conversation.id, None),
            entries.links(db, conversation),
            entries.hidden(db, conversation),
        )

    now, links, hidden = await exchange.host.objects.read(look)
    if now is None:
        now = await chains.named(exchange, conversation.id)
    generations = [link.id for link in links if not link.is_item]
    states = await exchange.host.generations.states(generations, exchange.request.user)
    # It takes some milliseconds per thousand entries.
    return await trio.to_thread.run_sync(_known, now, links, hidden, states)


def _known(
    now: Conversation, links: list[Link], hidden: set[str], states: dict[str, State]
) -> Known:
    of: defaultdict[str, list[str]] = defaultdict(list)
    for item in sorted(hidden):
        of[earlier.generation_of(item) or ""].append(item)
    shown = [view(now), now.head, now.updated, links, sorted(hidden), sorted(states.items())]
    digest = blake2b(msgspec.json.encode(shown), digest_size=16).digest()
    tree = Tree(links, states, now.head)
    return Known(now, hidden, {id_: tuple(one) for id_, one in of.items()}, states, tree, digest)


async def nodes(
    exchange: Exchange, found: Known, spots: Sequence[Spot], *, render: bool
) -> list[tuple[Spot, msgspec.Raw]]:
    """The entries at these spots as JSON, each with its place; as many as a page may have."""
    made: list[tuple[Spot, msgspec.Raw]] = []
    size = 0
    for first in range(0, len(spots), _STEP):
        some = spots[first : first + _STEP]
        written = await _step(exchange, found, some, render=render)
        # What has just been deleted is left out.
        made += [
            (spot, _placed(found.tree, spot, written[spot.seq]))
            for spot in some
            if spot.seq in written
        ]
        size += sum(map(len, written.values()))
        if size > _MOST:
            break
    return made


async def _step(
    exchange: Exchange, found: Known, spots: Sequence[Spot], *, render: bool
) -> dict[int, bytes]:
    """Entries as JSON, by their numbers: those that are known, and those that are made now."""
    cache = exchange.host.shown
    keys = {
        spot.seq: _key(found, spot.generation, render=render)
        for spot in spots
        if spot.generation is not None and found.states[spot.generation] not in _RUNNING
    }
    written = {seq: node for seq, key in keys.items() if (node := cache.get(key)) is not None}
    new = [spot for spot in spots if spot.seq not in written]
    if not new:
        return written
    items = await _items(exchange, new)
    kept, running = await _sources(exchange, found, new)
    write = partial(_written, found, new, items, kept | running, render=render)
    made = await trio.to_thread.run_sync(write, limiter=RENDERERS if render else None)
    for spot in new:
        if spot.seq in made and spot.generation in kept:
            cache.keep(keys[spot.seq], made[spot.seq])
    return written | made


def _key(found: Known, generation: str, *, render: bool) -> Key:
    hidden = found.hidden_of.get(generation, ())
    return Key(generation, found.conversation.id, hidden, render)


def _placed(tree: Tree, spot: Spot, node: bytes) -> msgspec.Raw:
    place = {"previous": tree.previous(spot), "versions": tree.versions(spot)}
    return msgspec.Raw(node[:-1] + b"," + msgspec.json.encode(place)[1:])


async def listed(exchange: Exchange) -> None:
    """The entries of a conversation, each with its place in the tree, in pages."""
    query = exchange.request.query
    ignored = Ignored(lenient=exchange.host.settings.lenient)
    ignored.check_query(query, (*PAGING, "path", "render"))
    wanted = PageQuery.of(query, default=DEFAULT_PAGE, most=LARGEST_PAGE)
    render = _renders(query.get("render"))
    named = await chains.named(exchange, exchange.request.parameters["id"])
    found = await known(exchange, named)
    tag = await _tag(exchange, found)
    headers = {**ignored.headers(), "ETag": tag}
    conditions = ",".join(exchange.request.headers.all("if-none-match")).split(",")
    if tag in (one.strip().removeprefix("W/") for one in conditions):
        exchange.respond(304, b"", headers=headers)
        return
    spots = _chosen(found.tree, wanted, query.get("path"))
    shown = spots[: wanted.limit]
    with exchange.host.holding(exchange.request.user, 2 * min(_MOST, _ENTRY * len(shown))):
        made = await nodes(exchange, found, shown, render=render)
        document = {
            "object": "list",
            "data": [one for _, one in made],
            "first_id": made[0][0].id if made else None,
            "last_id": made[-1][0].id if made else None,
            "has_more": bool(made) and made[-1][0] != spots[-1],
            "conversation": view(found.conversation),
            "active": found.tree.active,
        }
        exchange.respond(200, msgspec.json.encode(document), headers=headers)


def _renders(wanted: str | None) -> bool:
    if wanted not in (None, "html"):
        message = f"render must be html, not {wanted[:60]!r}"
        raise HttpError(400, message, param="render", code="invalid_request")
    return wanted is not None


def _chosen(tree: Tree, wanted: PageQuery, path: str | None) -> list[Spot]:
    """The entries of a list that begins where it is wanted.

    Raises:
        HttpError: there is no such entry.
    """
    if path is None:
        spots = list(tree.spots.values())
    elif path == _ACTIVE:
        spots = tree.active_path()
    else:
        spots = tree.path(_spot(tree, path, "path"))
    if not wanted.ascending:
        spots.reverse()
    if wanted.after is None:
        return spots
    after = _spot(tree, wanted.after, "after")
    if after not in spots:
        raise _missing(wanted.after, "after")
    return spots[spots.index(after) + 1 :]


def _spot(tree: Tree, id_: str, param: str) -> Spot:
    found = tree.find(id_)
    if found is None:
        raise _missing(id_, param)
    return found


def _missing(id_: str, param: str) -> HttpError:
    return HttpError(
        404,
        f"there is no response and no item {id_[:80]!r} in this list",
        param=param,
        code="item_not_found",
    )


async def _tag(exchange: Exchange, found: Known) -> str:
    """Names what the pages of a conversation show."""
    progress = []
    for id_, state in found.states.items():
        if state in _RUNNING:
            try:
                one = await find(exchange, id_)
            except UnknownGeneration:
                continue
            progress.append((id_, one.state, one.visible, one.place.position))
    shown = (
        package_version(),
        sorted(exchange.request.query.items()),
        found.digest,
        progress,
    )
    return f'"{blake2b(msgspec.json.encode(shown), digest_size=12).hexdigest()}"'


async def _items(exchange: Exchange, spots: Sequence[Spot]) -> dict[int, Entry]:
    """The items among entries, by their numbers."""
    seqs = [spot.seq for spot in spots if spot.generation is None]
    if not seqs:
        return {}
    found = await exchange.host.objects.read(lambda db: entries.some(db, seqs))
    return {one.seq: one for one in found}


async def _sources(
    exchange: Exchange, found: Known, spots: Sequence[Spot]
) -> tuple[dict[str, Source], dict[str, Source]]:
    """What responses are made of: those that are kept, and those that are only in memory."""
    ids = [spot.generation for spot in spots if spot.generation is not None]
    over = [id_ for id_ in ids if found.states[id_] not in _RUNNING]
    id_of = found.conversation.id
    user = exchange.request.user

    def read(result: Result) -> Source:
        return Source.of_result(result, id_of)

    kept = await exchange.host.generations.results(over, user, read)
    running: dict[str, Source] = {}
    for id_ in ids:
        generation = None if id_ in kept else await _in_memory(exchange, id_)
        if generation is None:
            continue
        if generation.ended:  # since it was listed; memory may have let go what it was asked
            running |= await exchange.host.generations.results([id_], user, read)
        if id_ not in running:
            running[id_] = Source.of_running(generation, id_of)
    return kept, running


async def _in_memory(exchange: Exchange, id_: str) -> Generation | None:
    try:
        found = await find(exchange, id_)
        await earlier.here(exchange, found)
    except UnknownGeneration:  # it has just been deleted
        return None
    return found


def _written(
    found: Known,
    spots: Sequence[Spot],
    items: dict[int, Entry],
    sources: dict[str, Source],
    *,
    render: bool,
) -> dict[int, bytes]:
    written = {}
    for spot in spots:
        entry, source = items.get(spot.seq), sources.get(spot.generation or "")
        if source is not None:
            node = node_of(source, found.hidden, render=render)
        elif entry is not None and entry.item is not None:
            node = node_of_item(entry.item, render=render)
        else:  # it has just been deleted
            continue
        written[spot.seq] = msgspec.json.encode(node)
    return written
