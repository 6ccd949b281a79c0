"""Runs batches: each is checked, asked line by line, and written to its files.

All that is done is noted in the store before it counts, so the next server goes on where this one
ended.
"""

from __future__ import annotations

import math
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

#: Seconds between two looks at what other servers have changed.
_EVERY = 1.0


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
                    await self._look(nursery)
                except RequestError as error:
                    log.warning("batches_not_read", code=error.code, reason=error.message)
                    await trio.sleep(AGAIN)
                    continue
                with trio.move_on_after(_EVERY if self._host.objects.shared else math.inf):
                    await self._woken.wait()

    async def _look(self, nursery: trio.Nursery) -> None:
        """See what there is to run, and what is not to be run any more.

        Raises:
            RequestError: the store refuses.
        """
        life = self._host.objects.life
        if life is None:  # what runs waits for what becomes of this server
            return
        for running in self._runs.values():
            if running.life != life:
                running.drop()
        for batch in await self._host.objects.read(batches.to_run):
            run = self._runs.get(batch.seq)
            if run is None:
                if batch.server == life or await self._claim(batch):
                    self._begin(batch, life, nursery)
            elif batch.state == batches.CANCELLING:
                run.cancel()

    async def _claim(self, batch: Batch) -> bool:
        """Whether this server is to go on with a batch."""
        ours = await self._host.objects.write(lambda db: batches.claim(db, batch.seq))
        if ours:
            log.info("batch_taken_over", batch=batch.id, of=batch.server)
        return ours

    def _begin(self, batch: Batch, life: int, nursery: trio.Nursery) -> None:
        handler = self._handlers[batch.endpoint]
        run = self._runs[batch.seq] = Run(
            self._host, batch, life, handler, self._places, self._now, self._in_thread, self._lines
        )
        nursery.start_soon(self._to_its_end, run)

    async def _to_its_end(self, run: Run) -> None:
        """Run one; what the store refuses is tried again, and a bug ends this one only."""
        try:
            while True:
                try:
                    await run.run()
                    if run.dropped:
                        log.info("batch_elsewhere", batch=run.seq)
                    else:
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
