"""The list of a user's generations: those in memory, and those in the store.

What runs is in the registry, what is over in the store, and while it goes from the one to the other
it is in both. So the registry is looked at first, and the store's word counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from llcuda_net.config.users import User, view_of
from llcuda_net.errors import InvalidRequest
from llcuda_net.generation.generation import Generation
from llcuda_net.generation.persistence import Persistence
from llcuda_net.generation.registry import Registry, unknown
from llcuda_net.generation.state import State
from llcuda_net.storage.channels import text_pieces
from llcuda_net.storage.packing.codec import beginning, preview
from llcuda_net.storage.records import Result
from llcuda_net.storage.results.interface import Query, Summary
from llcuda_protocol import ListGenerations

#: Results read at once: the store has others to answer.
_STEP = 100
#: Characters of a name: any frame holds one entry at least.
_NAME = 256
#: What is known without asking the store.
_Known = Generation | Result | dict[str, Any]
#: No store has these.
_NOT_OVER = (State.QUEUED, State.RUNNING)


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which generations a list has: every condition that is set must hold.

    Attributes:
        limit: entries, at most.
        states: any of these; empty: every state.
        model: the name of the model.
        since, until: created from then on, and before then; nanoseconds since 1970.
        after: the id of the one behind which the list goes on, in its order.
        ascending: oldest first; else newest first.
    """

    limit: int
    states: tuple[State, ...] = ()
    model: str | None = None
    since: int | None = None
    until: int | None = None
    after: str | None = None
    ascending: bool = False

    @classmethod
    def of(cls, request: ListGenerations) -> Selection:
        """What a request of our own protocol asks for.

        Raises:
            InvalidRequest: there is no such state.
        """
        states = () if request.state is None else (state_of(request.state),)
        return cls(limit=request.limit, states=states, after=request.before)

    def holds(self, entry: dict[str, Any]) -> bool:
        """Whether an entry is among them, its place apart."""
        created = entry["created"]
        return (
            (not self.states or entry["state"] in self.states)
            and self.model in (None, entry["model"])
            and (self.since is None or created >= self.since)
            and (self.until is None or created < self.until)
        )


def in_memory(selection: Selection, user: User, registry: Registry) -> list[dict[str, Any]]:
    """Those that a user may see (an admin: everybody's) and that are in this server's memory, the
    newest first, as the protocol's entries.
    """
    entries = map(_of, registry.known(view_of(user)))
    found = sorted(filter(selection.holds, entries), key=_age, reverse=True)
    return [told(entry, with_owner=True) for entry in found[: selection.limit]]


def from_elsewhere(entry: dict[str, Any], owner: str | None) -> dict[str, Any]:
    """An entry that another server told, as `listed` takes it.

    Args:
        owner: whose it is; None: as it says.
    """
    return {
        "model": "",
        "tokens": 0,
        "preview": "",
        "text": "",
        "owner": "",
        **entry,
        "created": round(entry["created"] * 1e9),
        **({} if owner is None else {"owner": owner}),
    }


def _age(entry: dict[str, Any]) -> tuple[int, str]:
    return entry["created"], entry["id"]


async def listed(
    selection: Selection,
    user: User,
    registry: Registry,
    persistence: Persistence,
    elsewhere: Sequence[dict[str, Any]] = (),
) -> list[dict[str, Any]]:
    """The generations that a user may see (an admin: everybody's), as the protocol's entries.

    Args:
        elsewhere: those that are in the memory of other servers, see `from_elsewhere`.

    Raises:
        RequestError: there is no generation `after` that the user may see, or the store cannot be
            read.
    """
    owner = view_of(user)
    known: dict[str, _Known] = {one["id"]: one for one in elsewhere}
    known.update((found.id, found) for found in registry.known(owner))
    known.update((found.id, found) for found in persistence.unstored(owner))
    newest_first = not selection.ascending
    # By age, then by id: the order of a page must be the order of the next one.
    here = sorted(known.values(), key=_place, reverse=newest_first)
    query = Query(
        owner=owner,
        states=[str(state) for state in selection.states],
        model=selection.model,
        since=selection.since,
        until=selection.until,
        limit=selection.limit,
        ascending=selection.ascending,
    )
    if selection.after is not None:
        here, query = await _behind(selection.after, here, query, persistence)
    states = selection.states
    found = (_of(one) for one in here if not states or _state(one) in states)
    entries = list(islice(filter(selection.holds, found), selection.limit))
    if not states or any(state not in _NOT_OVER for state in states):
        stored = await _stored(query, persistence)
        over = {summary.id for summary, _ in stored}
        entries = [entry for entry in entries if entry["id"] not in over]
        entries += [
            of_summary(summary, text) for summary, text in stored if summary.id != selection.after
        ]
    entries.sort(key=lambda entry: entry["created"], reverse=newest_first)
    return [told(entry, with_owner=user.admin) for entry in entries[: selection.limit]]


def within(entries: list[dict[str, Any]], most: int) -> tuple[list[dict[str, Any]], int]:
    """The first entries that take at most so many bytes in a reply, and how many are left out."""
    for place, entry in enumerate(entries):
        # As in a frame: keys and numbers are at most 120 bytes.
        most -= 128 + sum(len(text.encode()) for text in entry.values() if isinstance(text, str))
        if most < 0:
            return entries[:place], len(entries) - place
    return entries, 0


def state_of(name: str) -> State:
    """The state of this name.

    Raises:
        InvalidRequest: there is none.
    """
    try:
        return State(name)
    except ValueError:
        raise InvalidRequest(
            f"there is no state {name[:60]!r}: choose one of {', '.join(State)}",
        ) from None


async def _behind(
    after: str, here: list[_Known], query: Query, persistence: Persistence
) -> tuple[list[_Known], Query]:
    """What comes behind a generation: of those in memory, and as a query to the store."""
    for place, one in enumerate(here):
        created, id_ = _place(one)
        if id_ == after:
            return here[place + 1 :], _from(created, query)
    # Whoever may not see it must not be told that it is there, either.
    found = await persistence.listed(Query(id=after, owner=query.owner))
    if not found:
        raise unknown(after)
    created = found[0][0].created
    if query.ascending:
        return [one for one in here if _place(one)[0] > created], replace(query, after=after)
    return [one for one in here if _place(one)[0] < created], replace(query, after=after)


def _from(created: int, query: Query) -> Query:
    """What a query has from this time on, in its order; one more, as it may have that one, too."""
    query = replace(query, limit=(query.limit or 0) + 1)
    if query.ascending:
        return replace(query, since=max(created, query.since or created))
    behind = created + 1
    return replace(query, until=behind if query.until is None else min(behind, query.until))


async def _stored(query: Query, persistence: Persistence) -> list[tuple[Summary, str]]:
    out: list[tuple[Summary, str]] = []
    left = query.limit or 0
    while left:
        page = await persistence.listed(replace(query, limit=min(_STEP, left)))
        out += page
        if len(page) < _STEP:
            break
        left -= len(page)
        query = replace(query, after=page[-1][0].id)
    return out


# -- entries, `created` in nanoseconds ------------------------------------------------------------


def _place(found: _Known) -> tuple[int, str]:
    """Its place in a list."""
    return _age(found) if isinstance(found, dict) else (found.created, found.id)


def _state(found: _Known) -> str:
    return str(found["state"] if isinstance(found, dict) else found.state)


def _of(found: _Known) -> dict[str, Any]:
    if isinstance(found, dict):
        return found
    return _of_result(found) if isinstance(found, Result) else _of_generation(found)


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


def of_summary(summary: Summary, text: str) -> dict[str, Any]:
    """An entry of what is stored."""
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


def told(entry: dict[str, Any], *, with_owner: bool) -> dict[str, Any]:
    """As the protocol has it."""
    out = {**entry, "created": entry["created"] / 1e9, "model": entry["model"][:_NAME]}
    owner = out.pop("owner")
    return {**out, "owner": owner[:_NAME]} if with_owner else out
