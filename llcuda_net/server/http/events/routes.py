"""GET /v1/events."""

from __future__ import annotations

from llcuda_net.server.http.events.asked import Asked
from llcuda_net.server.http.events.stream import PageStream
from llcuda_net.server.http.exchange import Exchange
from llcuda_net.server.http.route import Route


async def events(exchange: Exchange) -> None:
    """Everything that a page shows, as it changes."""
    asked = Asked.of(exchange.request.query, admin=exchange.request.user.admin)
    if exchange.host.starting:
        await exchange.host.started(exchange.request.user, 0)
    await PageStream(exchange, asked).run()


#: It ends when its reader does: a server that stops would wait for it in vain.
ROUTES = [Route("GET", "/v1/events", events, awaited=False)]
