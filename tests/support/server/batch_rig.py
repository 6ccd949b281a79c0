"""Batches on a host of a test's own: objects in memory, a handler that does as it is told.

Nothing here runs in a thread, so the clock may be virtual.
"""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, TypeVar, cast

import trio

from llcuda_net.config.settings import Settings
from llcuda_net.config.token_file import Users
from llcuda_net.errors import RequestError
from llcuda_net.server.batches.runner import BatchRunner
from llcuda_net.server.http.exchange import Exchange, HttpHost
from llcuda_net.server.tcp.room import Incoming
from llcuda_net.storage.objects import batches, files
from llcuda_net.storage.objects.batches import Batch, Details
from llcuda_net.storage.objects.database import SqliteDatabase
from llcuda_net.storage.objects.interface import Database
from llcuda_net.storage.results.connection import transaction
from tests.support.storage.objects import in_memory

_T = TypeVar("_T")
ENDPOINT = "/v1/chat/completions"
HOUR = 3600 * 10**9


class MemoryObjects:
    """objects.db in memory, as KeptObjects; it outlives runners, as a file does.

    Attributes:
        refusals: raised by the next writes, one each.
        changed: set, and another one, at each write.
    """

    keeps = True
    shared = False
    life = 0

    def __init__(self) -> None:
        self.db = in_memory()
        self.refusals: list[RequestError] = []
        self.changed = trio.Event()

    async def read(self, question: Callable[[Database], _T]) -> _T:
        await trio.lowlevel.checkpoint()
        return question(self.db)

    async def write(self, change: Callable[[Database], _T]) -> _T:
        await trio.lowlevel.checkpoint()
        if self.refusals:
            raise self.refusals.pop(0)
        with transaction(self.db.connection):
            found = change(self.db)
        self.changed.set()
        self.changed = trio.Event()
        return found

    async def member(self) -> None:
        await trio.lowlevel.checkpoint()

    def wake(self) -> None:
        """Something could be removed."""


class _MemberDatabase(SqliteDatabase):
    """Of one of several servers; transactions come one after the other all the same."""

    shared = True

    def __init__(self, objects: MemoryObjects, fenced: set[int], life: int | None) -> None:
        super().__init__(objects.db.connection)
        self.fenced = fenced
        self.life = life

    def gone(self, column: str) -> str:
        return f"{column} IN ({', '.join(map(str, self.fenced)) or 'NULL'})"


class MemberObjects(MemoryObjects):
    """What a server of a cluster has of objects that others have, too.

    Args:
        fenced: the lives that are over.
    """

    shared = True

    def __init__(self, objects: MemoryObjects, fenced: set[int], life: int) -> None:
        self.db = _MemberDatabase(objects, fenced, life)
        self.refusals = []
        self.changed = trio.Event()
        self._member = trio.Event()

    @property
    def life(self) -> int | None:  # type: ignore[override]
        return self.db.life

    def set_life(self, life: int | None) -> None:
        """As KeptObjects; its runner looks by itself."""
        self.db.life = life
        self._member.set()
        self._member = trio.Event()

    async def member(self) -> None:
        while self.life is None:
            await self._member.wait()


class Upstream:
    """The handler of the endpoint.

    Attributes:
        asked: the key and the body of each request, in order.
        headers: of each.
        answers: what a request with this text is answered or raises, one after the other; then,
            and else, the text itself.
        gate: where it is set, each answer waits for `release`.
        active, most_active: how many requests there are now, and were at most.
    """

    def __init__(self) -> None:
        self.asked: list[tuple[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.answers: dict[str, list[Exception]] = {}
        self.gate: trio.Semaphore | None = None
        self.active = self.most_active = 0

    async def __call__(self, exchange: Exchange) -> None:
        request = exchange.request
        body = json.loads(request.body)
        exchange.drop_body()
        key = request.headers.get("idempotency-key") or ""
        self.asked.append((key, body))
        self.headers.append({name: request.headers.get(name) or "" for name in request.headers})
        self.active += 1
        self.most_active = max(self.most_active, self.active)
        try:
            if self.gate is not None:
                await self.gate.acquire()
            else:
                await trio.lowlevel.checkpoint()
            text = body["text"]
            if self.answers.get(text):
                raise self.answers[text].pop(0)
            usage = {"prompt_tokens": 3, "completion_tokens": 2}
            exchange.respond(200, json.dumps({"said": text, "usage": usage}).encode())
        finally:
            self.active -= 1

    def release(self, count: int = 1) -> None:
        assert self.gate is not None
        for _ in range(count):
            self.gate.release()

    @property
    def texts(self) -> list[str]:
        """What was asked, in order."""
        return [body["text"] for _, body in self.asked]


class Generation:
    """A generation as far as a batch cares."""

    def __init__(self, *, ended: bool = False, sent: float | None = 1.0) -> None:
        self.ended = ended
        self.cancelled = False
        self.times = SimpleNamespace(sent=sent)

    def cancel(self) -> None:
        self.cancelled = True


class BatchRig:
    """A host, and the runner of its batches.

    Attributes:
        generations: by their keys, or ids.
    """

    def __init__(self, objects: MemoryObjects, upstream: Upstream, slots: int, **settings: Any):
        self.objects = objects
        self.upstream = upstream
        self.generations: dict[str, Generation] = {}
        self.backend = SimpleNamespace(slots=slots)
        self.host = SimpleNamespace(
            settings=Settings(**settings),
            users=Users(),
            objects=objects,
            pool=SimpleNamespace(backends=[self.backend]),
            incoming=Incoming(1 << 20),
            draining=False,
            generations=SimpleNamespace(find=self._find, cancel_keys=self._cancel_keys),
        )
        self.now = 1_000 * 10**9
        self._began = trio.current_time()
        self.runner = BatchRunner(
            cast(HttpHost, self.host), {ENDPOINT: upstream}, now=self._time, in_thread=_here
        )

    def _time(self) -> int:
        return self.now + int((trio.current_time() - self._began) * 1e9)

    async def _find(self, request: Any, user: Any) -> Generation:
        await trio.lowlevel.checkpoint()
        return self.generations[request.id]

    async def _cancel_keys(self, owner: str, prefix: str) -> None:
        await trio.lowlevel.checkpoint()
        for key, one in self.generations.items():
            if key.startswith(prefix) and not one.ended:
                one.cancel()

    def make(
        self, texts: Sequence[str], *, owner: str = "", hours: float = 24, data: bytes | None = None
    ) -> Batch:
        """A batch that asks these texts, with themselves as custom_id."""
        if data is None:
            data = b"".join(line(text) for text in texts)
        number = self.objects.db.value("SELECT count(*) FROM batches")
        seq = files.begin(self.objects.db, f"file-{number}", owner, self._time())
        chunks = [data[at : at + files.CHUNK] for at in range(0, len(data), files.CHUNK)]
        files.append(self.objects.db, seq, 0, chunks)
        file = files.finish(self.objects.db, seq, purpose="batch", name="a", expires=None)
        batch = batches.create(
            self.objects.db,
            f"batch_{number}",
            file,
            owner=owner,
            endpoint=ENDPOINT,
            details=Details("24h"),
            created=self._time(),
            expires=self._time() + int(hours * HOUR),
        )
        self.runner.wake()
        return batch

    def cancel(self, batch: Batch) -> None:
        batches.cancel(self.objects.db, batch.seq, self._time())
        self.runner.wake()

    def get(self, batch: Batch) -> Batch:
        """As it is now."""
        return batches.get(self.objects.db, batch.seq)

    async def over(self, batch: Batch) -> Batch:
        """Wait until it is over."""
        with trio.fail_after(1e7):
            while self.get(batch).open:
                with trio.move_on_after(1 if self.objects.shared else math.inf):
                    await self.objects.changed.wait()
        return self.get(batch)

    def contents(self, id_: str | None) -> list[dict[str, Any]]:
        """The lines of a file; none where there is no file."""
        if id_ is None:
            return []
        file = files.find(self.objects.db, id_, None, 0)
        assert file is not None
        data = files.part(self.objects.db, file.seq, 0, file.bytes)
        assert data.endswith(b"\n")
        return [json.loads(one) for one in data.splitlines()]


async def _here(work: Callable[[], None]) -> None:
    await trio.lowlevel.checkpoint()
    work()


def line(text: str, **changes: Any) -> bytes:
    """A line of an input."""
    body = {"text": text}
    found = {"custom_id": text, "method": "POST", "url": ENDPOINT, "body": body, **changes}
    return json.dumps(found).encode() + b"\n"


@asynccontextmanager
async def batch_rig(
    objects: MemoryObjects | None = None,
    upstream: Upstream | None = None,
    *,
    slots: int = 4,
    **settings: Any,
) -> AsyncIterator[BatchRig]:
    """A runner that runs; leaving ends it as a kill would."""
    rig = BatchRig(objects or MemoryObjects(), upstream or Upstream(), slots, **settings)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.runner.run)
        yield rig
        nursery.cancel_scope.cancel()
