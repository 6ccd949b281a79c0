"""Requests that are no generations: vectors of texts, ranked documents, and a search by meaning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import trio

from llcuda_net.analysis import embeddings
from llcuda_net.analysis.analyzer import Analyst
from llcuda_net.analysis.vector_index import Found
from llcuda_net.config.upstreams import EMBEDDINGS, RERANK
from llcuda_net.config.users import Priority, User, view_of
from llcuda_net.errors import InvalidRequest, StorageError, Unsupported
from llcuda_net.generation.listing import Selection
from llcuda_net.generation.persistence import Persistence
from llcuda_net.generation.runner import too_late
from llcuda_net.scheduler.scheduler import Scheduler
from llcuda_net.scheduler.ticket import SlotRequest, Ticket
from llcuda_net.storage.results.interface import Hit, Query
from llcuda_net.storage.words import parse
from llcuda_net.upstream.interface import Relevance, Requirement, Upstream
from llcuda_net.upstream.pool import Pool
from llcuda_net.upstream.prefix_cache import tokens_in


async def embed(
    texts: Sequence[str | list[int]],
    user: User,
    model: str | None,
    pool: Pool,
    scheduler: Scheduler,
    timeout: float,
    priority: Priority = Priority.NORMAL,
) -> list[bytes]:
    """A vector a text, float32, little-endian.

    Args:
        texts: or token ids of texts.
        model: by name; None: the default one.
        timeout: seconds for all of it.
        priority: its class.

    Raises:
        RequestError: there is no such model, the queue is full, the upstream fails or gives no
            embeddings, or it took too long.
    """
    enter, again = _ways_in(
        user, pool.key_of(model, EMBEDDINGS), EMBEDDINGS, pool, scheduler, priority
    )
    with trio.move_on_after(timeout):
        return await embeddings.embed(texts, enter, again)
    raise too_late(timeout)


async def rerank(
    query: str,
    documents: Sequence[str],
    user: User,
    model: str | None,
    pool: Pool,
    scheduler: Scheduler,
    timeout: float,
) -> Relevance:
    """How well each document answers a query.

    Args:
        model, timeout: as of `embed`.

    Raises:
        RequestError: as `embed`.
    """
    enter, again = _ways_in(user, pool.key_of(model, RERANK), RERANK, pool, scheduler)
    asked = tokens_in(query)
    scores: list[float] = []
    read = 0
    with trio.move_on_after(timeout):
        for start in range(0, len(documents), embeddings.BATCH):
            batch = list(documents[start : start + embeddings.BATCH])

            async def ask(upstream: Upstream, batch: list[str] = batch) -> Relevance:
                return await upstream.rerank(query, batch)

            ticket = enter(sum(asked + tokens_in(one) for one in batch))
            found = await embeddings.on_slots(ticket, again, ask)
            scores += found.scores
            read += found.tokens
        return Relevance(tuple(scores), read)
    raise too_late(timeout)


def _ways_in(
    user: User,
    model_key: str,
    role: str,
    pool: Pool,
    scheduler: Scheduler,
    priority: Priority = Priority.NORMAL,
) -> tuple[embeddings.Enter, embeddings.Again]:
    """How a batch of texts enters the queue, and how it does so again where an upstream failed."""

    def enter(tokens: int) -> Ticket:
        requirement = Requirement(model_key, role)
        return scheduler.submit(
            SlotRequest(user, model_key, requirement, priority, prompt_tokens=tokens, most_tokens=0)
        )

    def again(ticket: Ticket, failed: frozenset[str]) -> bool:
        requirement = Requirement(model_key, role, avoid=failed)
        # What loads its model, or takes no more for now, is waited for.
        if pool.can_serve(requirement) or (not failed and pool.may_recover(requirement)):
            scheduler.requeue(ticket, replace(ticket.slot_request, key=requirement))
            return True
        return False

    return enter, again


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


async def find_words(
    words: str, selection: Selection, user: User, persistence: Persistence
) -> FoundWords:
    """The results of a user (an admin's: of all) in which words are.

    Args:
        selection: its `after` and order are of no use here.

    Raises:
        RequestError: there is no word, nothing is kept, or the store cannot be read.
    """
    if not persistence.keeps:
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
    hits, unindexed = await persistence.read(
        lambda store: (store.search(words, query), store.unindexed(owner))
    )
    return FoundWords(hits, unindexed, user.admin)


async def search(text: str, k: int, user: User, analyst: Analyst | None, timeout: float) -> Found:
    """The k results of a user (an admin's: of all) nearest to a text.

    Raises:
        RequestError: as `embed`, or nothing is analysed here.
    """
    if analyst is None:
        raise Unsupported(
            "this server analyses no results: it was started with --no-analysis, or keeps none",
        )
    if not text.strip():
        raise InvalidRequest("the text to search for is empty")
    with trio.move_on_after(timeout):
        return await analyst.search(text, k, user)
    raise too_late(timeout)
