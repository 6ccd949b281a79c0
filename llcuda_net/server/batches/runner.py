"""Runs batches: each is checked, asked line by line, and written to its files.

All that is done is noted in the store before it counts, so the next server goes on where this one
ended.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial

import structlog
import trio

from llcuda_net.errors import RequestError
from llcuda_net.server.batches.places import Places
from llcuda_net.server.batches.run import AGAIN, InThread, Run
from llcuda_net.server.http.exchange import Handler, HttpHost
from llcuda_net.storage.objects import batches
from llcuda_net.storage.objects.batches import Batch
from llcuda_net.telemetry.observers import BatchCounts

log = structlog.get_logger(__name__)


class BatchRunner:
    """All batches of a server.

    Args:
        host: answers the lines.
        handlers: by the path of an endpoint.
        now: Unix time in nanoseconds.
        in_thread: runs what would hold up the event loop.
    """

    def __init__(
        self,
        host: HttpHost,
        handlers: Mapping[str, Handler],
        now: Callable[[], int] = time.time_ns,
        in_thread: InThread | None = None,
    ) -> None:
        self._in_thread = in_thread or partial(
            trio.to_thread.run_sync, limiter=trio.CapacityLimiter(1)
        )
        self._host = host
        self._handlers = handlers
        self._now = now
        self._woken = trio.Event()
        self._runs: dict[int, Run] = {}
        self._places = Places(host)
        self._ended = Counter[str]()
        self._lines = Counter[str]()

    def __repr__(self) -> str:
        return f"<BatchRunner {len(self._runs)} batches, {self._places!r}>"

    def wake(self) -> None:
        """A batch was made, or is to be cancelled."""
        self._woken.set()

    def counts(self) -> BatchCounts:
        """What they do now, and what has come of them."""
        runs = self._runs.values()
        return BatchCounts(
            Counter(one.state for one in runs),
            self._ended,
            self._lines,
            sum(one.asked for one in runs),
            sum(one.left for one in runs),
        )

    async def run(self) -> None:
        """Run what there is, and what comes, until cancelled."""
        if not self._host.objects.keeps:
            return
        async with trio.open_nursery() as nursery:
            while True:
                self._woken = trio.Event()
                try:
                    found = await self._host.objects.read(batches.unfinished)
                except RequestError as error:
                    log.warning("batches_not_read", code=error.code, reason=error.message)
                    await trio.sleep(AGAIN)
                    continue
                for batch in found:
                    self._look_at(batch, nursery)
                await self._woken.wait()

    def _look_at(self, batch: Batch, nursery: trio.Nursery) -> None:
        run = self._runs.get(batch.seq)
        if run is None:
            handler = self._handlers[batch.endpoint]
            run = self._runs[batch.seq] = Run(
                self._host, batch, handler, self._places, self._now, self._in_thread, self._lines
            )
            nursery.start_soon(self._to_its_end, run)
        elif batch.state == batches.CANCELLING:
            run.cancel()

    async def _to_its_end(self, run: Run) -> None:
        """Run one; what the store refuses is tried again, and a bug ends this one only."""
        try:
            while True:
                try:
                    await run.run()
                    self._ended[run.state] += 1
                    break
                except RequestError as error:
                    log.warning("batch_waits", batch=run.seq, code=error.code, reason=error.message)
                    await trio.sleep(AGAIN)
            self._host.objects.wake()
        except Exception:  # it is begun again with the next batch, or the next start
            log.exception("batch_crashed", batch=run.seq)
        finally:
            del self._runs[run.seq]
