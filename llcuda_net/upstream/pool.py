"""All upstreams: which serve the same model, which gets the next request, and why none can.

Work is balanced by the share of free slots, weighted. A conversation stays on the slot that holds
its prefix while that upstream has not much more to do than its share: consistent hashing with
bounded loads (V. Mirrokni, M. Thorup, M. Zadimoghaddam, SODA 2018) bounds it the same way.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import structlog
import trio

from llcuda_net.config.upstreams import COMPLETIONS
from llcuda_net.errors import RequestError, UnknownModel, Unsupported, UpstreamUnavailable
from llcuda_net.upstream.backend import Backend
from llcuda_net.upstream.lease import Lease, Requirement
from llcuda_net.upstream.model.fingerprint import same_model
from llcuda_net.upstream.slots import Slot

log = structlog.get_logger(__name__)

#: Seconds that upstreams may hold up the start.
PREPARE = 3.0
#: How much more than its share of the work an upstream may have and still keep its conversations.
SLACK = 1.25
#: Blocks that a slot must hold of a prompt before that counts.
_LEAST_BLOCKS = 1


class Pool:
    """The upstreams of a server.

    Args:
        members: the first one's model is the default.
        long_prompts: how many long prompts are read at once by one upstream.

    Attributes:
        on_change: called when there may be room for work.
        watched: whether it is run; else every member counts as up.
        may_grow: others may come in while all slots are busy, so a lone model is made known, too.
    """

    def __init__(self, backends: Sequence[Backend] = (), *, long_prompts: int = 1) -> None:
        self.backends: list[Backend] = []
        self.on_change: Callable[[], None] = lambda: None
        self._long_prompts = long_prompts
        self._groups = 0
        self._missing: dict[str, float] = {}
        self.watched = False
        self.may_grow = False
        self._nursery: trio.Nursery | None = None
        self._scopes: dict[Backend, trio.CancelScope] = {}
        for backend in backends:
            self.add(backend)

    # -- who is in it -------------------------------------------------------------------------

    def add(self, backend: Backend) -> None:
        """Take one in."""
        self.backends.append(backend)
        backend.on_change = self.changed
        backend.wants_signature = self._must_tell_apart
        self._group()
        if self._nursery is not None:
            self._nursery.start_soon(self._watch, backend)

    def drain(self, backend: Backend) -> None:
        """Give it no more work; it leaves when what runs on it has ended."""
        backend.draining = True
        log.info("upstream_draining", upstream=backend.name, running=len(backend.leases))
        self.changed()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Watch all of them until cancelled."""
        self.watched = True
        async with trio.open_nursery() as self._nursery:
            for backend in self.backends:
                backend.watched = True
                self._nursery.start_soon(self._watch, backend)
            task_status.started()
            await trio.sleep_forever()

    async def _watch(self, backend: Backend) -> None:
        if backend not in self.backends:  # it was taken out before this task began
            return
        with trio.CancelScope() as scope:
            self._scopes[backend] = scope
            await backend.watch()
        del self._scopes[backend]

    def changed(self) -> None:
        """There may be room for work, or a model is known."""
        for backend in [m for m in self.backends if m.draining and not m.leases]:
            self.backends.remove(backend)
            log.info("upstream_removed", upstream=backend.name)
            if backend in self._scopes:
                self._scopes[backend].cancel()
        self._group()
        self.on_change()

    # -- which model --------------------------------------------------------------------------

    def _must_tell_apart(self) -> bool:
        others = [m for m in self.backends if not m.draining and m.spec.model is None]
        return len(others) > 1 or (self.may_grow and bool(others))

    def _group(self) -> None:
        """Put those together that serve one model. Groups keep their keys: requests have them."""
        known: list[Backend] = []
        for backend in sorted(self.backends, key=lambda m: not m.model_key):
            if backend.spec.model is None and len(self.backends) > 1 and not _told(backend):
                if not backend.was_up:
                    backend.model_key = ""  # it had one as long as it was alone
                continue  # nothing can be said of it yet
            same = next((m for m in known if m.identity.same(backend.identity)), None)
            if same is not None:
                backend.model_key = same.model_key
            elif not backend.model_key or any(m.model_key == backend.model_key for m in known):
                self._groups += 1
                backend.model_key = f"model-{self._groups}"
            known.append(backend)

    def key_of(self, name: str | None, role: str = COMPLETIONS) -> str:
        """The key of the model that a request names; of the default one where it names none.

        Raises:
            RequestError: no upstream has it.
        """
        serving = list(self._serving(role))
        if name is None and serving:
            return next((m.model_key for m in serving if m.model_key), "")
        if name is None:
            raise Unsupported(f"no upstream is used for {role}")
        for backend in serving:
            if name == backend.model and backend.model_key:
                return backend.model_key
        names = ", ".join(sorted({m.model for m in serving if m.model}))
        raise UnknownModel(
            f"no upstream has the model {name[:100]!r}; there are: {names or 'none yet'}",
        )

    def key_of_fingerprint(self, model: dict[str, Any]) -> str | None:
        """The key of a model by its fingerprint; None if no upstream has it now."""
        for backend in self._serving():
            if backend.up and backend.model_key and same_model(model, backend.fingerprint()):
                return backend.model_key
        return None

    def check(self, model_key: str) -> None:
        """Refuse what would wait for an upstream that nobody has seen yet.

        Raises:
            RequestError: none that serves the model is up, or was.
        """
        backends = self.of(model_key)
        if not any(m.up or m.was_up for m in backends):
            reasons = "; ".join(f"{m.name}: {m.reason}" for m in backends)
            raise UpstreamUnavailable(
                f"no upstream answers ({reasons})"[:500],
                retry=True,
                retry_after=1.0,
            )

    async def fingerprints(self, model_key: str) -> list[tuple[dict[str, Any], str]]:
        """What is known of a model, from each upstream that serves it, with the upstream's URL.

        Raises:
            RequestError: none of them can be asked.
        """
        found: dict[str, tuple[dict[str, Any], str]] = {}
        refusal: RequestError | None = None
        for backend in [m for m in self.of(model_key) if m.up]:
            if not backend.watched:
                backend.upstream.forget()  # it may have been started again with another model
            try:
                await backend.properties()
            except RequestError as error:
                refusal = error
                continue
            await backend.fingerprint.settled()
            model = backend.fingerprint()
            found.setdefault(str(sorted(model.items())), (model, backend.upstream.base_url))
        if not found and refusal is not None:
            raise refusal
        return list(found.values())

    def context(self, model_key: str) -> int | None:
        """Tokens of context that each upstream of a model has at least; None: not known."""
        known = [m.upstream.properties for m in self.of(model_key)]
        return min((one.context for one in known if one is not None), default=None)

    def outage(self, requirement: Requirement) -> float:
        """Seconds for which no upstream that could meet a need has been up; 0 while one is.

        A model that has left for good is missed from when that was first asked.
        """
        now = trio.current_time()
        requirement = self._within_reach(requirement)
        backends = [m for m in self.backends if not m.draining and m.may(requirement)]
        if not backends:
            return now - self._missing.setdefault(requirement.model, now)
        self._missing.pop(requirement.model, None)
        if any(m.up for m in backends):
            return 0.0
        return now - max(m.down_since for m in backends)

    async def prepare(self) -> None:
        """Ask all upstreams what they are, so that the first request need not wait."""

        async def ask(backend: Backend) -> None:
            try:
                await backend.properties()
            except RequestError as error:
                reasons[backend] = error.message
                return
            del reasons[backend]

        reasons = dict.fromkeys(self.backends, f"no answer within {PREPARE:g} s")
        with trio.move_on_after(PREPARE):
            async with trio.open_nursery() as nursery:
                for backend in self.backends:
                    nursery.start_soon(ask, backend)
        for backend, reason in reasons.items():
            log.warning("upstream_not_ready", upstream=backend.name, reason=reason)
        self.changed()

    def _serving(self, role: str = COMPLETIONS) -> Iterator[Backend]:
        return (m for m in self.backends if role in m.roles and not m.draining)

    def of(self, model: str, role: str = COMPLETIONS) -> list[Backend]:
        """Those that serve a model."""
        return [m for m in self._serving(role) if m.model_key == model or not model]

    # -- where to -----------------------------------------------------------------------------

    def place(self, requirement: Requirement, holder: str = "") -> Lease | None:
        """A free slot that meets a need; None if there is none now."""
        requirement = self._within_reach(requirement)
        candidates: list[tuple[Backend, Slot, int]] = []
        for backend in self.backends:
            if not backend.up or not backend.may(requirement):
                continue
            if (
                requirement.long
                and sum(lease.reading for lease in backend.leases) >= self._long_prompts
            ):
                continue
            found = backend.table.best(requirement.chain)
            if found is not None:
                candidates.append((backend, *found))
        if not candidates:
            return None
        backend, slot, blocks = self._holder_of(candidates) or max(candidates, key=_freedom)
        return backend.lease(requirement, slot, blocks, holder)

    def _holder_of(
        self, candidates: list[tuple[Backend, Slot, int]]
    ) -> tuple[Backend, Slot, int] | None:
        """The one that holds most of the prompt, unless it has more than its share to do."""
        backend, slot, blocks = max(candidates, key=lambda one: (one[2], _freedom(one)))
        if blocks < _LEAST_BLOCKS or not backend.trust.believed():
            return None
        weight = sum(m.spec.weight * len(m.table) for m, _, _ in candidates)
        busy = sum(m.busy for m, _, _ in candidates)
        share = backend.spec.weight * len(backend.table) / weight
        most = math.ceil(SLACK * (busy + 1) * share)
        return (backend, slot, blocks) if backend.busy + 1 <= most else None

    def _within_reach(self, requirement: Requirement) -> Requirement:
        """A need without those to avoid, where they are all there is by now."""
        wait = trio.current_time() < requirement.until and self.hope(requirement)
        return (
            requirement
            if wait or self.elsewhere(requirement)
            else replace(requirement, avoid=frozenset())
        )

    def elsewhere(self, requirement: Requirement) -> bool:
        """Whether one that is up could meet a need, now or later."""
        return any(m.up and m.may(requirement) for m in self.backends)

    def hope(self, requirement: Requirement) -> bool:
        """Whether one that is down now could meet it when it is back."""
        return any(
            m.watched and m.was_up and not m.draining and m.may(requirement) for m in self.backends
        )

    def why(self, requirement: Requirement) -> str:
        """Why a need has no place now, for a person."""
        requirement = self._within_reach(requirement)
        able = [m for m in self.backends if not m.draining and m.may(requirement)]
        up = [m for m in able if m.up]
        if not up:
            reasons = "; ".join(f"{m.name}: {m.reason or 'not asked yet'}" for m in able)
            return f"no upstream answers ({reasons})"[:256]
        if requirement.long and any(m.free for m in up):
            return "another long prompt is being read"
        slots = sum(len(m.table) for m in up)
        return f"all {slots} slots are in use" if slots != 1 else "the only slot is in use"

    # -- for reports --------------------------------------------------------------------------

    def models(self) -> list[dict[str, Any]]:
        """Each model with those that serve it, the default one first."""
        default = next((m.model_key for m in self._serving() if m.model_key), "")
        model_keys: dict[str, list[Backend]] = {}
        for backend in self.backends:
            if backend.model_key and backend.model and not backend.draining:
                model_keys.setdefault(backend.model_key, []).append(backend)
        return [
            {
                "name": found[0].model,
                "upstreams": [m.name for m in found],
                "slots": sum(len(m.table) for m in found if m.up),
                "free": sum(m.free for m in found if m.up),
                "context": min(
                    (m.upstream.properties.context for m in found if m.upstream.properties),
                    default=None,
                ),
                "default": key == default,
            }
            for key, found in model_keys.items()
        ]


def _told(backend: Backend) -> bool:
    """Whether all is known by which its model can be told from others; it may be nothing."""
    if COMPLETIONS not in backend.roles:  # it is not asked for tokens
        return backend.table.known
    identity = backend.identity
    return bool(identity.hash) or identity.signature is not None


def _freedom(one: tuple[Backend, Slot, int]) -> float:
    """How much of an upstream is free."""
    backend = one[0]
    return backend.spec.weight * backend.free / len(backend.table)
