"""Requests of one connection that are answered once: embed, search, list, status and delete.

Each is answered by a task of its own, and belongs to no generation: with the connection it is gone.
A status and a delete cannot be cancelled. Replies to a list, a search or a status may be large, so
these are made and sent one at a time, and few may wait.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any, Protocol, TypeVar

import trio

from llcuda_net.config.users import User
from llcuda_net.errors import Overloaded, RequestError
from llcuda_net.generation.listing import Selection
from llcuda_net.server.generations.generations import Generations
from llcuda_net.server.queries import QueryService
from llcuda_net.server.tcp.chunking import hit_frames, listing_frames, vector_frames
from llcuda_net.server.tcp.fitting import Replies
from llcuda_net.server.tcp.peers.parts import asked, to_answer
from llcuda_net.server.tcp.write_buffer import WriteBuffer
from llcuda_protocol import (
    Delete,
    Deleted,
    Done,
    Embed,
    Frame,
    ListGenerations,
    Report,
    Search,
    Status,
)

_E = TypeVar("_E", Embed, Search, ListGenerations)
#: Bytes of memory that a hit or an entry takes, at most.
_HIT = 4 << 10
#: Requests for a list, a search or a report that may wait for those before them.
_MOST_REPLIES = 32


class QueryHost(Protocol):
    """What answers queries: the gateway; each comes with the user whose it is."""

    #: Answers those that are no generations.
    queries: QueryService
    #: Finds, reads and deletes generations.
    generations: Generations

    def holding(
        self, user: User, size: int, *, refuse: bool = True
    ) -> contextlib.AbstractContextManager[None]:
        """Around the sending of a reply that takes so many bytes of memory."""

    async def report(self, user: User) -> dict[str, Any]:
        """What a status request is answered with."""


class Queries:
    """The queries of one connection.

    Args:
        server: answers them.
        replies: sends the answers.
        buffer: where they wait; no more is made while it is full.
        get_user: whose they are now: the users may change while a query waits.
        only_here: whether they are about this server alone, since another one asks.
    """

    def __init__(
        self,
        server: QueryHost,
        replies: Replies,
        buffer: WriteBuffer,
        *,
        get_user: Callable[[], User],
        only_here: Callable[[], bool],
    ) -> None:
        self._server = server
        self._replies = replies
        self._buffer = buffer
        self._get_user = get_user
        self._only_here = only_here
        #: One reply to a list, search or status at a time is on its way: each may be large.
        self._replying = trio.Lock()
        self._scopes: dict[int, trio.CancelScope] = {}  # of those that may be cancelled

    def __repr__(self) -> str:
        waiting = self._replying.statistics().tasks_waiting
        return f"<Queries open={sorted(self._scopes)} waiting={waiting}>"

    @property
    def open(self) -> tuple[int, ...]:
        """The streams of those that may be cancelled."""
        return tuple(self._scopes)

    def begin(
        self, event: Embed | Search | ListGenerations | Status | Delete, nursery: trio.Nursery
    ) -> None:
        """Answer one, in a task of its own."""
        if isinstance(event, Embed):
            self._begin(event, self._embed, nursery)
        elif isinstance(event, Search):
            self._begin(event, self._search if event.peer is None else self._part, nursery)
        elif isinstance(event, ListGenerations):
            self._begin(event, self._list, nursery)
        elif isinstance(event, Delete):
            nursery.start_soon(self._delete, event)
        else:
            nursery.start_soon(self._status, event)

    def cancel(self, number: int) -> None:
        """End the query of this stream, where there is one."""
        scope = self._scopes.get(number)
        if scope is not None:
            scope.cancel()

    def drop(self) -> None:
        """The connection ends: nobody waits for an answer any more."""
        for scope in self._scopes.values():
            scope.cancel()

    def _begin(
        self, event: _E, work: Callable[[_E], Awaitable[dict[str, Any]]], nursery: trio.Nursery
    ) -> None:
        """Answer a request that may be cancelled; `work` returns fields of `done`."""
        # Known before its task runs: a cancel may come in the same write.
        scope = self._scopes[event.stream] = trio.CancelScope()
        nursery.start_soon(self._work, event, work, scope)

    async def _work(
        self,
        event: _E,
        work: Callable[[_E], Awaitable[dict[str, Any]]],
        scope: trio.CancelScope,
    ) -> None:
        started = trio.current_time()
        reason, fields = "cancelled", {}
        try:
            with scope:
                fields = await work(event)
                reason = "complete"
            total = round((trio.current_time() - started) * 1e3, 3)
            self._replies.send(Done(event.stream, reason, timings={"total": total}, **fields))
        except RequestError as error:
            self._replies.fail(event.stream, error)
        finally:
            del self._scopes[event.stream]
        self._buffer.flush()

    async def _embed(self, event: Embed) -> dict[str, Any]:
        vectors = await self._server.queries.embed(
            event.input, self._get_user(), event.model, only_here=self._only_here()
        )
        with self._server.holding(self._get_user(), sum(map(len, vectors)), refuse=False):
            await self._reply(vector_frames(event.stream, vectors, self._replies.max_frame))
        return {}

    async def _search(self, event: Search) -> dict[str, Any]:
        async with self._turn():
            found = await self._server.queries.search(
                event.text, event.k, self._get_user(), only_here=self._only_here()
            )
            with self._server.holding(self._get_user(), _HIT * len(found.hits)):
                await self._reply(hit_frames(event.stream, found, self._replies.max_frame))
        return {"usage": {"searched": found.searched, "backlog": found.backlog}}

    async def _part(self, event: Search) -> dict[str, Any]:
        """A part of another server's search: little, so it need not wait for its turn."""
        question, buckets, gone = asked(event, self._get_user())
        answer = await self._server.queries.search_part(question, buckets, gone)
        return {"usage": {"searched": answer.searched}, "peer": to_answer(answer)}

    async def _list(self, event: ListGenerations) -> dict[str, Any]:
        async with self._turn():
            selection, user = Selection.of(event), self._get_user()
            here = self._only_here()
            lists = self._server.queries
            entries, cut = await lists.list_generations(selection, user, only_here=here)
            with self._server.holding(self._get_user(), _HIT * len(entries)):
                await self._reply(listing_frames(event.stream, entries, self._replies.max_frame))
        return {"usage": {"cut": cut}} if cut else {}

    async def _status(self, event: Status) -> None:
        try:
            async with self._turn():
                if self._buffer.full:
                    await self._buffer.drained()
                self._replies.send(
                    Report(event.stream, await self._server.report(self._get_user()))
                )
        except RequestError as error:
            self._replies.fail(event.stream, error)
        self._buffer.flush()

    async def _delete(self, event: Delete) -> None:
        try:
            user, here = self._get_user(), self._only_here()
            await self._server.generations.delete(event.id, user, only_here=here)
            self._replies.send(Deleted(event.stream, event.id))
        except RequestError as error:
            self._replies.fail(event.stream, error)
        self._buffer.flush()

    async def _reply(self, frames: Iterable[Frame]) -> None:
        for frame in frames:
            self._replies.send(frame)
            self._buffer.flush()
            if self._buffer.full:
                await self._buffer.drained()

    @contextlib.asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """Wait until this reply may be made and sent."""
        if self._replying.statistics().tasks_waiting >= _MOST_REPLIES:
            raise Overloaded(
                f"at most {_MOST_REPLIES} lists, searches and reports wait on one connection",
                retry=True,
            )
        async with self._replying:
            yield
