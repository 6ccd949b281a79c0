"""HTTP for operators: metrics, liveness, readiness; on the server's port and on `--metrics-port`.

/metrics for Prometheus; /healthz: this process lives; /readyz: a request would be served now.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from functools import partial
from typing import Protocol

import trio

from llcuda_net.analysis.analyzer import Analyst
from llcuda_net.errors import RequestError
from llcuda_net.server.http.errors import HttpError
from llcuda_net.server.http.exchange import Exchange
from llcuda_net.server.http.responder import Answer, Responder
from llcuda_net.server.http.route import Route
from llcuda_net.telemetry.metrics import Metrics
from llcuda_net.telemetry.observers import ServerState, Watches
from llcuda_net.telemetry.readiness import Readiness, Startup
from llcuda_net.util.version import package_version

#: Scrapes at once: more are refused, since each takes memory, and time of everybody's.
MAX_SCRAPES = 4
#: Gauges of the analysis of results.
_ANALYSIS = {
    "backlog": "Results that are not analysed yet.",
    "indexed": "Embeddings in memory, of the model that runs now.",
}


class Watched(Protocol):
    """A gateway, as far as it is watched."""

    watch: Watches
    standing: ServerState
    analyst: Analyst | None


class Monitor:
    """Answers from before the server's start until after its end.

    Args:
        users: whether /metrics names users.
        startup: the server's.

    Attributes:
        metrics: for parts of the server that have figures of their own.
    """

    def __init__(self, *, users: bool = False, startup: Startup | None = None) -> None:
        self._health = Readiness(startup)
        self._analyst: Analyst | None = None
        self._analysis: dict[str, float] = {}  # the last report
        self._scrapes = 0
        self.metrics = Metrics(package_version(), self._health, users=users)

    def watch(self, server: Watched) -> None:
        """A server begins to serve."""
        server.watch.add(self.metrics)
        self._health.server = server.standing
        self._analyst = server.analyst
        if server.analyst is not None:
            for key, help_ in _ANALYSIS.items():
                name = f"llcuda_analysis_{key}"
                self.metrics.add_gauge(name, help_, partial(self._analysis.get, key))

    def forget(self) -> None:
        """The server has stopped."""
        self._analyst = None
        self._health.server = None

    async def serve(self, listeners: Sequence[trio.SocketListener]) -> None:
        """Answer until cancelled."""
        responder = Responder(self.respond)
        await trio.serve_listeners(responder.serve, list(listeners))

    async def respond(self, path: str, accept: str) -> Answer | None:
        """See http.Respond."""
        if path == "/healthz":
            return Answer.json(200, status="alive")
        if path == "/readyz":
            reason = self._health.reason()
            if reason is None:
                return Answer.json(200, status="ready")
            return Answer.json(503, status="not ready", reason=reason)
        if path == "/metrics":
            return await self._scrape(accept)
        return None

    async def _scrape(self, accept: str) -> Answer:
        if self._scrapes >= MAX_SCRAPES:
            return Answer.json(503, error=f"{MAX_SCRAPES} others read the metrics just now")
        self._scrapes += 1
        try:
            await self._ask_analyst()
        finally:
            self._scrapes -= 1
        content_type, body = self.metrics.text(accept)
        return Answer(200, body, content_type)

    async def _ask_analyst(self) -> None:
        if self._analyst is not None:
            with contextlib.suppress(RequestError):  # then the last report stands
                self._analysis.update(await self._analyst.report())


async def answer(exchange: Exchange) -> None:
    """Handles the same paths on the server's own port.

    Raises:
        HttpError: metrics are for admins, or there are none.
    """
    request, host = exchange.request, exchange.host
    if request.path == "/metrics" and not request.user.admin:
        raise HttpError(403, "metrics are for users with role=admin", type="permission_error")
    accept = ",".join(request.headers.all("accept"))
    found = None if host.monitor is None else await host.monitor(request.path, accept)
    if found is None:
        raise HttpError(404, "there is nothing here", code="not_found")
    headers = {"Cache-Control": "no-store"}
    exchange.respond(found.status, found.body, found.content_type, headers)


ROUTES = [
    Route("GET", "/healthz", answer, public=True, always=True),
    Route("GET", "/readyz", answer, public=True, always=True),
    Route("GET", "/metrics", answer, always=True),
]
