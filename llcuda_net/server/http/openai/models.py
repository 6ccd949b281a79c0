"""Models: which there are, how each stands, and which one a request means.

An entry of the list is what OpenAI's API has, what llama-server's router mode adds (`status`,
`architecture`, `aliases`, `tags`, `source`, `can_remove`), and what is ours. Where a file is, no
entry says.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import msgspec

from llcuda_net.config.upstreams import COMPLETIONS, ROLES
from llcuda_net.errors import UnknownModel
from llcuda_net.server.http.errors import HttpError, of_request_error
from llcuda_net.server.http.exchange import Exchange, HttpHost
from llcuda_net.upstream.backend import Backend
from llcuda_net.upstream.residence import Presence

if TYPE_CHECKING:
    from llcuda_net.cluster.owners.loads import ModelLoad

LOADED, BUSY, LOADING, DOWN = "loaded", "busy", "loading", "down"
#: States of a model, the best one first: that of its best upstream counts. Each with the one that
#: llama-server's router mode has for it.
STATES = {
    LOADED: "loaded",
    BUSY: "loaded",
    str(Presence.LEAVING): "loaded",
    LOADING: "loading",
    str(Presence.UNLOADING): "unloaded",
    str(Presence.UNLOADED): "unloaded",
    DOWN: "unloaded",
}
_BEST = tuple(STATES)


def meant(host: HttpHost, name: str | None, role: str = COMPLETIONS) -> tuple[str | None, str]:
    """Which model a request means.

    Where one is served, or `--default-model` names one, any name will do: most clients insist on
    sending some. Not where a folder is served: there models come and go by their names.

    Returns:
        The name to ask the pool for, None for the default one; and the name for the answer.

    Raises:
        HttpError: there is none of this name, and there are several; or it is for another role.
    """
    names = host.pool.names(role)
    default = host.settings.default_model
    if (
        name
        and role == COMPLETIONS
        and not host.pool.canonical(name)
        and name in host.elsewhere_models
    ):
        return name, name  # another server of the cluster has it
    if (found := host.pool.canonical(name, role)) is not None:
        return found, name or ""
    if name and any(host.pool.canonical(name, other) for other in ROLES):
        # Another model's answer under this name would be taken for its own.
        there = ", ".join(names) or "none"
        error = UnknownModel(f"the model {name!r} is not for {role}; for that there are: {there}")
        raise of_request_error(error, "model")
    if default is not None and (role == COMPLETIONS or default in names):
        return default, default
    if not name or (len(names) <= 1 and host.settings.models is None):
        return None, names[0] if names else name or ""
    if role == COMPLETIONS:
        names = [*dict.fromkeys([*names, *_others(host)])]
    raise _unknown(name, names)


async def list_models(exchange: Exchange) -> None:
    """All models, the default one first, loaded or not."""
    data = models_of(exchange.host)
    exchange.respond(200, msgspec.json.encode({"object": "list", "data": data}))


async def get_model(exchange: Exchange) -> None:
    """One model."""
    exchange.respond(200, msgspec.json.encode(find_model(exchange)))


def find_model(exchange: Exchange) -> dict[str, Any]:
    """The model that the path names.

    Raises:
        HttpError: there is none.
    """
    wanted = exchange.request.parameters["id"]
    models = models_of(exchange.host)
    for model in models:
        if model["id"] == wanted or wanted in model["aliases"]:
            return model
    raise _unknown(wanted, [model["id"] for model in models])


def _unknown(name: str, names: Iterable[str]) -> HttpError:
    there = ", ".join(names) or "none yet"
    error = UnknownModel(f"there is no model {name[:100]!r}; there are: {there}")
    return of_request_error(error, "model")


def models_of(host: HttpHost) -> list[dict[str, Any]]:
    """Each model with what is known of it, the default one first."""
    pool = host.pool
    ours = {} if host.models is None else {one["name"]: one for one in host.models.report()}
    by_name: dict[str, list[Backend]] = {}
    for name in dict.fromkeys(name for role in ROLES for name in pool.names(role)):
        by_name[name] = [one for one in pool.backends if one.model == name and not one.draining]
    others = [_model_elsewhere(name, load) for name, load in _others(host).items()]
    return [_model(name, backends, ours.get(name)) for name, backends in by_name.items()] + others


def _others(host: HttpHost) -> dict[str, ModelLoad]:
    """The models that only other servers of the cluster have, by their names without aliases."""
    here = {name for role in ROLES for name in host.pool.names(role)}
    return {
        name: load
        for name, load in host.elsewhere_models.items()
        if name not in load.aliases and name not in here
    }


def _model_elsewhere(name: str, load: ModelLoad) -> dict[str, Any]:
    """An entry of the list, of one that requests are sent to another server for."""
    state = LOADED if load.slots else DOWN
    return {
        **_model(name, [], None),
        "aliases": [*load.aliases],
        "status": {"value": STATES[state], "args": []},
        "source": "cluster",
        "slots": load.slots,
        "free_slots": load.free,
        "state": state,
        "capabilities": [COMPLETIONS],
        "waiting": load.queued,
    }


def _model(name: str, backends: list[Backend], ours: dict[str, Any] | None) -> dict[str, Any]:
    """An entry of the list.

    Args:
        ours: what the manager of local models reports of it; None: we do not run it ourselves.
    """
    known = [one.upstream.properties for one in backends]
    best = min(backends, key=lambda one: _BEST.index(_state(one)), default=None)
    state = DOWN if best is None else _state(best)
    modalities = _modalities(backends)
    return {
        "id": name,
        "object": "model",
        "created": 0,
        "owned_by": "llcuda",
        "aliases": list(dict.fromkeys(alias for one in backends for alias in one.spec.aliases)),
        "tags": [],
        "status": _status(state, best),
        "architecture": {"input_modalities": modalities, "output_modalities": ["text"]},
        "source": "upstream" if ours is None else "local",
        "can_remove": False,
        "context_length": min(
            (one.context for one in known if one is not None),
            default=None if ours is None else ours["context"],
        ),
        "slots": sum(one.slots for one in backends if one.up),
        "free_slots": sum(one.free for one in backends if one.up),
        "state": state,
        "capabilities": sorted(_roles(backends)),
        "modalities": modalities,
        "fingerprint": next((_public(one) for one in backends if one.fingerprint()), None),
        "memory": ours and {"host": ours["memory"], "gpu": ours["gpu_memory"]},
        "pinned": ours and ours["pinned"],
        "wanted": ours and ours["wanted"],
        "running": sum(one.busy for one in backends),
        "waiting": ours and ours["waiting"],
        "loads": ours and ours["loads"],
        "engine": ours and ours["engine"],
    }


def _status(state: str, backend: Backend | None) -> dict[str, Any]:
    """As llama-server's router mode has it; reason, ready_in and error are ours."""
    residence = None if backend is None else backend.residence
    value = STATES[state]
    status: dict[str, Any] = {"value": value, "args": []}
    if backend is None or residence is None or value == "loaded":
        return status
    left = residence.ready_in
    status |= {"reason": backend.reason, "ready_in": None if left is None else round(left, 3)}
    if residence.error is not None and value == "unloaded":
        status |= {"failed": True, "error": residence.error.message}
    return status


def _state(backend: Backend) -> str:
    if backend.residence is not None and (backend.absent or backend.leaving):
        return str(backend.residence.presence)
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
