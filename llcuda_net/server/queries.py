"""Queries, which are no generations: vectors, ranked documents, lists, and searches."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import trio

from llcuda_net.analysis import embeddings
from llcuda_net.analysis.analyzer import Analyst
from llcuda_net.analysis.shards import Question
from llcuda_net.analysis.vector_index import Answer, Found
from llcuda_net.config.settings import Settings
from llcuda_net.config.upstreams import EMBEDDINGS, RERANK
from llcuda_net.config.users import Priority, User, view_of
from llcuda_net.errors import (
    InvalidRequest,
    RequestError,
    StorageError,
    Unsupported,
    UpstreamUnavailable,
)
from llcuda_net.generation import listing
from llcuda_net.generation.listing import Selection
from llcuda_net.generation.memory import sizes
from llcuda_net.generation.memory.budget import MemoryBudget
from llcuda_net.generation.persistence import Persistence
from llcuda_net.generation.registry import Registry
from llcuda_net.generation.request import priority_of
from llcuda_net.generation.runner import too_late
from llcuda_net.scheduler.scheduler import Scheduler
from llcuda_net.scheduler.ticket import SlotRequest, Ticket
from llcuda_net.storage.results.interface import Hit, Query
from llcuda_net.storage.words import parse
from llcuda_net.telemetry.observers import Watches
from llcuda_net.telemetry.readiness import Startup
from llcuda_net.upstream.interface import Relevance, Requirement, Upstream, is_for_another
from llcuda_net.upstream.pool import Pool
from llcuda_net.upstream.prompts.prefix_cache import tokens_in


@dataclass(frozen=True)
class FoundWords:
    """What a search for words found.

    Attributes:
        hits: the best first.
        unindexed: results of the user that are not in the index yet.
        with_owners: whether the user who searched may see whose they are.
    """

    hits: list[Hit]
    unindexed: int
    with_owners: bool


EmbedElsewhere = Callable[[Sequence[str], User, str | None], Awaitable[list[bytes] | None]]
SearchElsewhere = Callable[[str, int, User], Awaitable[Found | None]]


class QueryService:
    """Answers the queries of users, once the server has started.

    Args:
        settings: how long a query may take that runs on an upstream or on what is analysed.
        pool, scheduler: where vectors and ranks are made, and how those wait for it.
        registry, persistence: what lists and searches look at.
        budget: of the memory that queries take.
        analyst: searches by meaning; None: nothing is analysed here.
        startup: queries wait until it is over.
        watch: told of each query that was answered, but for lists and searches for words.
        check_open: raises RequestError where the server stops.
        elsewhere: what of an owner (None: of all) is in the memory of other servers.
        embed_elsewhere: embeds texts with a model that another server asks, for a user; returns
            None where this server asks it. None: there are no others.
        search_elsewhere: searches by meaning at a server that embeds texts; returns None where
            there is none. None: there are no others.
    """

    def __init__(
        self,
        settings: Settings,
        pool: Pool,
        scheduler: Scheduler,
        registry: Registry,
        persistence: Persistence,
        budget: MemoryBudget,
        analyst: Analyst | None,
        *,
        startup: Startup,
        watch: Watches,
        check_open: Callable[[], None],
        elsewhere: Callable[[str | None], Awaitable[list[dict[str, Any]]]],
        embed_elsewhere: EmbedElsewhere | None = None,
        search_elsewhere: SearchElsewhere | None = None,
    ) -> None:
        self._settings = settings
        self._pool = pool
        self._scheduler = scheduler
        self._registry = registry
        self._persistence = persistence
        self._budget = budget
        self._analyst = analyst
        self._startup = startup
        self._watch = watch
        self._check_open = check_open
        self._elsewhere = elsewhere
        self._embed_elsewhere = embed_elsewhere
        self._search_elsewhere = search_elsewhere

    def __repr__(self) -> str:
        return f"<QueryService of {self._pool!r}>"

    # -- on slots of upstreams ----------------------------------------------------------------

    async def embed(
        self,
        texts: Sequence[str | list[int]],
        user: User,
        model: str | None = None,
        priority: str | None = None,
        *,
        only_here: bool = False,
    ) -> list[bytes]:
        """A vector a text, float32, little-endian.

        Args:
            texts: or token ids of texts.
            model: by name; None: the default one.
            priority: its class; None: the user's own.
            only_here: not by another server, which is the one that asks.

        Raises:
            RequestError: there is no such model, the queue is full, the upstream fails or gives no
                embeddings, it took too long, or the server is stopping.
        """
        await self._startup.wait()
        timeout = self._settings.timeout
        with self._watch.answering("embed"):
            self._check_open()
            # As they came, and as they are sent to the upstream.
            with self._budget.holding(user.name, 2 * sizes.of(texts)):
                class_ = priority_of(priority, user)
                with trio.move_on_after(timeout):
                    elsewhere = None if only_here else self._embed_elsewhere
                    plain = [one for one in texts if isinstance(one, str)]
                    if elsewhere is None or len(plain) < len(texts):  # token ids stay here
                        return await self._embed(texts, user, model, class_)
                    if (found := await elsewhere(plain, user, model)) is not None:
                        return found
                    try:
                        return await self._embed(texts, user, model, class_)
                    except RequestError as error:
                        if not is_for_another(error):
                            raise
                        if (found := await elsewhere(plain, user, model)) is None:
                            raise
                        return found
                raise too_late(timeout)

    async def _embed(
        self, texts: Sequence[str | list[int]], user: User, model: str | None, priority: Priority
    ) -> list[bytes]:
        """By an upstream of this server."""
        enter, again = self._ways_in(user, model, EMBEDDINGS, priority)
        return await embeddings.embed(texts, enter, again)

    async def rerank(
        self,
        query: str,
        documents: Sequence[str],
        user: User,
        model: str | None = None,
        priority: str | None = None,
    ) -> Relevance:
        """How well each document answers a query.

        Args:
            model, priority: as of `embed`.

        Raises:
            RequestError: as `embed`.
        """
        await self._startup.wait()
        timeout = self._settings.timeout
        with self._watch.answering("rerank"):
            self._check_open()
            with self._budget.holding(user.name, 2 * sizes.of([query, *documents])):
                class_ = priority_of(priority, user)
                enter, again = self._ways_in(user, model, RERANK, class_)
                with trio.move_on_after(timeout):
                    return await _rerank(query, documents, enter, again)
                raise too_late(timeout)

    def _ways_in(
        self, user: User, model: str | None, role: str, priority: Priority
    ) -> tuple[embeddings.Enter, embeddings.Again]:
        """How a batch of texts enters the queue, and how it does so again where an upstream fails.

        Raises:
            RequestError: there is no such model.
        """
        pool, scheduler = self._pool, self._scheduler
        key = pool.key_of(model, role)
        if pool.only_elsewhere(model, role):  # here it would wait in vain
            raise UpstreamUnavailable(
                "other servers of the cluster ask the upstreams of its model",
                retry=True,
                retry_after=1.0,
            )

        def enter(tokens: int) -> Ticket:
            requirement = Requirement(key, role)
            return scheduler.submit(
                SlotRequest(user, key, requirement, priority, prompt_tokens=tokens, most_tokens=0)
            )

        def again(ticket: Ticket, failed: frozenset[str]) -> bool:
            requirement = Requirement(key, role, avoid=failed)
            # What loads its model, or takes no more for now, is waited for.
            if pool.can_serve(requirement) or (not failed and pool.may_recover(requirement)):
                scheduler.requeue(ticket, replace(ticket.slot_request, key=requirement))
                return True
            return False

        return enter, again

    # -- in what is kept ----------------------------------------------------------------------

    async def list_generations(
        self, selection: Selection, user: User, *, only_here: bool = False
    ) -> tuple[list[dict[str, Any]], int]:
        """Generations of a user (an admin's: of all), as the protocol's entries.

        Args:
            only_here: those in the memory of this server alone, since another one asks.

        Returns:
            The entries, and how many more were left out of a reply that would be too large.

        Raises:
            RequestError: as `listing.listed`.
        """
        await self._startup.wait()
        if only_here:
            entries = listing.in_memory(selection, user, self._registry)
        else:
            elsewhere = await self._elsewhere(view_of(user))
            entries = await listing.listed(
                selection, user, self._registry, self._persistence, elsewhere
            )
        return listing.within(entries, self._budget.bounds.reply)

    async def find_words(self, words: str, selection: Selection, user: User) -> FoundWords:
        """The results of a user (an admin's: of all) in which words are.

        Args:
            selection: its `after` and order are of no use here.

        Raises:
            RequestError: there is no word, nothing is kept, or the store cannot be read.
        """
        await self._startup.wait()
        if not self._persistence.keeps:
            raise Unsupported(
                "this server keeps no results to search: it was started with --store none"
            )
        owner = view_of(user)
        query = Query(
            owner=owner,
            states=[str(state) for state in selection.states],
            model=selection.model,
            since=selection.since,
            until=selection.until,
            limit=selection.limit,
        )
        try:
            parse(words)
        except StorageError as error:
            raise InvalidRequest(error.message) from None
        hits, unindexed = await self._persistence.read(
            lambda store: (store.search(words, query), store.unindexed(owner))
        )
        return FoundWords(hits, unindexed, user.admin)

    async def search(self, text: str, k: int, user: User, *, only_here: bool = False) -> Found:
        """The k results of a user (an admin's: of all) nearest to a text.

        Args:
            only_here: not by another server, which is the one that asks.

        Raises:
            RequestError: as `embed`, or nothing is analysed here.
        """
        await self._startup.wait()
        timeout = self._settings.timeout
        with self._watch.answering("search"):
            self._check_open()
            analyst = self._analysing()
            if not text.strip():
                raise InvalidRequest("the text to search for is empty")
            with trio.move_on_after(timeout):
                if not analyst.embeds and not only_here and self._search_elsewhere is not None:
                    found = await self._search_elsewhere(text, k, user)
                    if found is not None:
                        return found
                return await analyst.search(text, k, user)
            raise too_late(timeout)

    async def search_part(self, question: Question, buckets: int, gone: Sequence[int]) -> Answer:
        """What another server asks of this one, for a search by meaning; see Shards.answer.

        Raises:
            RequestError: nothing is analysed here, or the store cannot be read.
        """
        await self._startup.wait()
        return await self._analysing().shards.answer(question, buckets, gone)

    def _analysing(self) -> Analyst:
        if self._analyst is None:
            raise Unsupported(
                "this server analyses no results: it was started with --no-analysis, or keeps none"
            )
        return self._analyst


async def _rerank(
    query: str, documents: Sequence[str], enter: embeddings.Enter, again: embeddings.Again
) -> Relevance:
    """The scores of all documents, batch by batch, and the tokens that were read for them."""
    asked = tokens_in(query)
    scores: list[float] = []
    read = 0
    for start in range(0, len(documents), embeddings.BATCH):
        batch = list(documents[start : start + embeddings.BATCH])

        async def ask(upstream: Upstream, batch: list[str] = batch) -> Relevance:
            return await upstream.rerank(query, batch)

        ticket = enter(sum(asked + tokens_in(one) for one in batch))
        found = await embeddings.on_slots(ticket, again, ask)
        scores += found.scores
        read += found.tokens
    return Relevance(tuple(scores), read)
