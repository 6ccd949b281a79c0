"""Clients that submit and stream all the time, and compare everything that they get."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import trio

import llcuda_net
from llcuda_net.client import Client
from llcuda_net.client.stream import Piece, Stream
from llcuda_net.errors import ConnectError, LlcudaError, RequestError
from tools.campaign.http_clients import HttpClients
from tools.campaign.jobs import Job, Jobs
from tools.campaign.ledger import Ledger, Reading
from tools.campaign.response_clients import ResponseClients

#: Seconds for one job, restarts included: a bound for hangs, not a measurement.
PATIENCE = 600.0
#: Pause between attempts at a first connection, in seconds.
_PAUSE = 0.1


@dataclass
class Options:
    """How clients connect.

    Attributes:
        address: HOST:PORT of the server, or of the proxy before it.
        timeout, reconnect, keepalive: as `llcuda_net.connect` has them.
        token: the user's.
        lists: the Python client takes several addresses, with commas between.
        batches: some clients more have batches, in the campaigns that know of them.
        http: a third of the clients have chats over HTTP, and a third responses in the background.
    """

    address: str
    timeout: float = 5.0
    reconnect: float = 60.0
    keepalive: float = 20.0
    http: bool = False
    token: str | None = None
    lists: bool = False
    batches: bool = False


class Clients:
    """All clients of a campaign.

    Attributes:
        enough: once it is set, the clients finish what they have begun, and end.
    """

    def __init__(self, options: Options, jobs: Jobs, ledger: Ledger, rng: random.Random) -> None:
        self.enough = False
        self._options = options
        self._jobs = jobs
        self._ledger = ledger
        self._rng = rng
        self._keys = 0
        self._nursery: trio.Nursery | None = None
        over_http = (options.address, jobs, ledger, rng, PATIENCE, lambda: self.enough)
        self._http = HttpClients(*over_http)
        self._responses = ResponseClients(*over_http)
        #: Detached generations for other clients: (id, job, first piece to read).
        self._left: deque[tuple[str, Job, int]] = deque()

    async def run(self, count: int) -> None:
        """Run so many clients, until `enough` is set and everything begun is over."""
        async with trio.open_nursery() as self._nursery:
            async with trio.open_nursery() as nursery:
                ways = (self._one, self._http.run_one, self._responses.run_one)
                for number in range(count):
                    nursery.start_soon(ways[number % 3] if self._options.http else self._one)
            if self._left:
                await self._one()
            self._nursery.cancel_scope.cancel()

    async def _one(self) -> None:
        while not self.enough or self._left:
            async with self._connected() as client:
                for _ in range(self._rng.randint(2, 10)):
                    if self._left:
                        await self._attach(client, *self._left.popleft())
                    elif not self.enough:
                        await self._do(client, self._jobs.draw())

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[Client]:
        """A connection. The client does not retry the first attempt, so it is retried here."""
        options = self._options
        async with AsyncExitStack() as stack:
            client = None
            while client is None:
                connection = llcuda_net.connect(
                    options.address,
                    timeout=options.timeout,
                    reconnect=options.reconnect,
                    keepalive=options.keepalive,
                )
                try:
                    client = await stack.enter_async_context(connection)
                except (ConnectError, RequestError):
                    await trio.sleep(_PAUSE)
            yield client

    # -- what is done with a job --------------------------------------------------------------

    async def _do(self, client: Client, job: Job) -> None:
        self._ledger.counts[f"{job.kind} jobs"] += 1
        if job.kind == "twice":
            await self._twice(client, job)
        elif job.kind == "detach":
            stream = await self._read(client.generate(**job.ask), job, leave="detach")
            if stream is not None and stream.result.reason == "detached":
                self._ledger.counts["detached"] += 1
                # A new reader may begin anywhere.
                first = self._rng.choice([0, stream.received, self._rng.randint(0, job.after)])
                self._left.append((stream.id, job, first))
        elif job.kind == "cancel":
            await self._read(client.generate(**job.ask), job, leave="cancel")
        else:
            await self._read(client.generate(**job.ask), job)

    async def _attach(self, client: Client, id_: str, job: Job, first: int) -> None:
        self._ledger.counts["attached"] += 1
        await self._read(client.attach(id_, first, tokens=True), job, first=first)

    async def _twice(self, client: Client, job: Job) -> None:
        """The same key at once over two connections, and perhaps once more when it is done."""
        self._keys += 1
        key = f"key {self._keys}, {self._rng.random()}"
        ids: list[str] = []

        async def ask(client: Client) -> None:
            stream = await self._read(client.generate(**job.ask, key=key), job)
            if stream is not None:
                ids.append(stream.id)

        async def elsewhere() -> None:
            async with self._connected() as other:
                await ask(other)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, client)
            nursery.start_soon(elsewhere)
        if self._rng.random() < 0.5:
            await ask(client)
        if len(set(ids)) > 1:
            self._ledger.violation(f"one key, and more than one generation: {ids}")

    async def _read(
        self,
        opening: AbstractAsyncContextManager[Stream],
        job: Job,
        *,
        first: int = 0,
        leave: str | None = None,
        hurry: float | None = None,
    ) -> Stream | None:
        """Read an answer to its end, or leave it after `job.after` pieces.

        Args:
            hurry: seconds after which to cancel it, whether it has begun or waits.
        """
        began = trio.current_time()
        reading = Reading(self._ledger, job, first)
        with trio.move_on_after(PATIENCE):
            try:
                async with opening as stream:
                    if hurry is not None:
                        assert self._nursery is not None
                        self._nursery.start_soon(self._cancel, stream, reading, hurry)
                    async for event in stream.events():
                        if not isinstance(event, Piece):
                            continue
                        reading.piece(event)
                        if leave is not None and reading.received > job.after:
                            reading.cancelled = leave == "cancel"
                            await (stream.cancel() if reading.cancelled else stream.detach())
                            leave = None
                    reading.end(stream.id, stream.result)
                    return stream
            except LlcudaError as error:
                self._failed(reading, error, began)
                return None
        reading.fail(f"not over within {PATIENCE:g} s")
        return None

    async def _cancel(self, stream: Stream, reading: Reading, seconds: float) -> None:
        await trio.sleep(seconds)
        if reading in self._ledger.reading:
            reading.cancelled = True
            await stream.cancel()

    def _failed(self, reading: Reading, error: LlcudaError, began: float) -> None:
        """A reading that began at `began` ended with an error: none is allowed here."""
        reading.fail(f"{getattr(error, 'code', 'connection')}: {error}")
