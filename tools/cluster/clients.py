"""Clients of a cluster: they ask any server, and go on at another one when something is lost.

Every request has an idempotency key, so that asking again, anywhere, starts nothing twice. What is
retryable is retried until it is over; what was accepted at the level `cluster` must come to the
answer that it must have, whatever happened meanwhile.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import trio

import llcuda_net
from llcuda_net.client import Client
from llcuda_net.client.stream import Piece, Stream
from llcuda_net.errors import ConnectError, LlcudaError, RequestError
from tools.campaign.clients import Clients, Options
from tools.campaign.jobs import Job, Jobs, SyntheticJobs
from tools.campaign.ledger import MOST_TOLD, Ledger, Reading
from tools.cluster.allowed import LATER, is_allowed
from tools.cluster.batches import ClusterBatches
from tools.cluster.over_http import ClusterHttp, ClusterResponses
from tools.synthetic.answer import prompt_ids
from tools.synthetic.pages import apply_template

#: What clients do, as shares of a hundred.
KINDS = {"read": 55, "detach": 15, "twice": 20, "cancel": 10}
#: Levels of requests; None: the servers' default, which is `cluster` in a cluster.
LEVELS = (None, None, None, None, "disk")
#: Of a hundred requests, how many have an answer that no two runs give alike.
VARIED = 30
#: Seconds for one job, faults included, and for the rest after the last fault.
PATIENCE = 300.0
_PAUSE = (0.2, 1.5)
#: Clients with batches, beside the others.
_BATCHES = 2


class ClusterJobs:
    """Jobs of the synthetic upstream, at the levels of a cluster, some with varied answers."""

    def __init__(self, rng: random.Random, levels: Sequence[str | None], longest: int) -> None:
        self._rng = rng
        self._levels = levels
        self._longest = longest
        self._synthetic = SyntheticJobs(rng, KINDS, longest)
        self._count = 0

    def draw(self, *, chat: bool = False) -> Job:
        """See Jobs."""
        job = self._synthetic.draw(chat=chat)
        if self._rng.random() * 100 < VARIED:
            job = self._varied(job, chat)
        level = self._rng.choice(self._levels)
        return replace(job, ask={**job.ask, "level": level, "on_disconnect": "continue"})

    def _varied(self, job: Job, chat: bool) -> Job:
        self._count += 1
        prompt = f"varied {self._count}, {self._rng.random():.9f} [[vary]]"
        n_predict = self._rng.randint(self._longest // 4, self._longest)
        asked, what = prompt, dict[str, Any](raw=prompt)
        if chat:
            messages = [{"role": "user", "content": prompt}]
            what, asked = {"messages": messages}, apply_template(messages)
        ask = {**what, "n_predict": n_predict, "temperature": 0, "tokens": True}
        count = len(prompt_ids(asked))
        after = self._rng.randrange(n_predict)
        return Job(
            job.kind, "varied", ask, (), "length", None, n_predict, count, after, varied=True
        )


@dataclass
class _Answer:
    """One answer, over as many servers as it takes.

    Attributes:
        leave: pieces after which the reader leaves ("detach"), or asks for the end ("cancel").
        epoch: in which it last read; None: it has read nothing.
    """

    job: Job
    reading: Reading
    key: str
    leave: str | None = None
    id: str = ""
    epoch: int | None = None
    errors: Counter[str] = field(default_factory=Counter)


class ClusterClients(Clients):
    """Clients over our own protocol; those over HTTP are as everywhere, with several addresses.

    Attributes:
        excused: the first errors that were allowed, in words.
        ended: ids of generations that ended with an error that was allowed.
        batches: clients with batches.
    """

    def __init__(self, options: Options, jobs: Jobs, ledger: Ledger, rng: random.Random) -> None:
        super().__init__(options, jobs, ledger, rng)
        self.excused: list[str] = []
        self.ended: set[str] = set()
        self._addresses = options.address.split(",")
        how = (ledger, rng, PATIENCE, lambda: self.enough)
        over_http = (options.address, jobs, *how)
        self._http = ClusterHttp(*over_http)
        self._responses = ClusterResponses(*over_http)
        self.batches = ClusterBatches(*over_http)
        self.batches.begin()
        for one in (self._http, self._responses, self.batches):
            one.token, one.ended = options.token, self.ended

    async def run(self, count: int) -> None:
        """See Clients."""
        async with trio.open_nursery() as nursery:
            for _ in range(_BATCHES if self._options.batches else 0):
                nursery.start_soon(self.batches.run_one)
            await super().run(count)

    @asynccontextmanager
    async def _reached(self, reading: Reading) -> AsyncIterator[Client]:
        """A connection to some server."""
        options = self._options
        async with AsyncExitStack() as stack:
            client = None
            while client is None:
                server = self._server()
                reading.note("connects", server)
                connection = llcuda_net.connect(
                    server,
                    token=options.token,
                    timeout=options.timeout,
                    reconnect=options.reconnect,
                    # Some notice soon that nothing comes any more, and some only late.
                    keepalive=self._rng.choice([2.0, options.keepalive]),
                    on_note=reading.note,
                )
                try:
                    client = await stack.enter_async_context(connection)
                except (ConnectError, RequestError) as error:
                    reading.note(str(error))
                    await trio.sleep(self._rng.uniform(*_PAUSE))
            yield client

    def _server(self) -> str:
        """Some one server, or all of them in some order."""
        some = self._rng.sample(self._addresses, len(self._addresses))
        return ",".join(some) if self._options.lists and self._rng.random() < 0.5 else some[0]

    async def _one(self) -> None:
        while not self.enough or self._left:
            if self._left:
                await self._attach_anew(*self._left.popleft())
            elif not self.enough:
                await self._do_anew(self._jobs.draw())

    async def _do_anew(self, job: Job) -> None:
        self._ledger.counts[f"{job.kind} jobs"] += 1
        if job.kind == "twice":
            await self._twice_anew(job)
            return
        leave = job.kind if job.kind in ("detach", "cancel") else None
        answer = self._answer(job, leave=leave)
        if await self._follow(answer) and leave == "detach" and answer.leave is None:
            self._ledger.counts["detached"] += 1
            first = self._rng.choice([0, self._rng.randint(0, job.after)])
            self._left.append((answer.id, job, first))

    async def _attach_anew(self, id_: str, job: Job, first: int) -> None:
        self._ledger.counts["attached"] += 1
        answer = self._answer(job, first=first)
        answer.id = id_
        await self._follow(answer)

    def _answer(
        self, job: Job, *, first: int = 0, leave: str | None = None, key: str | None = None
    ) -> _Answer:
        self._keys += 1
        key = key or f"key {self._keys}, {self._rng.random()}"
        return _Answer(job, Reading(self._ledger, job, first), key, leave)

    async def _twice_anew(self, job: Job) -> None:
        """The same key at two servers at once, and perhaps once more when it is done."""
        first = self._answer(job)
        second = self._answer(job, key=first.key)
        answers = [first, second]
        async with trio.open_nursery() as nursery:
            for answer in answers:
                nursery.start_soon(self._follow, answer)
        if self._rng.random() < 0.5:
            answers.append(self._answer(job, key=first.key))
            await self._follow(answers[-1])
        ids = {answer.id for answer in answers if answer.id}
        if len(ids) > 1 and not ids & self.ended:
            self._ledger.violation(f"one key, and more than one generation: {sorted(ids)}")

    # -- one answer ---------------------------------------------------------------------------

    async def _follow(self, answer: _Answer) -> bool:
        """Read an answer to its end, at whatever server; whether it ended as it must."""
        reading = answer.reading
        with trio.move_on_after(PATIENCE):
            while True:
                try:
                    async with self._reached(reading) as client:
                        await self._at_once(client, answer)
                except LlcudaError as error:
                    reading.note(f"{getattr(error, 'code', 'connection')}: {error}")
                    if not self._goes_on(answer, error):
                        return False
                else:
                    return True
                self._ledger.counts["asked again"] += 1
                await trio.sleep(self._rng.uniform(*_PAUSE))
        why = ", ".join(f"{count} times {name}" for name, count in answer.errors.items())
        reading.fail(f"{answer.id or answer.key}: not over within {PATIENCE:g} s; {why}")
        return False

    async def _at_once(self, client: Client, answer: _Answer) -> None:
        """Read on over one connection of a client, which may itself be made again."""
        job, reading = answer.job, answer.reading
        if answer.id:
            epoch = answer.epoch
            opening = client.attach(answer.id, reading.received, epoch=epoch, tokens=True)
        else:
            opening = client.generate(**job.ask, key=answer.key)
        async with opening as stream:
            self._named(answer, stream)
            if reading.cancelled:
                await stream.cancel()
            async for event in stream.events():
                if not isinstance(event, Piece):
                    continue
                reading.piece(event)
                answer.epoch = stream.epoch
                if answer.leave is not None and reading.received > job.after:
                    reading.cancelled = answer.leave == "cancel"
                    await (stream.cancel() if reading.cancelled else stream.detach())
                    answer.leave = None
            reading.end(stream.id, stream.result)

    def _named(self, answer: _Answer, stream: Stream) -> None:
        if answer.id not in ("", stream.id):
            self._ledger.violation(f"{answer.key}: {answer.id} was accepted, and now {stream.id}")
        answer.id = stream.id
        answer.reading.note(f"{stream.id} is accepted, in epoch {stream.epoch} at {stream.level}")

    def _goes_on(self, answer: _Answer, error: LlcudaError) -> bool:
        """Whether to ask again after an error; if not, it is a violation or excused."""
        code = str(getattr(error, "code", "connection"))
        answer.errors[code] += 1
        self._ledger.counts[f"error {code}"] += 1
        if isinstance(error, ConnectError) or code in LATER:
            return True
        if is_allowed(code, answer.job):
            self._excuse(answer, f"{code}: {error}")
            return False
        answer.reading.fail(f"{answer.id or answer.key}: {code}: {error}")
        return False

    def _excuse(self, answer: _Answer, what: str) -> None:
        self._ledger.counts["errors"] += 1
        self.ended.add(answer.id or answer.key)
        if len(self.excused) < MOST_TOLD:
            self.excused.append(f"{answer.id or answer.key}: {what}")
        answer.reading.excuse()
