"""The answer to a status request; SPEC.md names the keys."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Mapping
from typing import Any
from weakref import WeakKeyDictionary

import trio

from llcuda_net.config.users import User
from llcuda_net.generation.dispatcher import need_of
from llcuda_net.generation.generation import Generation
from llcuda_net.generation.persistence import Persistence
from llcuda_net.generation.registry import Registry
from llcuda_net.generation.state import State
from llcuda_net.models.serving.manager import Manager
from llcuda_net.scheduler.scheduler import Scheduler
from llcuda_net.scheduler.ticket import Ticket
from llcuda_net.upstream.backend import Backend
from llcuda_net.upstream.pool import Pool
from llcuda_net.util.version import package_version

#: Waiting requests that are listed.
_MOST_WAITING = 100
#: Most notes of damage in a report, the last ones.
_DAMAGE = 20
#: What is told of the fingerprint of an upstream's model.
_FINGERPRINT = ("name", "build", "size", "quantisation", "hash")
#: Seconds over which a rate is a mean, at least.
_WINDOW = 2.0


class Rate:
    """How fast a count has grown lately, from the moments at which it was read."""

    def __init__(self) -> None:
        self._marks: list[tuple[float, int]] = []

    def __call__(self, count: int) -> float:
        """How much the count grows per second, given what it is now."""
        now = trio.current_time()
        while len(self._marks) > 1 and self._marks[1][0] <= now - _WINDOW:
            del self._marks[0]
        if not self._marks or self._marks[-1][0] < now - _WINDOW / 8:
            self._marks.append((now, count))
        then, before = self._marks[0]
        return round((count - before) / (now - then), 1) if now > then else 0.0


class Reporter:
    """Counts what has ended, and reports how a server stands."""

    def __init__(
        self,
        pool: Pool,
        scheduler: Scheduler,
        registry: Registry,
        persistence: Persistence,
        models: Manager | None = None,
    ) -> None:
        self._pool = pool
        self._models = models
        self._scheduler = scheduler
        self._registry = registry
        self._persistence = persistence
        self._started = trio.current_time()
        self._ended: Counter[State] = Counter()
        self._streamed = 0
        self._failovers = 0
        self._rate = Rate()
        #: Tokens by the URL of the upstream that made them, and how many of a generation are
        #: counted there.
        self._made: Counter[str] = Counter()
        self._credited: WeakKeyDictionary[Generation, int] = WeakKeyDictionary()
        self._rates: dict[str, Rate] = {}

    def __repr__(self) -> str:
        ended = ", ".join(f"{count} {state}" for state, count in self._ended.items())
        return f"<Reporter: {ended or 'nothing ended yet'}, {self._streamed} pieces>"

    def ended(self, generation: Generation) -> None:
        """A generation is over."""
        self._credit(generation)
        self._ended[generation.state] += 1
        self._streamed += generation.count
        self._failovers += len(generation.failovers)

    def _credit(self, generation: Generation) -> None:
        """Count what was made since the last time for the upstream that has it now."""
        made = generation.made
        self._made[generation.upstream] += made - self._credited.get(generation, 0)
        self._credited[generation] = made

    def _speed(self, url: str) -> float:
        return self._rates.setdefault(url, Rate())(self._made[url])

    def report(
        self, user: User, *, draining: bool, connections: int, http: Mapping[str, int]
    ) -> dict[str, Any]:
        """How the server stands, as far as a user may know; an admin may know everything.

        Args:
            connections: clients of our own protocol.
            http: HTTP connections by what they do.
        """
        for generation in self._registry:
            self._credit(generation)
        tokens = self._streamed + sum(g.count for g in self._registry)
        backends = self._pool.backends
        known = {backend.upstream.base_url for backend in backends}
        self._rates = {url: rate for url, rate in self._rates.items() if url in known}
        self._made = Counter({url: made for url, made in self._made.items() if url in known})
        return {
            "server": {
                "version": package_version(),
                "pid": os.getpid(),
                "uptime": round(trio.current_time() - self._started, 3),
                "draining": draining,
            },
            "user": user.name,
            "connections": connections,
            "http": dict(http),
            "streams": sum(len(generation.readers) for generation in self._registry),
            "requests": {
                "running": self._scheduler.running,
                "queued": self._scheduler.queued,
                "done": self._ended[State.DONE],
                "failed": self._ended[State.FAILED],
                "cancelled": self._ended[State.CANCELLED],
                "interrupted": self._ended[State.INTERRUPTED],
                "failovers": self._failovers + sum(len(g.failovers) for g in self._registry),
            },
            "tokens": tokens,
            "tokens_per_second": self._rate(tokens),
            "upstreams": [
                {
                    **_upstream(backend, user),
                    "tokens_per_second": self._speed(backend.upstream.base_url),
                }
                for backend in backends
            ],
            **_models(self._pool, self._models),
            "users": [
                {
                    "name": load.name,
                    "weight": load.weight,
                    "running": load.running,
                    "queued": load.queued,
                    "served": load.served,
                }
                for load in self._scheduler.users()
                if user.admin or load.name == user.name
            ],
            "queue": [
                self._waiting(ticket)
                for ticket in itertools.islice(
                    (
                        ticket
                        for ticket in self._scheduler.waiting()
                        if user.admin or ticket.slot_request.user.name == user.name
                    ),
                    _MOST_WAITING,
                )
            ],
            **_store(self._persistence),
        }

    def _waiting(self, ticket: Ticket) -> dict[str, Any]:
        backends = self._pool.of(ticket.slot_request.model, need_of(ticket.slot_request).role)
        return {
            "user": ticket.slot_request.user.name,
            "model": backends[0].model if backends else "",
            "priority": ticket.slot_request.priority.name.lower(),
            "position": ticket.position,
            "waited": round(trio.current_time() - ticket.submitted, 3),
            "wait": ticket.wait,
            "reason": ticket.reason,
        }


def _models(pool: Pool, manager: Manager | None) -> dict[str, Any]:
    """All models; those that this server runs itself with how they are loaded."""
    if manager is None:
        return {"models": pool.models()}
    ours = {one["name"]: one for one in manager.report()}
    taken, room = manager.taken, manager.budget
    return {
        "models": [_merged(one, ours.get(one["name"], {})) for one in pool.models()],
        "model_memory": {
            "memory": taken.host,
            "memory_limit": room.host,
            "gpu_memory": taken.gpu,
            "gpu_memory_limit": room.gpu,
        },
    }


def _merged(model: dict[str, Any], ours: dict[str, Any]) -> dict[str, Any]:
    """What the pool and the manager say; of one that is not loaded only the latter knows more."""
    return {**ours, **{key: value for key, value in model.items() if value is not None}}


def _upstream(backend: Backend, user: User) -> dict[str, Any]:
    properties = backend.upstream.properties
    return {
        "name": backend.name,
        "url": backend.upstream.base_url,
        "state": backend.state,
        "ready": backend.state == "up" and backend.table.known,
        "reason": backend.reason,
        "model": backend.model if backend.table.known else None,
        "slots": backend.slots_here or None,
        "busy": backend.busy,
        "foreign": backend.foreign,
        "releasing": backend.releasing,
        "kv_cache": str(backend.speeds.steps.cache),
        "context": properties.context if properties else None,
        "fingerprint": _fingerprint(backend),
        "restarts": backend.restarts,
        "failures": backend.failures,
        "failovers": backend.failovers,
        "weight": backend.spec.weight,
        "roles": sorted(backend.roles),
        "slots_detail": [
            {
                "id": slot.number,
                "state": str(slot.use),
                "user": slot.holder if user.admin or slot.holder == user.name else "",
            }
            for slot in (backend.table if backend.slots_here else ())
        ],
    }


def _fingerprint(backend: Backend) -> dict[str, Any]:
    """What is known of its model and software; not where the model's file is."""
    known = backend.fingerprint()
    return {name: known[name] for name in _FINGERPRINT if known.get(name)}


def _store(persistence: Persistence) -> dict[str, Any]:
    storage = persistence.storage
    if storage is None:
        return {}
    stats = storage.journal.stats
    refusal = storage.refusal
    return {
        "store": {
            **({} if refusal is None else {"refuses": refusal.message}),
            **({"damage": storage.damage[-_DAMAGE:]} if storage.damage else {}),
            "level": str(persistence.level(None)),
            "journal_records": stats.records,
            "journal_bytes": stats.bytes,
            "results": storage.committed,
            "backlog": storage.backlog,
            "unstored": len(storage.unstored),
        }
    }
