"""The list of a user's generations, newest first: those in memory before those in the store.

What runs is in the registry, what is over in the store, and while it goes from the one to the other
it is in both. So the registry is looked at first, and the store's word counts.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from llcuda_net.config.users import User, view_of
from llcuda_net.errors import InvalidRequest
from llcuda_net.generation.generation import Generation
from llcuda_net.generation.persistence import Persistence
from llcuda_net.generation.registry import Registry, unknown
from llcuda_net.generation.state import State
from llcuda_net.storage.channels import text_pieces
from llcuda_net.storage.records import Result
from llcuda_net.storage.results.codec import beginning, preview
from llcuda_net.storage.results.interface import Query, Summary
from llcuda_protocol import ListGenerations

#: Results read at once: the store has others to answer.
_STEP = 100
#: Characters of a name: any frame holds one entry at least.
_NAME = 256
#: What is known without asking the store.
_Known = Generation | Result
#: No store has these.
_NOT_OVER = (State.QUEUED, State.RUNNING)


async def newest(
    request: ListGenerations, user: User, registry: Registry, persistence: Persistence
) -> list[dict[str, Any]]:
    """The generations that a user may see (an admin: everybody's), as the protocol's entries.

    Raises:
        RequestError: there is no such state, no generation `before` that the user may see, or the
            store cannot be read.
    """
    state = _state(request.state)
    owner = view_of(user)
    known: dict[str, _Known] = {found.id: found for found in registry.known(owner)}
    known.update((found.id, found) for found in persistence.unstored(owner))
    # By age, then by id: the order of a page must be the order of the next one.
    here = sorted(known.values(), key=lambda found: (found.created, found.id), reverse=True)
    query = Query(owner=owner, states=[] if state is None else [state], limit=request.limit)
    if request.before is not None:
        here, query = await _behind(request.before, here, query, persistence)
    entries = [
        _of_result(found) if isinstance(found, Result) else _of_generation(found)
        for found in [f for f in here if state in (None, f.state)][: request.limit]
    ]
    if state not in _NOT_OVER:
        stored = await _stored(query, persistence)
        over = {summary.id for summary, _ in stored}
        entries = [entry for entry in entries if entry["id"] not in over]
        entries += [_of_summary(summary, text) for summary, text in stored]
    entries.sort(key=lambda entry: entry["created"], reverse=True)
    return [_told(entry, with_owner=user.admin) for entry in entries[: request.limit]]


def within(entries: list[dict[str, Any]], most: int) -> tuple[list[dict[str, Any]], int]:
    """The first entries that take at most so many bytes in a reply, and how many are left out."""
    for place, entry in enumerate(entries):
        # As in a frame: keys and numbers are at most 120 bytes.
        most -= 128 + sum(len(text.encode()) for text in entry.values() if isinstance(text, str))
        if most < 0:
            return entries[:place], len(entries) - place
    return entries, 0


def _state(name: str | None) -> State | None:
    try:
        return None if name is None else State(name)
    except ValueError:
        raise InvalidRequest(
            f"there is no state {name!r}: choose one of {', '.join(State)}",
        ) from None


async def _behind(
    before: str, here: list[_Known], query: Query, persistence: Persistence
) -> tuple[list[_Known], Query]:
    """What comes behind a generation: of those in memory, and as a query to the store."""
    for place, one in enumerate(here):
        if one.id == before:
            return here[place + 1 :], replace(query, until=one.created + 1)
    # Whoever may not see it must not be told that it is there, either.
    found = await persistence.listed(Query(id=before, owner=query.owner))
    if not found:
        raise unknown(before)
    created = found[0][0].created
    return [one for one in here if one.created < created], replace(query, after=before)


async def _stored(query: Query, persistence: Persistence) -> list[tuple[Summary, str]]:
    out: list[tuple[Summary, str]] = []
    left = query.limit or 0
    while left:
        page = await persistence.listed(replace(query, limit=min(_STEP, left)))
        out += page
        if len(page) < _STEP:
            break
        left -= len(page)
        query = replace(query, after=page[-1][0].id, until=None)
    return out


# -- entries, `created` in nanoseconds ------------------------------------------------------------


def _of_generation(generation: Generation) -> dict[str, Any]:
    # Not more than its readers may have.
    pieces = generation.text_pieces(generation.visible)
    entry = {
        "id": generation.id,
        "state": str(generation.state),
        "created": generation.created,
        "owner": generation.owner,
        "model": str(generation.outcome.model or generation.model.get("name") or ""),
        "tokens": max(generation.visible, generation.outcome.usage.get("completion_tokens", 0)),
        "preview": preview({"prompt": generation.prompt, "messages": generation.messages}),
        "text": beginning(pieces),
    }
    if generation.state is State.QUEUED and generation.place.position:
        entry["position"] = generation.place.position
    return entry


def _of_result(result: Result) -> dict[str, Any]:
    return {
        "id": result.id,
        "state": result.state,
        "created": result.created,
        "owner": result.owner,
        "model": str(result.model.get("name") or ""),
        "tokens": result.usage.get("completion_tokens", len(result.log.pieces)),
        "preview": preview(result.request),
        "text": beginning(text_pieces(result.log.pieces, result.switches)),
    }


def _of_summary(summary: Summary, text: str) -> dict[str, Any]:
    return {
        "id": summary.id,
        "state": summary.state,
        "created": summary.created,
        "owner": summary.owner,
        "model": summary.model,
        "tokens": summary.tokens,
        "preview": summary.preview,
        "text": text,
    }


def _told(entry: dict[str, Any], *, with_owner: bool) -> dict[str, Any]:
    """As the protocol has it."""
    out = {**entry, "created": entry["created"] / 1e9, "model": entry["model"][:_NAME]}
    owner = out.pop("owner")
    return {**out, "owner": owner[:_NAME]} if with_owner else out
