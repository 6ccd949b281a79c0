"""GET /v1/status: what `llcuda top` shows, as JSON; for the page, and for other monitors."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from llcuda_net.server.http.errors import HttpError
from llcuda_net.server.http.exchange import Exchange
from llcuda_net.server.http.request import check_names
from llcuda_net.server.http.route import Route
from llcuda_net.telemetry.shortened import MOST_BYTES

#: Bytes of memory that a document takes, and its JSON.
_SIZE = 2 * MOST_BYTES
#: Names of parameters, with what they do.
PARAMETERS = {"history": "whether it has a sample of each second of the last two minutes"}


async def status(exchange: Exchange) -> None:
    """How the server stands, as its user may see it."""
    request, host = exchange.request, exchange.host
    history = _wants_history(request.query)
    if host.starting:
        await host.started(request.user, _SIZE)
    with host.holding(request.user, _SIZE):
        body = msgspec.json.encode(await host.status(request.user, history=history))
        exchange.respond(200, body, headers={"Cache-Control": "no-store"})


ROUTES = [Route("GET", "/v1/status", status)]


def _wants_history(query: Mapping[str, str]) -> bool:
    check_names(query, PARAMETERS)
    wanted = query.get("history", "false")
    if wanted not in ("true", "false"):
        message = f"history is true or false, not {wanted[:60]!r}"
        raise HttpError(400, message, param="history", code="invalid_request")
    return wanted == "true"
