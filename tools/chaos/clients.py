"""Clients of the chaos campaign: some cancel early, and errors are excused if they have a cause."""

from __future__ import annotations

import random
from collections.abc import Sequence

import trio

from llcuda_net.client import Client
from llcuda_net.errors import LlcudaError, RequestError
from llcuda_protocol import ErrorCode
from tools.campaign.clients import Clients, Options
from tools.campaign.jobs import Job, Jobs
from tools.campaign.ledger import MOST_TOLD, Ledger, Reading
from tools.campaign.upstreams import Upstream

#: What clients do, as shares of a hundred; "hurry": cancel after a while, begun or not.
KINDS = {"read": 58, "detach": 12, "twice": 10, "cancel": 10, "hurry": 10}
#: Most seconds until a client in a hurry cancels.
_HURRY = 3.0
#: Errors that troubles of upstreams, or too much work, may cause.
EXCUSED = frozenset(
    {
        ErrorCode.UPSTREAM_UNAVAILABLE,
        ErrorCode.UPSTREAM_ERROR,
        ErrorCode.UPSTREAM_STALLED,
        ErrorCode.OVERLOADED,
        ErrorCode.TIMEOUT,
        ErrorCode.INTERRUPTED,
    }
)
#: An upstream could have served a request if it had been well for this many seconds: a little
#: longer than the server may avoid an upstream that failed.
SETTLED = 16.0


class ChaosClients(Clients):
    """Clients that excuse errors if no upstream could have served them.

    Attributes:
        excused: the first of these errors, as text.
    """

    def __init__(
        self,
        options: Options,
        jobs: Jobs,
        ledger: Ledger,
        rng: random.Random,
        upstreams: Sequence[Upstream],
    ) -> None:
        super().__init__(options, jobs, ledger, rng)
        self.excused: list[str] = []
        self._upstreams = upstreams

    async def _do(self, client: Client, job: Job) -> None:
        if job.kind != "hurry":
            await super()._do(client, job)
            return
        self._ledger.counts["hurry jobs"] += 1
        hurry = self._rng.uniform(0.0, _HURRY)
        await self._read(client.generate(**job.ask), job, hurry=hurry)

    def _failed(self, reading: Reading, error: LlcudaError, began: float) -> None:
        if not isinstance(error, RequestError) or error.code not in EXCUSED or not error.message:
            super()._failed(reading, error, began)
            return
        waited = trio.current_time() - began
        what = f"{error.code} after {waited:.1f} s and {reading.fresh} pieces: {error.message}"
        well = [
            upstream.name
            for upstream in self._upstreams
            if not upstream.trouble and upstream.well_since <= began - SETTLED
        ]
        if well:
            reading.fail(f"{what} (though {well[0]} was well)")
            return
        if len(self.excused) < MOST_TOLD:
            self.excused.append(what)
        self._ledger.counts["errors"] += 1
        self._ledger.counts[f"error {error.code}"] += 1
        reading.excuse()
