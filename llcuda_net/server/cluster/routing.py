"""Where what comes to this server goes: here, or to another one that has said that it has room."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace

import trio

from llcuda_net.cluster.owners import routing
from llcuda_net.cluster.owners.loads import Load, ModelLoad, OtherLoad
from llcuda_net.cluster.owners.routing import Offer
from llcuda_net.config.upstreams import EMBEDDINGS
from llcuda_net.scheduler.scheduler import Scheduler
from llcuda_net.upstream.backend import Backend
from llcuda_net.upstream.pool import Pool

#: Seconds after which a load says nothing any more of where there is room.
_STALE = 5.0
#: Seconds from when this server says that something is to go from here until it goes: all have
#: heard it then.
_HEARD = 1.0
#: Seconds that what is handed over is on its way for, before its new server counts it.
_ON_ITS_WAY = 2.0


class Routing:
    """What the other servers have, as far as a request is concerned.

    Args:
        number: returns this server's.
        pool, scheduler: of this server.
    """

    def __init__(self, number: Callable[[], int], pool: Pool, scheduler: Scheduler) -> None:
        self._number = number
        self._pool = pool
        self._scheduler = scheduler
        self._others: list[OtherLoad] = []
        self._heard_at = 0.0
        #: Requests that were sent to others: when, to which server, for which model.
        self._sent: deque[tuple[float, int, str]] = deque()
        #: Since when this server has said of a model that something is to go from here.
        self._said: dict[str, float] = {}
        #: When a server refused a model of which it had said that it has an upstream.
        self._refused: dict[tuple[int, str], float] = {}

    def __repr__(self) -> str:
        return f"<Routing over {self._others!r}>"

    def say(self, load: Load) -> None:
        """This server says this of itself now."""
        now = trio.current_time()
        self._said = {
            name: self._said.get(name, now) for name, one in load.models.items() if one.due
        }

    def hear(self, others: Sequence[OtherLoad]) -> None:
        """The others have said this just now."""
        self._others, self._heard_at = [*others], trio.current_time()
        there = {one.server for one in others}
        self._refused = {one: at for one, at in self._refused.items() if one[0] in there}

    def forget(self) -> None:
        """Nothing is known of the others any more."""
        self._others = []

    def embedder(self, model: str | None, asked: Collection[int] = ()) -> int | None:
        """The server that embeds texts with a model; None: this one, or none does.

        Args:
            model: by name; None: the default one.
            asked: servers that do not, whatever they have said.
        """
        here = self._pool.of("", EMBEDDINGS)
        names = [model] if model is not None else [one.model for one in here[:1]]
        if any(
            one.up and (not names or names[0] in (one.model, *one.spec.aliases)) for one in here
        ):
            return None
        others = [one for one in self._others if one.load.embeds and one.server not in asked]
        named = [one for one in others if not names or names[0] in one.load.embeds]
        return next((one.server for one in named), None)

    @property
    def models(self) -> Mapping[str, ModelLoad]:
        """The models that other servers have, with the slots of all of them: by each of its names,
        which are its own and its aliases.
        """
        found: dict[str, ModelLoad] = {}
        for one in self._others:
            for name, load in one.load.models.items():
                if (known := found.get(name)) is not None:
                    load = load.beside(known)
                found.update(dict.fromkeys((name, *load.aliases), load))
        return found

    def route(self, model: str | None) -> int | None:
        """The server at which a request for a model is to wait; None: here.

        Args:
            model: as the request names it; None: the default one.
        """
        others = self._fresh()
        name = self._canonical(model, others)
        if name is None:
            return None
        own = self._own(name)
        if not own.seconds():
            return None
        offers = list(self._offers(name, others))
        server = routing.choose(own, offers, self._sent_lately(name, others))
        if server is not None:
            self._sent.append((trio.current_time(), server, name))
        return server

    def room(self, name: str) -> int | None:
        """The server that has a free slot for one that waits here for a model; None: none has.

        Of free slots that several have something for each takes its part, so that no more go than
        there are.
        """
        others = self._fresh()
        own = self._own(name)
        if own.free > 0 or self._heard_at - self._said.get(name, math.inf) < _HEARD:
            return None
        wanting = {
            one.server for one in others if (found := _named(one.load, name)) and found.due > 0
        }
        sent = self._sent_lately(name, others)
        offers = []
        for one in self._offers(name, others):
            mine = routing.part(one.free - one.queued, own.server, wanting - {one.server})
            if mine > sent.get(one.server, 0):
                offers.append(replace(one, free=mine, queued=0))
        server = routing.choose(own, offers, sent)
        if server is not None:
            self._sent.append((trio.current_time() + _ON_ITS_WAY, server, name))
        return server

    def _fresh(self) -> list[OtherLoad]:
        """What was heard of late."""
        if trio.current_time() - self._heard_at > _STALE:
            return []
        return [one for one in self._others if one.age < _STALE]

    def _offers(self, name: str, others: Sequence[OtherLoad]) -> Iterator[Offer]:
        for one in others:
            found = _named(one.load, name)
            refused = self._refused.get((one.server, name), -math.inf)
            if found is not None and refused < self._heard_at - one.age:
                yield Offer(one.server, found.slots, found.free, found.queued, found.wait)

    def refused(self, server: int, model: str | None) -> None:
        """A server did not take a request for a model: none goes there until it is heard again."""
        name = self._canonical(model, self._others)
        if name is not None:
            self._refused[server, name] = trio.current_time()

    def _canonical(self, model: str | None, others: Sequence[OtherLoad]) -> str | None:
        names = [*self._pool.names(), *(name for one in others for name in one.load.models)]
        if (name := model if model is not None else next(iter(names), None)) is None:
            return None
        key = next((one.model_key for one in self._pool.meant(name)), "")
        return self._pool.meanings().get(key) or self._pool.canonical(name) or name

    def _own(self, name: str) -> Offer:
        keys = {one.model_key for one in self._pool.meant(name) if one.model_key} or {
            one.model_key for one in self._pool.of("") if one.model_key and name in names_of(one)
        }
        backends = [one for one in self._pool.backends if one.model_key in keys]
        up = [one for one in backends if one.up and not one.draining]
        if not up:
            there = int(any(one.loadable and one.owned for one in backends))
            return Offer(self._number(), there, 0)
        queued, wait = self._scheduler.outlook(up[0].model_key)
        slots = sum(len(one.table) for one in up)
        free = sum(one.free for one in up if not one.resting and not one.leaving)
        if not slots:  # it has it only just now, and has not asked for its slots yet
            slots = free = 1
        return Offer(self._number(), slots, free, queued, wait)

    def _sent_lately(self, name: str, others: Sequence[OtherLoad]) -> dict[int, int]:
        """How many were sent to each server since it said what it has."""
        said = {one.server: self._heard_at - one.age for one in others}
        while self._sent and self._sent[0][0] < trio.current_time() - 2 * _STALE:
            self._sent.popleft()
        found: dict[int, int] = {}
        for at, server, model in self._sent:
            if model == name and at >= said.get(server, at + 1):
                found[server] = found.get(server, 0) + 1
        return found


def names_of(backend: Backend) -> set[str]:
    """All names of its model: the one that is given to it, aliases, what it calls itself."""
    own = backend.fingerprint().get("name")
    return {backend.model, *backend.spec.aliases, *([own] if isinstance(own, str) else ())}


def _named(load: Load, name: str) -> ModelLoad | None:
    """What a server has of a model, by its name there or an alias."""
    if (found := load.models.get(name)) is not None:
        return found
    return next((one for one in load.models.values() if name in one.aliases), None)
