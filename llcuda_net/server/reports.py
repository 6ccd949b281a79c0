"""What status requests are answered with: how the server stands, as a user may see it."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import trio

from llcuda_net.analysis.analyzer import Analyst
from llcuda_net.config.users import User, view_of
from llcuda_net.errors import RequestError
from llcuda_net.server.memory_guard import MemoryGuard
from llcuda_net.server.tcp.listener import Listener
from llcuda_net.telemetry.document import StatusDocuments
from llcuda_net.telemetry.observers import ServerState
from llcuda_net.telemetry.readiness import Startup
from llcuda_net.telemetry.status import Reporter

if TYPE_CHECKING:
    from llcuda_net.server.cluster.cluster import Cluster

#: Seconds for which the figures of the analysis are waited for.
_PATIENCE = 2.0


class Reports:
    """Makes them, from what each part says of itself.

    Args:
        reporter: says what runs.
        documents: add what a chart needs.
        listener: has the connections.
        standing: whether the server stops.
        memory: of the server.
        startup: requests wait until it is over.
        analyst, cluster: None: there is none.
    """

    def __init__(
        self,
        reporter: Reporter,
        documents: StatusDocuments,
        listener: Listener,
        standing: ServerState,
        memory: MemoryGuard,
        startup: Startup,
        analyst: Analyst | None,
        cluster: Cluster | None,
    ) -> None:
        self._reporter = reporter
        self._documents = documents
        self._listener = listener
        self._standing = standing
        self._memory = memory
        self._startup = startup
        self._analyst = analyst
        self._cluster = cluster

    def __repr__(self) -> str:
        return f"<Reports of {self._listener!r}>"

    async def report(self, user: User) -> dict[str, Any]:
        """What a status request is answered with; see telemetry/status.py."""
        await self._startup.wait()
        report = self._reporter.report(
            user,
            draining=self._standing.draining,
            connections=len(self._listener.sessions),
            http={"requests": len(self._listener.requests), "idle": self._listener.resting},
        )
        report["memory"] = self._memory.report()
        if self._cluster is not None:
            report["cluster"] = self._cluster.report()
        if self._analyst is not None:
            with contextlib.suppress(RequestError), trio.move_on_after(_PATIENCE):
                report["analysis"] = await self._analyst.report(view_of(user))
        return report

    async def document(self, user: User, *, history: bool = False) -> dict[str, Any]:
        """The report with what a chart needs beside it; see telemetry/document.py.

        Args:
            history: whether it has the samples of the last two minutes.
        """
        return await self._documents.make(await self.report(user), user, history=history)
