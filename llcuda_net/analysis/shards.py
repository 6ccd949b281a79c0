"""The vectors that this server searches: all of them, or in a cluster those of its buckets.

In a cluster each bucket of results (storage/results/buckets.py) is held by one server. A search
asks each of them once, at the same time, and takes the best. Every answer says which buckets it
covers, so nothing rests on what servers think of each other: what none has covered, since its
server has died, is slow, or reads it only just now, is read out of the database by the one that
searches, page by page. So what is found is always what one server with all vectors would find.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import structlog
import trio

from llcuda_net.analysis.devices import Devices
from llcuda_net.analysis.owner_vectors import Nearest, OwnerVectors, best_of
from llcuda_net.analysis.sharing import asked, keeping
from llcuda_net.analysis.vector_index import Answer, VectorIndex, existing
from llcuda_net.errors import RequestError
from llcuda_net.storage.results.buckets import ALL
from llcuda_net.storage.results.interface import Space, Store, Summary

log = structlog.get_logger(__name__)

Hits = list[tuple[Summary, str, float]]
#: Seconds between two looks at who holds what, and after a failure.
LOOK, RETRY = 1.0, 10.0
#: Seconds for which vectors are held that only other servers search.
KEPT = 600.0
#: Searches that compute at once.
_SEARCHES = 4


@dataclass(frozen=True)
class Question:
    """What is searched.

    Attributes:
        space: the number of the space.
        vector: what is near to what is wanted.
        k: how many are wanted.
        owner: whose results; None: everybody's.
    """

    space: int
    vector: Sequence[float]
    k: int
    owner: str | None


class OtherShards(Protocol):
    """The other servers of the cluster."""

    @property
    def number(self) -> int:
        """Of this server."""

    def parts(self) -> Mapping[int, int]:
        """The buckets that each server is to hold, this one's among them; none: not known now."""

    def held(self, space: int) -> Mapping[int, int]:
        """The buckets of a space that each other server says that it holds."""

    def newest_space(self) -> int | None:
        """The newest space of which any of them holds something."""

    async def ask(
        self, server: int, question: Question, buckets: int, gone: Collection[int]
    ) -> Answer | None:
        """What another server finds in these buckets; None: it does not answer in time."""


class Shards:
    """What this server holds in memory, and searches with the others.

    Args:
        read: asks the store something.
        ready: returns when the kernels can be used without a wait.
        others: the other servers; None: this one holds all.
        devices: where vectors are searched; None: on all GPUs.
    """

    def __init__(
        self,
        read: Callable[..., Awaitable[Any]],
        ready: Callable[[], Awaitable[None]],
        others: OtherShards | None,
        devices: Devices | None = None,
    ) -> None:
        self._devices = Devices() if devices is None else devices
        self._read = read
        self._ready = ready
        self._others = others
        self._held: dict[int, tuple[Space, VectorIndex]] = {}
        self._own: int | None = None  # the space of this server's model
        self._asked: tuple[int | None, float] = None, -math.inf  # of others' searches, and when
        self._loading = trio.Lock()
        self._wake = trio.Event()
        self._limiter = trio.CapacityLimiter(_SEARCHES)

    def __repr__(self) -> str:
        return f"<Shards {[index for _, index in self._held.values()]!r}>"

    @property
    def empty(self) -> bool:
        """Whether nothing is in memory of the model that this server embeds with."""
        return self._own not in self._held

    def count(self, owner: str | None) -> int:
        """How many of an owner (None: of everybody) are in memory: of this server's model, and
        where it embeds nothing, of the newest that others search.
        """
        number = self._own if self._own in self._held else max(self._held, default=None)
        return 0 if number is None else self._held[number][1].count(owner)

    def holds(self) -> dict[int, int]:
        """The buckets that are in memory of each space."""
        return {number: index.buckets for number, (_, index) in self._held.items()}

    # -- what is in memory ------------------------------------------------------------------------

    async def index_of(self, space: Space) -> tuple[VectorIndex, int]:
        """The embeddings of the space of this server's model, as far as they are to be here; and
        the buckets of which all are there that are in the store by now.

        Raises:
            RequestError: they cannot be read.
        """
        async with self._loading:
            held = self._held.get(space.id)
            if held is None:
                mine = ALL if self._others is None else self._part() or 0
                held = self._held[space.id] = (
                    space,
                    await self._read(
                        lambda store: VectorIndex.load(store.analyses, space, mine, self._devices)
                    ),
                )
                followed = mine
            else:  # another server may have added some
                followed = await self._follow(held)
            self._own = space.id
            self._forget()
            return held[1], followed

    async def follow(self, space: Space) -> None:
        """Something was added. Raises RequestError."""
        if space.id in self._held:
            await self._follow(self._held[space.id])

    async def _follow(self, held: tuple[Space, VectorIndex]) -> int:
        space, index = held
        followed: int = await self._read(lambda store: index.follow(store.analyses, space))
        return followed

    async def run(self) -> None:
        """Hold what this server is to hold, as servers come and go, until cancelled."""
        told = ""
        while self._others is not None:
            with trio.move_on_after(LOOK):
                await self._wake.wait()
            self._wake = trio.Event()
            try:
                await self.settle()
                told = ""
            except RequestError as error:
                if error.message != told:
                    log.info("vectors_not_read", reason=error.message)
                told = error.message
                await trio.sleep(RETRY)
            except Exception:  # a bug here must not end the server
                log.exception("vectors_failed")
                await trio.sleep(RETRY)

    async def settle(self) -> None:
        """Read what this server is to hold, and drop what others hold.

        Raises:
            RequestError: it cannot be read.
        """
        self._forget()
        mine = self._part()
        if self._others is None or mine is None:
            return
        for number in self._wanted():
            if number not in self._held:
                spaces = await self._read(lambda store: store.analyses.spaces())
                space = next((one for one in spaces if one.id == number), None)
                if space is None:
                    continue
                await self._ready()
                self._held.setdefault(number, (space, VectorIndex(space.dim, self._devices)))
            space, index = self._held[number]
            buckets = keeping(index.buckets, mine, self._others.held(number).values())
            if buckets != index.buckets:
                await self._hold(index, space, buckets)
                log.info("vectors_held", buckets=buckets.bit_count(), results=index.count(None))

    async def _hold(self, index: VectorIndex, space: Space, buckets: int) -> None:
        def hold(store: Store) -> None:
            there = store.analyses
            index.safely(there, space, lambda: index.hold(there, space, buckets))

        await self._read(hold)

    def _part(self) -> int | None:
        """The buckets that this server is to hold; None: that is not known now."""
        return None if self._others is None else self._others.parts().get(self._others.number)

    def _wanted(self) -> set[int]:
        """The spaces to be held."""
        asked_for, at = self._asked
        if trio.current_time() - at > KEPT:
            asked_for = None
        if self._own is None and asked_for is None and self._others is not None:
            asked_for = self._others.newest_space()
        return {one for one in (self._own, asked_for) if one is not None}

    def _forget(self) -> None:
        wanted = self._wanted()
        self._held = {number: one for number, one in self._held.items() if number in wanted}

    # -- searches ---------------------------------------------------------------------------------

    async def search(
        self, space: Space, vector: Sequence[float], k: int, owner: str | None
    ) -> tuple[Hits, int]:
        """The k results of an owner (None: of all) nearest to a vector, and how many were searched.

        Raises:
            RequestError: the store cannot be read.
        """
        index, followed = await self.index_of(space)
        if self._others is None:
            hits: Hits = await self._read(
                lambda store: index.safely(
                    store.analyses, space, lambda: index.search(vector, k, store.analyses, owner)
                )
            )
            return hits, index.count(owner)
        question = Question(space.id, vector, k, owner)
        gone: set[int] = set()
        while True:
            answers = await self._answers(question, space, index, followed, self._others, gone)
            missing = ALL
            for one in answers:
                missing &= ~one.buckets
            if missing:
                answers.append(await self._scan(question, space.dim, missing, gone))
            found = [near for one in answers for near in one.best if near[1] not in gone]
            best = best_of(found, k)
            hits, more = await self._read(
                lambda store, best=best: existing(best, store.analyses, owner)
            )
            if not more:
                return hits, sum(one.searched for one in answers)
            gone.update(more)

    async def results(self, found: Sequence[tuple[str, float]], owner: str | None) -> Hits:
        """The results of an owner (None: of anybody) with these ids, as another server found them.

        Raises:
            RequestError: the store cannot be read.
        """

        def read(store: Store) -> Hits:
            numbers = store.analyses.numbers([id_ for id_, _ in found])
            best = [(score, numbers[id_]) for id_, score in found if id_ in numbers]
            return existing(best, store.analyses, owner)[0]

        hits: Hits = await self._read(read)
        return hits

    async def _answers(
        self,
        question: Question,
        space: Space,
        index: VectorIndex,
        own: int,
        others: OtherShards,
        gone: Collection[int],
    ) -> list[Answer]:
        """What this server finds, and each of the others."""
        found: list[Answer] = []
        parts = {server: part for server, part in others.parts().items() if server != others.number}

        async def ask(server: int, buckets: int) -> None:
            answer = await others.ask(server, question, buckets, gone)
            if answer is not None:
                found.append(answer)

        async with trio.open_nursery() as nursery:
            for server, buckets in asked(own, parts, others.held(question.space)).items():
                nursery.start_soon(ask, server, buckets)
            found.append(await self._compute(space, index, question, own, gone))
        return found

    async def answer(self, question: Question, buckets: int, gone: Collection[int]) -> Answer:
        """What another server asks for: what is found in these buckets, as far as they are here.

        Raises:
            RequestError: the store cannot be read.
        """
        self._asked = question.space, trio.current_time()
        held = self._held.get(question.space)
        if held is None or buckets & ~held[1].buckets:
            self._wake.set()
        if held is None or not held[1].buckets & buckets or len(question.vector) != held[0].dim:
            return Answer([], 0, 0)
        buckets &= await self._follow(held)
        return await self._compute(*held, question, buckets, gone)

    async def _compute(
        self,
        space: Space,
        index: VectorIndex,
        question: Question,
        buckets: int,
        gone: Collection[int],
    ) -> Answer:
        from llcuda_kernels.several.one_process import DeviceLostError

        compute = partial(index.answer, question.vector, question.k, question.owner, buckets, gone)
        while True:
            try:
                return await trio.to_thread.run_sync(compute, limiter=self._limiter)
            except DeviceLostError as lost:
                recover = partial(index.recover, space=space, lost=lost)
                await self._read(lambda store, recover=recover: recover(store.analyses))

    async def _scan(
        self, question: Question, dim: int, buckets: int, gone: Collection[int]
    ) -> Answer:
        """What is found in these buckets, out of the store.

        Raises:
            RequestError: the store cannot be read.
        """
        import numpy as np

        vector = np.asarray(question.vector, np.float32)
        best: Nearest = []
        last: int | None = 0
        searched = 0

        def page(store: Store) -> int | None:
            """The next one: the id of its last embedding, None if there is none."""
            nonlocal best, searched
            pages = store.analyses.embeddings(
                question.space, last or 0, buckets=buckets, owner=question.owner
            )
            found = next(pages, None)
            if found is None:
                return None
            rows = [
                (one.owner, one.seq, one.scale, one.codes)
                for one in found
                if len(one.codes) == dim and one.seq not in gone
            ]
            vectors = OwnerVectors(dim)
            vectors.add(rows)
            searched += len(rows)
            best = best_of([*best, *vectors.nearest(vector, question.k)], question.k)
            return found[-1].id

        while last is not None:
            last = await self._read(page)
        log.debug("vectors_scanned", buckets=buckets.bit_count(), results=searched)
        return Answer(best, buckets, searched)
