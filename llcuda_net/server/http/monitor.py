"""`--metrics-port`: HTTP for operators: metrics, liveness, readiness.

/metrics for Prometheus; /healthz: this process lives; /readyz: a request would be served now.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from functools import partial

import trio

from llcuda_net.analysis.analyzer import Analyst
from llcuda_net.errors import RequestError
from llcuda_net.server.gateway import Gateway
from llcuda_net.server.http.responder import Answer, Responder
from llcuda_net.telemetry.metrics import Metrics
from llcuda_net.telemetry.readiness import Readiness
from llcuda_net.util.version import package_version

#: Scrapes at once: more are refused, since each takes memory, and time of everybody's.
MAX_SCRAPES = 4
#: Gauges of the analysis of results.
_ANALYSIS = {
    "backlog": "Results that are not analysed yet.",
    "indexed": "Embeddings in memory, of the model that runs now.",
}


class Monitor:
    """Answers from before the server's start until after its end.

    Args:
        users: whether /metrics names users.

    Attributes:
        metrics: for parts of the server that have figures of their own.
    """

    def __init__(self, *, users: bool = False) -> None:
        self._health = Readiness()
        self._analyst: Analyst | None = None
        self._analysis: dict[str, float] = {}  # the last report
        self._scrapes = 0
        self.metrics = Metrics(package_version(), self._health, users=users)

    def watch(self, server: Gateway) -> None:
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
