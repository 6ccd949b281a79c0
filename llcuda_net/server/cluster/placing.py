"""Where a request runs in a cluster, and what its idempotency key means there.

A key that may have been sent before is taken in the database before the request begins anywhere: so
it runs once, whichever servers it is sent to at once. Who finds it taken gets the generation that
has it, wherever that is. A fresh key was never sent before: it is taken in the transaction that
accepts its generation, which need not wait for it. If its repetition was faster, there the request
is refused, on a connection that its client has given up.

Then the request goes where it waits least, if that is another server. What is known of that may be
old: one that asks no upstream of the model any more refuses the request, and it is looked again
where it is to wait. So no request waits at a server only because it came there at a wrong moment.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Any, Protocol, TypeVar
from uuid import uuid4
from weakref import WeakValueDictionary

import trio

from llcuda_net.cluster import keys
from llcuda_net.cluster.keys import Held, Key
from llcuda_net.cluster.owners.plan import PATIENCE
from llcuda_net.config.users import User
from llcuda_net.errors import (
    InvalidRequest,
    LeaseLost,
    RequestError,
    ShuttingDown,
    StorageUnavailable,
    UpstreamUnavailable,
)
from llcuda_net.generation.generation import Generation
from llcuda_net.generation.registry import Registry, check_key
from llcuda_net.generation.request import hash_of_request
from llcuda_net.generation.state import State
from llcuda_net.storage.postgres.connection import Connection
from llcuda_net.storage.records import Level, Result
from llcuda_net.util.time_ids import uuid7
from llcuda_protocol import Generate

_T = TypeVar("_T")
#: Seconds for which a key is looked at again whose generation is not found yet, and between looks.
_PATIENCE, _PAUSE = 10.0, 0.1
#: Seconds for which a request waits while no server asks an upstream of its model: longer than who
#: has one keeps it when another server is to have it, or a dead server's lease lasts.
_HANDOVER = PATIENCE + 5.0
#: Seconds between two looks for keys whose generations are gone.
SWEEP = 60.0
_WHAT = "the idempotency key cannot be looked up"
#: With these a server refuses what another one could run.
_ELSEWHERE = (UpstreamUnavailable, ShuttingDown, LeaseLost)


class NowhereError(Exception):
    """A request can wait nowhere at this moment: the servers are changing who asks its upstreams.

    Attributes:
        why: for its user, should it stay so.
    """

    def __init__(self, why: RequestError) -> None:
        super().__init__(why.message)
        self.why = why


class Database(Protocol):
    """What is asked of the cluster."""

    @property
    def number(self) -> int:
        """This server's."""

    def check_open(self) -> None:
        """Raises LeaseLost while it is no member."""

    async def find(self, id_: str, owner: str | None) -> Generation | None:
        """A generation that another server has; raises RequestError."""

    async def ask(self, what: str, question: Callable[[Connection], _T]) -> _T:
        """Ask something; raises RequestError."""

    async def change(self, what: str, change: Callable[[Connection], _T]) -> _T:
        """Do something in one transaction; raises RequestError."""


class Host(Protocol):
    """The gateway."""

    @property
    def registry(self) -> Registry:
        """The generations that are here."""

    def submit(
        self,
        request: Generate,
        user: User,
        api: dict[str, Any] | None = None,
        previous: Result | None = None,
        id_: str | None = None,
    ) -> Generation:
        """Start one here; raises RequestError."""

    def level(self, wanted: str | None) -> Level:
        """The level in force for a request; raises RequestError."""

    async def find_by_key(self, key: str, owner: str) -> Generation | None:
        """What an owner's key means, running or over; raises RequestError."""

    def asked_elsewhere(self, model: str | None) -> bool:
        """Whether another server asks upstreams of a model, or will soon."""

    def only_elsewhere(self, model: str | None) -> bool:
        """Whether other servers alone do."""

    def keeps_alone(self, id_: str) -> bool:
        """Whether one that is over or set aside is here, and where nobody else finds it."""


class Asked:
    """A request, as it came.

    Attributes:
        api, previous, id: as of `Gateway.begin`.
        here: whether it must run on this server, since another one has sent it.
    """

    def __init__(
        self,
        request: Generate,
        user: User,
        api: dict[str, Any] | None,
        previous: Result | None,
        id_: str | None,
        *,
        here: bool,
    ) -> None:
        self.request = request
        self.user = user
        self.api = api
        self.previous = previous
        self.id = id_
        self.here = here

    def submit(self, host: Host, id_: str | None = None) -> Generation:
        """Start it on this server."""
        return host.submit(self.request, self.user, self.api, self.previous, id_ or self.id)

    def send(self) -> Generate:
        """The request, to be sent to another server.

        It has a key from now on, which may have been used: so it runs once, however many servers it
        is sent to before it is accepted.
        """
        request = self.request
        key = request.key if request.key is not None else uuid4().hex
        sent = replace(request, key=key, fresh=request.key is None or request.fresh)
        self.request = replace(sent, fresh=False)
        return sent

    def check(self, request_hash: bytes) -> None:
        """Raise KeyConflict where the key was given to another request."""
        assert self.request.key is not None
        check_key(self.request.key, request_hash, hash_of_request(self.request, self.api))


class Placing:
    """Begins requests.

    Args:
        route: where a request for a model waits least; None: here.
        send: begins a request on another server.
        settle: returns when what was sent is accepted, or over; raises NowhereError where it was
            refused there, and may be accepted elsewhere.
    """

    def __init__(
        self,
        cluster: Database,
        host: Host,
        route: Callable[[str | None], int | None],
        send: Callable[[Asked, int], Generation],
        settle: Callable[[Generation], Awaitable[None]],
    ) -> None:
        self._cluster = cluster
        self._host = host
        self._route = route
        self._send = send
        self._settle = settle
        #: Requests with one key are looked at one after the other.
        self._locks: WeakValueDictionary[tuple[str, str], trio.Lock] = WeakValueDictionary()
        #: Generations whose keys are taken, and that are about to begin here.
        self._coming: set[str] = set()

    def __repr__(self) -> str:
        return f"<Placing: {len(self._locks)} keys at this moment>"

    async def begin(self, asked: Asked) -> Generation:
        """Begin a request here or elsewhere, or join the one that has its key.

        While its upstreams change their server, it waits until one is known.

        Raises:
            RequestError: it cannot be begun; what its key means cannot be said.
        """
        until = trio.current_time() + _HANDOVER
        while True:
            over = trio.current_time() >= until
            try:
                found = await self._begin(asked, wait=not over)
                await self._settle(found)
                return found
            except NowhereError as error:
                if asked.here:  # the server that sent it looks for another place
                    raise error.why from None
            except UpstreamUnavailable as error:
                elsewhere = self._host.asked_elsewhere(asked.request.model)
                if over or asked.here or not error.retry or not elsewhere:
                    raise
            await trio.sleep(_PAUSE)

    async def _begin(self, asked: Asked, *, wait: bool) -> Generation:
        request = asked.request
        if request.key is None or (request.fresh and self._host.level(request.level).journalled):
            return await self._elsewhere(asked, wait=wait) or asked.submit(self._host)
        with trio.move_on_after(_PATIENCE):
            async with self._alone(asked.user.name, request.key):
                return await self._with_key(asked, request.key, wait=wait)
        raise StorageUnavailable(
            "another server of the cluster has this idempotency key, and its generation is not "
            "found there yet; try again",
            retry=True,
            retry_after=1.0,
        )

    @contextlib.asynccontextmanager
    async def _alone(self, owner: str, key: str) -> AsyncIterator[None]:
        lock = self._locks.setdefault((owner, key), trio.Lock())
        async with lock:
            yield

    async def _elsewhere(self, asked: Asked, *, wait: bool) -> Generation | None:
        """It, on another server, if it is to wait there; None: here.

        Args:
            wait: not here where others alone ask its upstreams.

        Raises:
            NowhereError: neither there nor here.
        """
        self._cluster.check_open()
        model = asked.request.model
        if not asked.here:
            server = self._route(model) if wait else None
            if server is not None:
                return self._send(asked, server)
            wait = wait and self._host.asked_elsewhere(model)
        if wait and self._host.only_elsewhere(model):
            raise NowhereError(
                UpstreamUnavailable(
                    "other servers ask the upstreams of its model", retry=True, retry_after=1.0
                )
            )
        return None

    async def _with_key(self, asked: Asked, key: str, *, wait: bool) -> Generation:
        owner, routed = asked.user.name, False
        while True:
            mine = self._host.registry.with_key(key, owner)
            if mine is not None and _answers(mine):
                return asked.submit(self._host)  # it joins
            held = await self._cluster.ask(_WHAT, partial(keys.find, owner=owner, key=key))
            if held is not None and held.done:
                if (done := await self._done(asked, held)) is not None:
                    return done
                await trio.sleep(_PAUSE)  # it was deleted just now
                continue
            if held is not None and not held.over and self._may_be_elsewhere(held, owner):
                found = await self._cluster.find(held.generation, owner)
                if found is not None and _answers(found):
                    asked.check(held.request_hash)
                    return found
            elif (held is None or held.over) and not routed:
                routed = True
                if (sent := await self._elsewhere(asked, wait=wait)) is not None:
                    return sent
            begun = await self._claim(asked, key, held)
            if begun is not None:
                return begun
            await trio.sleep(_PAUSE)

    async def _done(self, asked: Asked, held: Held) -> Generation | None:
        """What answers it from the store, whoever asks its upstream now."""
        asked.check(held.request_hash)
        if asked.request.fresh:
            raise InvalidRequest(
                f"the idempotency key {(asked.request.key or '')[:60]!r} is not fresh: it was used "
                "before"
            )
        return await self._host.find_by_key(asked.request.key or "", asked.user.name)

    async def _claim(self, asked: Asked, key: str, held: Held | None) -> Generation | None:
        """Begin it here, if the key can be had; None: another one has it, or has just had it.

        Args:
            held: what it meant at the last look.
        """
        id_, number, owner = asked.id or uuid7(), self._cluster.number, asked.user.name
        gone = []
        if held is not None and held.server == number and not self._is_here(held, owner):
            gone = [held.generation]
        wanted = Key(owner, key, id_, hash_of_request(asked.request, asked.api))
        self._coming.add(id_)
        try:
            taken = await self._cluster.change(
                _WHAT, partial(keys.claim, me=number, keys=[wanted], gone=gone)
            )
            if taken is None or number != self._cluster.number:
                self._cluster.check_open()
                return None
            if id_ in taken:
                return None
            generation = None
            try:
                generation = asked.submit(self._host, id_)
            finally:
                if generation is None or generation.id != id_:  # refused, or it has joined
                    await self._release(id_)
            return generation
        finally:
            self._coming.discard(id_)

    def _may_be_elsewhere(self, held: Held, owner: str) -> bool:
        here = self._host.registry.find(held.generation, owner)
        return here is None and not self._is_here(held, owner)

    def _is_here(self, held: Held, owner: str) -> bool:
        """Whether this server has what a key means, and does not only wait to be rid of it."""
        id_ = held.generation
        here = self._host.registry.find(id_, owner)
        return (
            id_ in self._coming
            or self._host.keeps_alone(id_)
            or (here is not None and _answers(here))
        )

    async def _release(self, id_: str) -> None:
        with trio.CancelScope(shield=True), contextlib.suppress(RequestError):
            await self._cluster.change(_WHAT, partial(keys.release, generations=[id_]))

    async def sweep(self) -> None:
        """Free, now and then, the keys of what is gone; runs until cancelled."""
        while True:
            await trio.sleep(SWEEP)
            with contextlib.suppress(RequestError):
                await self.sweep_once()

    async def sweep_once(self) -> None:
        """Free the keys of generations that this server took them for and has no more.

        Raises:
            RequestError: the database does not answer; this server is no member.
        """
        self._cluster.check_open()  # what is set aside may go on, with its key
        number = self._cluster.number
        unknown = await self._cluster.ask(_WHAT, partial(keys.unknown, me=number))
        gone = [
            id_
            for id_ in unknown
            if id_ not in self._coming
            and self._host.registry.find(id_, None) is None
            and not self._host.keeps_alone(id_)
        ]
        if gone and number == self._cluster.number:
            await self._cluster.change(_WHAT, partial(keys.release, generations=gone))
        await self._cluster.change(_WHAT, keys.sweep)


def check_sent(generation: Generation) -> None:
    """Return if what was sent to another server is to be answered with what came of it.

    Raises:
        NowhereError: it was refused there, and may be accepted elsewhere.
    """
    error = generation.error
    if isinstance(error, _ELSEWHERE) and not generation.accepted:
        raise NowhereError(error)


def _answers(generation: Generation) -> bool:
    """Whether a generation answers who sends its key again: it runs, or has done its work."""
    if generation.ended:
        return generation.state is State.DONE
    return not generation.scope.cancel_called
