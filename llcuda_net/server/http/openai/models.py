"""Models: which there are, and which one a request means."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from llcuda_net.config.upstreams import COMPLETIONS, ROLES
from llcuda_net.errors import UnknownModel
from llcuda_net.server.http.errors import HttpError, of_request_error
from llcuda_net.server.http.exchange import Exchange, HttpHost
from llcuda_net.upstream.backend import Backend
from llcuda_net.upstream.pool import Pool

#: States of a model, the best one first: that of its best upstream counts.
LOADED, BUSY, LOADING, DOWN = "loaded", "busy", "loading", "down"
_STATES = (LOADED, BUSY, LOADING, DOWN)


def meant(host: HttpHost, name: str | None, role: str = COMPLETIONS) -> tuple[str | None, str]:
    """Which model a request means.

    Where one is served, or `--default-model` names one, any name will do: most clients insist on
    sending some.

    Returns:
        The name to ask the pool for, None for the default one; and the name for the answer.

    Raises:
        HttpError: there is none of this name, and there are several.
    """
    names = host.pool.names(role)
    default = host.settings.default_model
    if (found := host.pool.canonical(name, role)) is not None:
        return found, name or ""
    if default is not None and (role == COMPLETIONS or default in names):
        return default, default
    if not name or len(names) <= 1:
        return None, names[0] if names else name or ""
    raise _unknown(name, names)


async def list_models(exchange: Exchange) -> None:
    """GET /v1/models."""
    data = models_of(exchange.host.pool)
    exchange.respond(200, msgspec.json.encode({"object": "list", "data": data}))


async def get_model(exchange: Exchange) -> None:
    """GET /v1/models/{id}."""
    exchange.respond(200, msgspec.json.encode(find_model(exchange)))


def find_model(exchange: Exchange) -> dict[str, Any]:
    """The model that the path names.

    Raises:
        HttpError: there is none.
    """
    wanted = exchange.request.parameters["id"]
    models = models_of(exchange.host.pool)
    for model in models:
        if model["id"] == wanted:
            return model
    raise _unknown(wanted, [model["id"] for model in models])


def _unknown(name: str, names: Iterable[str]) -> HttpError:
    there = ", ".join(names) or "none yet"
    error = UnknownModel(f"there is no model {name[:100]!r}; there are: {there}")
    return of_request_error(error, "model")


def models_of(pool: Pool) -> list[dict[str, Any]]:
    """Each model with what is known of it, the default one first."""
    by_name: dict[str, list[Backend]] = {}
    for name in dict.fromkeys(name for role in ROLES for name in pool.names(role)):
        by_name[name] = [one for one in pool.backends if one.model == name and not one.draining]
    return [_model(name, backends) for name, backends in by_name.items()]


def _model(name: str, backends: list[Backend]) -> dict[str, Any]:
    known = [one.upstream.properties for one in backends]
    state = min((_state(one) for one in backends), key=_STATES.index, default=DOWN)
    return {
        "id": name,
        "object": "model",
        "created": 0,
        "owned_by": "llcuda",
        "context_length": min((one.context for one in known if one is not None), default=None),
        "slots": sum(one.slots for one in backends if one.up),
        "free_slots": sum(one.free for one in backends if one.up),
        "state": state,
        "capabilities": sorted(_roles(backends)),
        "modalities": _modalities(backends),
        "fingerprint": next((_public(one) for one in backends if one.fingerprint()), None),
    }


def _state(backend: Backend) -> str:
    if backend.loading:
        return LOADING
    if not backend.up:
        return DOWN
    return BUSY if backend.resting else LOADED


def _roles(backends: Iterable[Backend]) -> set[str]:
    return {role for one in backends for role in one.roles}


def _modalities(backends: Iterable[Backend]) -> list[str]:
    """What the messages to a model may have, as far as its upstreams say."""
    known = [one.upstream.properties for one in backends]
    found = ["text"]
    if any(one is not None and one.images for one in known):
        found.append("image")
    if any(one is not None and one.audio for one in known):
        found.append("audio")
    return found


def _public(backend: Backend) -> dict[str, Any]:
    """What distinguishes its model from others; not where its file is."""
    known = backend.fingerprint()
    return {key: known[key] for key in ("name", "hash", "size", "quantisation") if key in known}
