"""Short questions to an upstream of a model, that need none of its slots."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

from llcuda_net.config.upstreams import ROLES
from llcuda_net.errors import RequestError, UnknownModel, UpstreamUnavailable
from llcuda_net.server.http.errors import of_request_error
from llcuda_net.server.http.exchange import Exchange, HttpHost
from llcuda_net.server.http.openai.models import meant
from llcuda_net.upstream.backend import Backend
from llcuda_net.upstream.interface import DOWN, Upstream, is_for_another

#: Questions that are asked at once: a llama-server answers those with the threads that also stream.
_AT_ONCE = trio.CapacityLimiter(8)
#: Seconds after which to ask again, where no upstream is up.
_RETRY_AFTER = 1.0
_T = TypeVar("_T")


async def ask(
    exchange: Exchange,
    name: str | None,
    question: Callable[[Upstream], Awaitable[_T]],
    *,
    size: int,
) -> _T:
    """What an upstream of a model answers; where one fails, another is asked.

    Args:
        name: of the model, as the request has it; one that is used for anything will do.
        size: bytes of memory that question and answer may take.

    Raises:
        HttpError: there is no such model, none of its upstreams answers, or it refuses.
    """
    host, user = exchange.host, exchange.request.user
    try:
        if host.starting:
            await host.started(user, size)
        serving = _serving(host, name)
    except RequestError as error:
        raise of_request_error(error, "model" if error.code == "unknown_model" else None) from None
    with host.holding(user, size):
        while True:
            try:
                return await _first_answer(serving, question)
            except UnknownModel:
                if not any(one.draining for one in serving):
                    raise
            # It was taken out while it was waited for; another may have its name by now.
            try:
                serving = _serving(host, name)
            except RequestError as error:
                raise of_request_error(error, "model") from None


async def _first_answer(
    serving: list[Backend], question: Callable[[Upstream], Awaitable[_T]]
) -> _T:
    failure: RequestError | None = None
    for backend in serving:
        try:
            async with backend.there(), _AT_ONCE:  # one that loads takes nobody's place
                return await question(backend.upstream)
        except RequestError as error:
            if not is_for_another(error):
                raise
            if error.code in DOWN:
                backend.attention.set()  # its health check looks now
            failure = failure or error
    assert failure is not None
    raise failure


def _serving(host: HttpHost, name: str | None) -> list[Backend]:
    """The upstreams of a model that are up, the least busy one first; else one that can be loaded.

    Raises:
        HttpError, RequestError: there is no such model, or none of them is up or can be loaded.
    """
    pool = host.pool
    role = next((one for one in ROLES if pool.canonical(name, one)), ROLES[0])
    wanted, _ = meant(host, name, role)
    backends = pool.named(wanted, role)
    # What takes no slot may also be asked of one that another server of the cluster has.
    there = [one for one in backends if one.answers] or [one for one in backends if one.loadable]
    if not there:
        reasons = "; ".join(f"{one.name}: {one.reason}" for one in backends)
        raise UpstreamUnavailable(
            f"no upstream of the model is up ({reasons})"[:500],
            retry=True,
            retry_after=_RETRY_AFTER,
        )
    return sorted(there, key=lambda one: (one.resting, one.busy / max(1, one.slots)))
