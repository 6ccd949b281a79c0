"""From a request over HTTP to its answer: which generations answer it, old or new.

- With `Last-Event-ID`: those that it names, from the next event on.
- With `Idempotency-Key`: those that the key means, running or stored, else new ones.
- The retry of an SDK: those that the same request began before and nobody reads, else new ones.

Of n choices, each is a generation of its own, and each has a key: the request's for the first one,
and one derived from it for each other. So they find each other, after a restart, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any
from uuid import uuid4

import msgspec

from llcuda_net.errors import InvalidRequest, KeyConflict, RequestError
from llcuda_net.generation.generation import Generation
from llcuda_net.generation.registry import unknown
from llcuda_net.generation.request import hash_of_request
from llcuda_net.server.http.delivery.event_ids import check, parse
from llcuda_net.server.http.delivery.format import Format, failure_of
from llcuda_net.server.http.delivery.leaving import (
    is_retry,
    joinable,
    seconds_without_reader,
    wanted_policy,
)
from llcuda_net.server.http.delivery.stream import EventStream, ids_of
from llcuda_net.server.http.delivery.whole import WholeReader
from llcuda_net.server.http.exchange import Exchange
from llcuda_net.server.http.request import Headers
from llcuda_protocol import Attach, Generate

#: Most characters of an idempotency key: those of choices are derived from it.
MOST_KEY = 200


async def deliver(
    exchange: Exchange,
    requests: Sequence[Generate],
    form: Format,
    *,
    headers: Mapping[str, str],
) -> None:
    """Answer a request, streamed or not.

    Args:
        requests: one per choice, without key and policies.
        form: of the answer; it is kept with the request.
        headers: of the answer, beside its own.

    Raises:
        RequestError, HttpError: it cannot be answered; nothing was sent.
    """
    generations, sent = await begin(exchange, requests, form)
    await answer(exchange, generations, form, sent=sent, headers=headers)


async def answer(
    exchange: Exchange,
    generations: Sequence[Generation],
    form: Format,
    *,
    sent: Sequence[int],
    headers: Mapping[str, str],
) -> None:
    """Answer with generations that `begin` has found, streamed or not.

    Args:
        sent: how many events of each the client has.
        form, headers: as of `deliver`.

    Raises:
        RequestError, HttpError: as `deliver`.
    """
    if form.stream:
        await EventStream(exchange, generations, form, sent=sent, headers=headers).run()
        return
    reader = WholeReader(exchange, generations)
    over = False
    try:
        await reader.wait()
        over = True
        named = {"x-llcuda-generation": ids_of(generations)}
        for generation in generations:
            failure = failure_of(generation)
            if failure is not None:
                if generation.accepted:
                    failure.headers.update(named)
                raise failure
        exchange.respond(200, form.whole(generations), headers={**headers, **named})
    finally:
        reader.leave()
        if not over:
            for generation in generations:
                exchange.host.orphans.add(generation)


async def begin(
    exchange: Exchange,
    requests: Sequence[Generate],
    form: Format,
    *,
    alone: float | None = None,
) -> tuple[list[Generation], list[int]]:
    """What answers a request, old or new, and how many events of each the client has.

    Args:
        requests, form: as of `deliver`.
        alone: seconds for which the answer goes on without a reader; None: as the client's header
            says, or as it can come back.

    Raises:
        RequestError, HttpError: as `deliver`.
    """
    headers = exchange.request.headers
    key = idempotency_key(headers)
    default = exchange.host.settings.disconnect_seconds
    seconds = alone
    if seconds is None:
        seconds = seconds_without_reader(headers, default, with_key=key is not None)
    apis = [api_of(form, index, len(requests)) for index in range(len(requests))]
    last = last_event_id(exchange)
    if last:
        found, sent = await resumed(exchange, last)
        hashes = [hash_of_request(*one) for one in zip(requests, apis, strict=True)]
        if [one.request_hash for one in found] != hashes or key not in (None, found[0].key):
            raise KeyConflict(
                "Last-Event-ID names the answer to another request: send the same again, or read "
                "that one at /v1/generations/{id}/events"
            )
    else:
        found, sent = _joined(exchange, requests, apis) if key is None else [], []
    if found:
        _obey(headers, found)
        return found, sent
    return await _new(exchange, requests, apis, key, seconds), [0] * len(requests)


async def _new(
    exchange: Exchange,
    requests: Sequence[Generate],
    apis: Sequence[dict[str, Any]],
    key: str | None,
    seconds: float,
) -> list[Generation]:
    """Begin them, or join those that the key means."""
    fresh = key is None
    if key is None and len(requests) > 1:
        key = f"choices:{uuid4()}"
    begun: list[Generation] = []
    try:
        for index, (request, api) in enumerate(zip(requests, apis, strict=True)):
            named = replace(
                request, key=key_of(key, index), fresh=fresh, on_disconnect=min(seconds, 1e9)
            )
            begun.append(await exchange.host.intake.begin(named, exchange.request.user, api))
    except RequestError:
        for generation in begun:
            if not generation.readers:
                generation.cancel()
        raise
    _obey(exchange.request.headers, begun)
    return begun


def _joined(
    exchange: Exchange, requests: Sequence[Generate], apis: Sequence[dict[str, Any]]
) -> list[Generation]:
    """What a client that sends its request again has begun before; nothing: begin."""
    if not is_retry(exchange.request.headers):
        return []
    host, owner = exchange.host, exchange.request.user.name
    hashes = [hash_of_request(*one) for one in zip(requests, apis, strict=True)]
    known = dict.fromkeys(
        one
        for one in (
            *host.orphans,
            *(g for h in hashes for g in host.generations.same_request(h, owner)),
        )
        if one.owner == owner and joinable(one)
    )
    for first in reversed([one for one in known if one.request_hash == hashes[0]]):
        keys = [key_of(first.key, index) for index in range(len(hashes))]
        rest = [
            next((g for g in known if g.request_hash == hash_ and g.key == key), None)
            for hash_, key in zip(hashes[1:], keys[1:], strict=True)
        ]
        found = [first, *(one for one in rest if one is not None)]
        if len(found) == len(hashes):
            return found
    return []


async def resumed(exchange: Exchange, last: str) -> tuple[list[Generation], list[int]]:
    """The generations that an event's id names, and how many events of each the reader has.

    Raises:
        RequestError: it is no such id, there are none such, or they are not as they were.
    """
    found, sent = [], []
    for id_, position in parse(last).items():
        generation = await find(exchange, id_)
        await generation.reach(partial(generation.has, *position))
        sent.append(check(generation, position))
        found.append(generation)
    return found, sent


async def choices_of(exchange: Exchange, generation: Generation) -> list[Generation]:
    """All choices of the answer that a generation is part of.

    Raises:
        RequestError: one of them is not there any more.
    """
    api = generation.api or {}
    count, index, key = api.get("n", 1), api.get("index", 0), generation.key
    if count == 1 or key is None:
        return [generation]
    base = key if not index else key.removesuffix(f"#{index}")
    found = []
    for place in range(count):
        of_key = key_of(base, place)
        assert of_key is not None
        one = await exchange.host.generations.find_by_key(of_key, generation.owner)
        if one is None:
            raise unknown(generation.id)
        found.append(one)
    found[index] = generation
    return found


async def find(exchange: Exchange, id_: str) -> Generation:
    """A generation that this user may read.

    Raises:
        RequestError: there is none.
    """
    return await exchange.host.generations.find(Attach(0, id_[:256], 0), exchange.request.user)


def last_event_id(exchange: Exchange) -> str:
    """The id of the last event that the client has; empty: it has none."""
    request = exchange.request
    return request.headers.get("last-event-id") or request.query.get("last_event_id") or ""


def key_of(key: str | None, index: int) -> str | None:
    """The key of a choice."""
    return f"{key}#{index}" if index and key is not None else key


def idempotency_key(headers: Headers) -> str | None:
    """The key that a client gives its request; None: it gives none.

    Raises:
        InvalidRequest: it cannot be one.
    """
    key = headers.get("idempotency-key")
    if key is None:
        return None
    key = key.strip()
    if not key or len(key) > MOST_KEY or not key.isprintable():
        raise InvalidRequest(f"Idempotency-Key has 1 to {MOST_KEY} printable characters")
    return key


def api_of(form: Format, index: int = 0, count: int = 1) -> dict[str, Any]:
    """What is kept of an API with the request of a choice; see Generation."""
    api: dict[str, Any] = {"kind": form.kind, "shape": msgspec.to_builtins(form)}
    return api if count == 1 else {**api, "n": count, "index": index}


def _obey(headers: Headers, generations: Sequence[Generation]) -> None:
    """A client that joins may say, too, what is to become of the answer without it."""
    seconds = wanted_policy(headers)
    if seconds is not None:
        for generation in generations:
            generation.on_disconnect = seconds
