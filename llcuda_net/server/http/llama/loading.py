"""GET /models, POST /models/load and /models/unload: local models into memory and out of it.

As llama-server's router mode has them: the answer says that it has begun, and GET /models how it
stands. Where users have tokens, it is for admins: what is loaded takes the memory of all.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from llcuda_net.config.upstreams import ROLES
from llcuda_net.errors import RequestError, UnknownModel
from llcuda_net.models.serving.instance import Instance
from llcuda_net.models.serving.manager import Manager
from llcuda_net.server.http.errors import HttpError, of_request_error
from llcuda_net.server.http.exchange import Exchange
from llcuda_net.server.http.openai import strict_json
from llcuda_net.server.http.openai.bodies import convert
from llcuda_net.server.http.openai.fields import IGNORED_HEADER, Ignored
from llcuda_net.server.http.openai.models import models_of
from llcuda_net.upstream.residence import Presence

_DONE = b'{"success":true}'
#: What a model must not be already, as people say it.
_SAID = {
    Presence.UNLOADED: "not loaded",
    Presence.LOADING: "being loaded already",
    Presence.LOADED: "loaded already",
    Presence.UNLOADING: "being unloaded already",
}


class LoadBody(msgspec.Struct, kw_only=True):
    """The body of POST /models/load and /models/unload: a model by its name or an alias."""

    model: Annotated[str, Meta(min_length=1, max_length=1024)]


async def list_loaded(exchange: Exchange) -> None:
    """The list of /v1/models. The folder is read again on SIGHUP, and not for `reload`."""
    data = models_of(exchange.host)
    headers = {IGNORED_HEADER: "reload"} if "reload" in exchange.request.query else {}
    body = msgspec.json.encode({"object": "list", "data": data})
    exchange.respond(200, body, headers=headers)


async def load(exchange: Exchange) -> None:
    """Have a model loaded; the answer does not wait for the end of it."""
    manager, instance, headers = await _asked(exchange)
    presence = instance.residence.presence
    if presence in (Presence.LOADING, Presence.LOADED):
        raise _needless(instance)
    try:
        manager.load(instance.name)
    except RequestError as error:
        raise of_request_error(error, "model") from None
    exchange.respond(200, _DONE, headers=headers)


async def unload(exchange: Exchange) -> None:
    """Have a model unloaded, once what runs on it has ended; a request for it loads it again."""
    manager, instance, headers = await _asked(exchange)
    presence = instance.residence.presence
    if presence in (Presence.UNLOADING, Presence.UNLOADED) and not manager.wanted(instance.name):
        raise _needless(instance)
    manager.unload(instance.name)
    exchange.respond(200, _DONE, headers=headers)


async def _asked(exchange: Exchange) -> tuple[Manager, Instance, dict[str, str]]:
    """The model that is meant, what loads it, and headers of the answer.

    Raises:
        HttpError: the user may not, there is no such model, or others run it.
    """
    request, host = exchange.request, exchange.host
    if not request.user.admin:
        raise HttpError(
            403,
            "models are loaded and unloaded by users with role=admin, and by requests for them",
            type="permission_error",
        )
    ignored = Ignored(lenient=host.settings.lenient)
    body = await strict_json.read(
        request.body,
        lambda data: convert(ignored.keep(data, LoadBody.__struct_fields__), LoadBody),
    )
    if host.starting:
        await host.started(request.user, len(body.model))
    manager = host.models
    instance = None if manager is None else manager.find(body.model)
    if manager is not None and instance is not None:
        return manager, instance, ignored.headers()
    if manager is None and any(host.pool.canonical(body.model, role) for role in ROLES):
        raise HttpError(
            400,
            f"its upstream loads and unloads {body.model[:100]!r}: this server does not run it",
            param="model",
            code="unsupported",
        )
    names = [] if manager is None else [one.name for one in manager.instances]
    there = ", ".join(names) or "none that this server runs itself"
    unknown = UnknownModel(f"there is no model {body.model[:100]!r}; there are: {there}")
    raise of_request_error(unknown, "model")


def _needless(instance: Instance) -> HttpError:
    said = _SAID[instance.residence.presence]
    return HttpError(400, f"model {instance.name} is {said}", param="model", code="model_state")
