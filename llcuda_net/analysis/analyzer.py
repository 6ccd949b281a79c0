"""Finished results analysed in the background: statistics of certainty, and embeddings.

1. Only while nobody uses a slot and nobody waits for one, and that for some seconds: somebody who
   asks again and again, with pauses to read, meets no analysis. Where there is always somebody, it
   does one step in the first pause of each minute. What is under way is cancelled when somebody
   comes, and done again later. A backlog is embedded beside the upstream, where something is there
   for that (the built-in engine has a second one), since an upstream finishes what it has begun.
2. The position up to which results are analysed is in the store, so a backlog survives a restart.
3. What computes runs in threads, in NumPy: so few numbers at a time gain nothing from a kernel, and
   Numba takes 100 MB. It is imported at the first search.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import structlog
import trio

from llcuda_net.analysis.certainty import certainty_stats
from llcuda_net.analysis.devices import Devices
from llcuda_net.analysis.embedding_backend import EmbeddingBackend
from llcuda_net.analysis.embeddings import MAX_TEXT, LongTexts
from llcuda_net.analysis.shards import OtherShards, Shards
from llcuda_net.analysis.vector_index import RECIPE, Found, combine, quantised
from llcuda_net.config.users import User, view_of
from llcuda_net.errors import RequestError, UpstreamNotReady
from llcuda_net.generation.persistence import Persistence
from llcuda_net.scheduler.scheduler import Scheduler
from llcuda_net.scheduler.ticket import SlotRequest
from llcuda_net.storage.results.interface import Document, Space, Store, Summary
from llcuda_net.upstream.interface import DOWN, Properties
from llcuda_net.upstream.model.fingerprint import same_model
from llcuda_net.upstream.prompts.prefix_cache import tokens_in
from llcuda_net.upstream.slots.lease import held
from llcuda_net.util.logs import reason_of
from llcuda_protocol import ErrorCode

log = structlog.get_logger(__name__)

#: Seconds without a request before it begins, and after a failure before it is tried again.
SETTLE, RETRY = 2.0, 10.0
#: Where nothing was analysed for PATIENCE seconds, SHORTEST without a request will do for one step.
PATIENCE, SHORTEST = 60.0, 0.05
#: Results embedded in one step.
_BATCH = 16
#: From so many on, something beside the upstream embeds them, where there is such: so many in one
#: step, with so many characters in one call, since it is ended when somebody comes.
MANY, MANY_BATCH, MANY_TOGETHER = 100, 32, 8192
#: Characters of a step's results, from its second one on: what is cancelled should be little.
STEP_TEXT = 16_384
#: How often a result may fail before it stays without an embedding.
_TRIES = 3


class Analyst:
    """Analyses what is stored, and searches it by meaning.

    Args:
        persistence: has the results.
        upstream: embeds them.
        scheduler: knows when nobody uses a slot, and gives one to a search.
        prepare: makes the kernels ready elsewhere, before they are first used here.
        others: the servers that hold other vectors; None: this one holds all.
        devices: where vectors are searched; None: on all GPUs.

    Attributes:
        shards: the vectors that are searched.
    """

    def __init__(
        self,
        persistence: Persistence,
        upstream: EmbeddingBackend,
        scheduler: Scheduler,
        *,
        prepare: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint,
        others: OtherShards | None = None,
        devices: Devices | None = None,
    ) -> None:
        self._prepare = prepare
        self._persistence = persistence
        self._upstream = upstream
        self._scheduler = scheduler
        self._texts = LongTexts(upstream.embed)
        self._news = trio.Event()
        self._news.set()
        self._prepared = False
        self._preparing = trio.Lock()
        #: Why it waits, as the log was told: once, since models on demand may be unloaded for days.
        self._told = ""
        #: What the upstream was when it answered that it gives no embeddings.
        self._refused: Properties | None = None
        self._batch = self._most = _BATCH
        #: It has not failed beside the upstream.
        self._spare = True
        self._failures = (0, 0)  # of which result, and how many
        self.shards = Shards(self._read, self._ready, others, devices)
        self._moved = -math.inf  # when something was last analysed, or there was nothing

    def __repr__(self) -> str:
        state = "new results" if self._news.is_set() else "idle or at work"
        return f"<Analyst: {state}, {self.shards!r}, embeds with {self._upstream!r}>"

    def wake(self) -> None:
        """There may be something new."""
        self._news.set()

    async def run(self) -> None:
        """Analyse, and hold what is searched, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.shards.run)
            await self._analyse()

    async def _analyse(self) -> None:
        while True:
            await self._news.wait()
            self._news = trio.Event()
            self._moved = trio.current_time()
            try:
                if await self._backlog() or await self._stored():
                    await self._ready()
                    while await self._turn():
                        pass
                self._told = ""
            except RequestError as error:
                pause = max(RETRY, error.retry_after or 0.0)
                reason = reason_of(error.code, error.message)
                if reason != self._told:
                    log.info("analysis_waits", code=error.code, reason=reason, seconds=pause)
                    self._told = reason
                await trio.sleep(pause)
                self._news.set()
            except Exception:
                log.exception("analysis_failed")
                await trio.sleep(RETRY)
                self._news.set()

    async def _ready(self) -> None:
        async with self._preparing:
            if not self._prepared:
                await self._prepare()
                self._prepared = True

    async def _turn(self) -> bool:
        """Work while that disturbs nobody; whether there may be more to do."""
        with trio.CancelScope(deadline=self._moved + PATIENCE) as patience:
            async with self._scheduler.when_idle(SETTLE):
                patience.deadline = math.inf
                async with self._many():
                    while await self._step():
                        self._moved = trio.current_time()
                return False
        if not patience.cancelled_caught:
            return True  # somebody came
        async with self._scheduler.when_idle(SHORTEST):
            more = await self._step()
            self._moved = trio.current_time()
            return more
        return True

    @asynccontextmanager
    async def _many(self) -> AsyncIterator[None]:
        """Meanwhile, a backlog is embedded by something beside the upstream, if possible."""
        if not self._spare or await self._unembedded() < MANY:
            yield
            return
        async with self._upstream.spare() as embed:
            if embed is None:
                yield
                return
            before = self._texts
            self._texts = LongTexts(embed, MANY_TOGETHER)
            self._texts.piece = before.piece
            self._most = MANY_BATCH
            try:
                yield
            except RequestError as error:
                self._spare = error.code not in DOWN
                raise
            finally:
                before.piece = self._texts.piece
                self._texts = before
                self._most = _BATCH
                self._batch = min(self._batch, _BATCH)

    async def _unembedded(self) -> int:
        """Results without an embedding by the upstream's model."""
        if (await self._upstream.ask()) is self._refused:
            return 0
        await self._upstream.settled()
        space = await self._space()
        after = 0 if space is None else space.seq
        lag: int = await self._read(lambda store: store.analyses.lag(after))
        return lag

    async def _step(self) -> bool:
        """Analyse a little; whether there may be more to do."""
        compute = partial(certainty_stats, compiled=False)
        if await self._read(lambda store: store.analyses.compute_certainty(compute)):
            return True
        return await self._embed_some()

    async def _read(self, question: Callable[[Store], Any]) -> Any:
        return await self._persistence.read(question)

    # -- embeddings ---------------------------------------------------------------------------

    async def _embed_some(self) -> bool:
        properties = await self._upstream.ask()
        if properties is self._refused:
            return False
        await self._upstream.settled()
        space = await self._space()
        if space is not None:
            await self.shards.index_of(space)
        after, count = (0 if space is None else space.seq), self._batch
        number = 0 if space is None else space.id
        documents = await self._read(
            lambda store: _few(store.analyses.unembedded(after, count, number))
        )
        if not documents:
            return False
        try:
            if space is None:
                space = await self._open_space(await self._dimension())
            texts = [text for one in documents for text in (one.question, one.answer)]
            vectors = await self._texts.vectors(texts)
        except RequestError as error:
            return await self._failed(error, properties, space, documents)
        parts = [vectors[i : i + 2] for i in range(0, len(vectors), 2)]
        dim = max((len(vector) for vector in vectors), default=0)
        if dim not in (0, space.dim):
            log.info("embeddings_changed", dimension=dim, before=space.dim)
            await self._open_space(dim)
            return True
        self._batch = min(2 * self._batch, self._most)
        await self._keep(space, documents, parts)
        return True

    async def _failed(
        self,
        error: RequestError,
        properties: Properties,
        space: Space | None,
        documents: list[Document],
    ) -> bool:
        """Skip what can never be embedded; raise where it may be later."""
        if error.code == ErrorCode.UNSUPPORTED:
            log.info("no_embeddings", reason=error.message)
            self._refused = properties
            return False
        alone, self._batch = len(documents) == 1, 1
        # What loads its model, or takes no more for now, has not failed at a text.
        if alone and space is not None and not isinstance(error, UpstreamNotReady):
            seq, count = documents[0].seq, 1
            if self._failures[0] == seq:
                count += self._failures[1]
            self._failures = (seq, count)
            hopeless = error.code in (ErrorCode.CONTEXT_EXCEEDED, ErrorCode.INVALID_REQUEST)
            if hopeless or count >= _TRIES:
                reason = reason_of(error.code, error.message)
                log.warning("result_not_embedded", code=error.code, reason=reason)
                await self._keep(space, documents, [[[], []]])
                return True
        raise error

    async def _keep(
        self, space: Space, documents: list[Document], parts: Sequence[Sequence[list[float]]]
    ) -> None:
        def keep(store: Store) -> None:
            found = zip(documents, quantised(combine(parts)), strict=True)
            rows = [(one.seq, *codes) for one, codes in found if codes is not None]
            store.analyses.embed(space.id, documents[-1].seq, rows)

        await self._read(keep)
        await self.shards.follow(space)

    async def _dimension(self) -> int:
        (vector,) = await self._texts.vectors(["dimension"])
        return len(vector)

    async def _open_space(self, dim: int) -> Space:
        model = self._upstream.fingerprint()
        space: Space = await self._read(lambda store: store.analyses.open_space(model, dim, RECIPE))
        await self.shards.index_of(space)
        return space

    async def _space(self) -> Space | None:
        """The space of the upstream's model, as far as that is known."""
        model = self._upstream.fingerprint()
        for space in await self._read(lambda store: store.analyses.spaces()):
            if space.recipe == RECIPE and same_model(space.model, model):
                if "hash" in model and "hash" not in space.model:
                    await self._read(partial(_know, space=space, model=model))
                found: Space = space
                return found
        return None

    # -- for requests -------------------------------------------------------------------------

    @property
    def embeds(self) -> bool:
        """Whether something that embeds texts is up."""
        return self._upstream.backend is not None

    async def search(self, text: str, k: int, user: User) -> Found:
        """The k of a user's results (an admin's: of all) nearest to a text, of those analysed.

        Raises:
            RequestError: the upstream gives no embeddings, or fails; the queue is full.
        """
        await self._ready()
        requirement = self._upstream.requirement
        tokens = tokens_in(text[:MAX_TEXT])
        slot_request = SlotRequest(
            user, requirement.model, requirement, prompt_tokens=tokens, most_tokens=0
        )
        ticket = self._scheduler.submit(slot_request)
        async with ticket:
            texts = LongTexts(held(ticket.lease).backend.upstream.embed)
            texts.piece = self._texts.piece
            (vector,) = await texts.vectors([text])
        owner = view_of(user)
        space = await self._space()
        hits: list[tuple[Summary, str, float]] = []
        searched = 0
        if space is not None and len(vector) == space.dim:
            hits, searched = await self.shards.search(space, vector, k, owner)
        return Found(hits, searched, await self._backlog(owner), user.admin)

    async def _backlog(self, owner: str | None = None) -> int:
        """An owner's results that are not analysed yet, as far as the upstream allows it."""
        after: int = await self._read(lambda store: store.analyses.certainty_seq())
        if self._refused is None or self._upstream.properties is not self._refused:
            space = None if self._upstream.properties is None else await self._space()
            after = min(after, 0 if space is None else space.seq)
        lag: int = await self._read(lambda store: store.analyses.lag(after, owner))
        return lag

    async def _stored(self) -> bool:
        """Whether there are embeddings to be read."""
        return self.shards.empty and bool(await self._read(lambda s: s.analyses.spaces()))

    async def report(self, owner: str | None = None) -> dict[str, Any]:
        """The part of a status report about an owner's results (None: about all)."""
        out: dict[str, Any] = {"backlog": await self._backlog(owner)}
        if self._upstream.properties is not None:
            out["embeddings"] = self._upstream.properties is not self._refused
        out["indexed"] = self.shards.count(owner)
        return out


def _few(documents: list[Document]) -> list[Document]:
    """The first of them, as many as one step embeds."""
    size = 0
    for number, one in enumerate(documents):
        size += len(one.question[:MAX_TEXT]) + len(one.answer[:MAX_TEXT])
        if number and size > STEP_TEXT:
            return documents[:number]
    return documents


def _know(store: Store, *, space: Space, model: dict[str, Any]) -> None:
    store.analyses.update_model(space, model)
