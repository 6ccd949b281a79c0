"""All upstreams: which serve the same model, which gets the next request, and why none can.

The pool follows httpcore's: what changes a backend ends in one call of `Pool.update`, which drops
those that have drained, groups the others by model, and wakes `wait_change`; whoever waits there
asks `place` for slots. `place` itself is a pure choice (see `placement`) and the lease for it. No
part calls back into whoever uses the pool.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import structlog
import trio

from llcuda_net.config.upstreams import COMPLETIONS
from llcuda_net.errors import RequestError, UnknownModel, Unsupported, UpstreamUnavailable
from llcuda_net.upstream import placement
from llcuda_net.upstream.backend import Backend
from llcuda_net.upstream.health_check import HealthCheck
from llcuda_net.upstream.interface import Properties, Requirement
from llcuda_net.upstream.model.fingerprint import same_model
from llcuda_net.upstream.model.identity import Signature
from llcuda_net.upstream.slots.lease import Lease

log = structlog.get_logger(__name__)

#: Seconds that upstreams may hold up the start.
PREPARE = 3.0


class Pool:
    """The upstreams of a server.

    Args:
        backends: the first one's model is the default.
        long_prompts: how many long prompts are read at once by one upstream.
        may_grow: others may come in while all slots are busy, so a lone model gets a signature,
            too.

    Attributes:
        backends: those that are in it, also those that drain.
        watched: `run` runs; else every backend counts as up.
    """

    def __init__(
        self,
        backends: Sequence[Backend] = (),
        *,
        long_prompts: int = 1,
        may_grow: bool = False,
    ) -> None:
        self.backends: list[Backend] = []
        self.watched = False
        self._long_prompts = long_prompts
        self._may_grow = may_grow
        self._model_keys = 0
        #: Of the models that the settings name: who waits for one gets it from whatever has the
        #: name then, also where a changed table took its place meanwhile.
        self._named_keys: dict[str, str] = {}
        self._missing: dict[str, float] = {}
        self._owned: Collection[str] | None = None
        self._change = trio.Event()
        self._nursery: trio.Nursery | None = None
        self._scopes: dict[Backend, trio.CancelScope] = {}
        for backend in backends:
            self.add(backend)

    def __repr__(self) -> str:
        states = ", ".join(f"{one.name} {one.state}" for one in self.backends)
        slots, busy = (
            sum(one.slots for one in self.backends),
            sum(one.busy for one in self.backends),
        )
        return f"<Pool: {states or 'empty'}; {busy} of {slots} slots busy>"

    # -- who is in it -------------------------------------------------------------------------

    def add(self, backend: Backend) -> None:
        """Take one in."""
        self.backends.append(backend)
        backend.own(self._owns(backend))
        self._group()
        self._missing.pop(backend.model_key, None)
        if self._nursery is not None:
            self._nursery.start_soon(self._watch, backend)

    def replace(self, backend: Backend, others: Sequence[Backend]) -> None:
        """Put others in the place of one, which drains, since it was found to be them."""
        place = self.backends.index(backend)
        self.backends[place:place] = others
        for other in others:
            other.own(self._owns(other))
        if self._nursery is not None:
            for other in others:
                self._nursery.start_soon(self._watch, other)
        if backend.leases:
            self.drain(backend)
        else:
            self._remove(backend)
            self.update()

    def own(self, urls: Collection[str] | None) -> None:
        """Give work only to the upstreams with these URLs; None: to all.

        What others have is watched, and not asked for anything that takes a slot.
        """
        if urls == self._owned:
            return
        self._owned = urls
        for backend in self.backends:
            backend.own(self._owns(backend))
        self.update()

    def hear(self, signatures: Mapping[str, Signature]) -> None:
        """Other servers have found these signatures, of models of upstreams that they ask.

        Args:
            signatures: by the upstreams' URLs.
        """
        heard = [
            backend.hear(signatures[backend.spec.place])
            for backend in self.backends
            if backend.spec.place in signatures and backend.spec.model is None
        ]
        if any(heard):
            self.update()

    def _owns(self, backend: Backend) -> bool:
        return self._owned is None or backend.spec.place in self._owned

    def drain(self, backend: Backend) -> None:
        """Give it no more work; it leaves when what runs on it has ended."""
        backend.draining = True
        log.info("upstream_draining", upstream=backend.name, running=len(backend.leases))
        self.update()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Check the health of all of them until cancelled."""
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
        check = HealthCheck(backend, must_sign=self._must_sign, on_change=self.update)
        with trio.CancelScope() as scope:
            self._scopes[backend] = scope
            await check.run()
        del self._scopes[backend]

    def update(self) -> None:
        """Take account of a change: there may be room for work, or a model is known."""
        for backend in [one for one in self.backends if one.draining and not one.leases]:
            self._remove(backend)
            log.info("upstream_removed", upstream=backend.name)
        self._group()
        self._change.set()

    def _remove(self, backend: Backend) -> None:
        backend.draining = True
        self.backends.remove(backend)
        if backend in self._scopes:
            self._scopes[backend].cancel()

    async def wait_change(self) -> None:
        """Return once something has changed since this last returned; for one caller."""
        await self._change.wait()
        self._change = trio.Event()

    # -- what they are ------------------------------------------------------------------------

    async def properties(self, backend: Backend) -> Properties:
        """What a backend is; asked where that is not known.

        Raises:
            RequestError: it does not say.
        """
        properties = await backend.upstream.ask()
        if backend.learn(properties):
            self.update()
        return properties

    async def prepare(self) -> None:
        """Ask all upstreams what they are, so that the first request need not wait."""

        async def ask(backend: Backend) -> None:
            try:
                await self.properties(backend)
            except RequestError as error:
                backend.not_ready(error)
                reasons[backend] = error.message
                return
            del reasons[backend]
            backend.learn_reranks(await backend.upstream.reranks())

        there = [one for one in self.backends if not one.absent]
        reasons = dict.fromkeys(there, f"no answer within {PREPARE:g} s")
        with trio.move_on_after(PREPARE):
            async with trio.open_nursery() as nursery:
                for backend in there:
                    nursery.start_soon(ask, backend)
        for backend, reason in reasons.items():
            if backend.draining:  # it was a router
                continue
            log.warning("upstream_not_ready", upstream=backend.name, reason=reason)
        self.update()

    async def fingerprints(self, model_key: str) -> list[tuple[dict[str, Any], str]]:
        """What is known of a model, from each upstream that serves it, with the upstream's URL.

        Raises:
            RequestError: none of them can be asked.
        """
        found: dict[str, tuple[dict[str, Any], str]] = {}
        refusal: RequestError | None = None
        for backend in [one for one in self.of(model_key) if one.up]:
            if not backend.watched:
                backend.upstream.forget()  # it may have been started again with another model
            try:
                await self.properties(backend)
            except RequestError as error:
                refusal = error
                continue
            await backend.fingerprint.settled()
            model = backend.fingerprint()
            found.setdefault(str(sorted(model.items())), (model, backend.upstream.base_url))
        if not found and refusal is not None:
            raise refusal
        return list(found.values())

    # -- which model --------------------------------------------------------------------------

    def _must_sign(self) -> bool:
        """Whether models must be distinguished by their signatures."""
        others = [one for one in self.backends if not one.draining and one.spec.model is None]
        return len(others) > 1 or (self._may_grow and bool(others))

    def _group(self) -> None:
        """Give backends of one model one key. Keys stay what they are: requests have them."""
        for backend in self.backends:
            if backend.key_expired:
                backend.key_expired = False
                if backend.spec.model is None and self._must_sign():
                    backend.model_key = ""
        known: list[Backend] = []
        for backend in sorted(self.backends, key=lambda one: not one.model_key):
            if backend.spec.model is None and len(self.backends) > 1 and not _is_known(backend):
                if not backend.was_up:
                    backend.model_key = ""  # it had one as long as it was alone
                continue  # nothing can be said of it yet
            same = next((one for one in known if one.identity.same(backend.identity)), None)
            if same is not None:
                backend.model_key = same.model_key
            elif not backend.model_key or any(o.model_key == backend.model_key for o in known):
                backend.model_key = self._new_key(backend.identity.given)
            known.append(backend)

    def _new_key(self, named: str | None) -> str:
        if named is not None and named in self._named_keys:
            return self._named_keys[named]
        self._model_keys += 1
        key = f"model-{self._model_keys}"
        if named is not None:
            self._named_keys[named] = key
        return key

    def key_of(self, name: str | None, role: str = COMPLETIONS) -> str:
        """The key of the model that a request names; of the default one where it names none.

        Raises:
            RequestError: no upstream has it.
        """
        serving = list(self._serving(role))
        if name is None and serving:
            return next((one.model_key for one in serving if one.model_key), "")
        if name is None:
            raise Unsupported(f"no upstream is used for {role}")
        for backend in serving:
            if name in (backend.model, *backend.spec.aliases) and backend.model_key:
                return backend.model_key
        if self._owned is not None and any(
            name in (one.model, *one.spec.aliases) for one in serving if not one.model_key
        ):  # another server of the cluster has it, or this one has had it for a moment
            raise UpstreamUnavailable(
                f"no upstream of the model {name[:100]!r} is asked by this server now",
                retry=True,
                retry_after=1.0,
            )
        names = ", ".join(sorted(self.names(role)))
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
            RequestError: none that serves the model is up, or was, or loads it, or will.
        """
        backends = self.of(model_key)
        if not any(one.up or one.was_up or one.loading or one.loadable for one in backends):
            if (failure := _load_failure(backends)) is not None:
                raise failure
            reasons = "; ".join(f"{one.name}: {one.reason}" for one in backends)
            raise UpstreamUnavailable(
                f"no upstream answers ({reasons})"[:500],
                retry=True,
                retry_after=1.0,
            )

    def context(self, model_key: str) -> int | None:
        """Tokens of context that each upstream of a model has at least; None: not known."""
        known = [backend.upstream.properties for backend in self.of(model_key)]
        return min((one.context for one in known if one is not None), default=None)

    def named(self, name: str | None, role: str = COMPLETIONS) -> list[Backend]:
        """Those that serve the model that a request names, be it that another server asks them.

        Raises:
            RequestError: as `key_of`, of a model that none of them has.
        """
        try:
            return self.of(self.key_of(name, role), role)
        except UpstreamUnavailable:
            return [x for x in self._serving(role) if name in (x.model, *x.spec.aliases)]

    def asked_elsewhere(self, name: str | None) -> bool:
        """Whether an upstream that answers, of the model which a request names, is not owned."""
        return any(one.answers and not one.owned for one in self.meant(name))

    def only_elsewhere(self, name: str | None, role: str = COMPLETIONS) -> bool:
        """Whether other servers alone ask the upstreams of the model which a request names."""
        found = self.meant(name, role)
        return bool(found) and not any(one.owned for one in found)

    def meant(self, name: str | None, role: str = COMPLETIONS) -> list[Backend]:
        """Those with the model which a request names; while that is not known, all of its name."""
        if name is None:
            name = next(iter(self.names(role)), None)
        found = [one for one in self._serving(role) if name in (None, one.model, *one.spec.aliases)]
        key = next((one.model_key for one in found if one.model_key), "")
        return [one for one in found if one.model_key == key] if key else found

    def meanings(self) -> dict[str, str]:
        """The name by which requests mean each model that can be meant, by the models' keys.

        Of several models with one name the name means the first.
        """
        taken: set[str] = set()
        found: dict[str, str] = {}
        for one in self._serving():
            for name in (one.model, *one.spec.aliases):
                if name and one.model_key and name not in taken:
                    taken.add(name)
                    found.setdefault(one.model_key, name)
        return found

    def context_of(self, name: str | None) -> int | None:
        """Tokens of context that the model which a request names has; None: not known here."""
        with contextlib.suppress(RequestError):
            known = [one.upstream.properties for one in self.named(name)]
            return min((one.context for one in known if one is not None), default=None)
        return None

    def of(self, model: str, role: str = COMPLETIONS) -> list[Backend]:
        """Those that serve a model."""
        return [one for one in self._serving(role) if one.model_key == model or not model]

    def _serving(self, role: str = COMPLETIONS) -> Iterator[Backend]:
        return (one for one in self.backends if role in one.roles and not one.draining)

    def canonical(self, name: str | None, role: str = COMPLETIONS) -> str | None:
        """The name of the model that a name or an alias means; None where there is none."""
        for backend in self._serving(role):
            if name and name in (backend.model, *backend.spec.aliases):
                return backend.model
        return None

    def names(self, role: str = COMPLETIONS) -> list[str]:
        """The names of the models that are used for a role, the default one first."""
        return list(dict.fromkeys(one.model for one in self._serving(role) if one.model))

    def models(self) -> list[dict[str, Any]]:
        """Each model with those that serve it, the default one first."""
        default = next((one.model_key for one in self._serving() if one.model_key), "")
        by_key: dict[str, list[Backend]] = {}
        for backend in self.backends:
            if backend.model_key and backend.model and not backend.draining:
                by_key.setdefault(backend.model_key, []).append(backend)
        return [
            {
                "name": found[0].model,
                "upstreams": [one.name for one in found],
                "slots": sum(len(one.table) for one in found if one.up),
                "free": sum(one.free for one in found if one.up),
                "context": min(
                    (one.upstream.properties.context for one in found if one.upstream.properties),
                    default=None,
                ),
                "default": key == default,
                **_presence(found),
            }
            for key, found in by_key.items()
        ]

    # -- where to -----------------------------------------------------------------------------

    def place(self, requirement: Requirement, holder: str = "") -> Lease | None:
        """Lease a free slot that meets a requirement; None if there is none now.

        Args:
            holder: the user's name, for reports.
        """
        reach = self._within_reach(requirement)
        found = placement.assign(self.backends, reach, self._long_prompts)
        if found is None:
            self._ask_for(reach)
            return None
        return Lease(found.backend, found.slot, reach, found.blocks, holder, self.update)

    def _ask_for(self, requirement: Requirement) -> None:
        """Have what could serve a requirement loaded, where none that is up could."""
        if not placement.can_serve(self.backends, requirement) or any(
            one.leaving for one in self.backends
        ):
            for backend in self.backends:
                if backend.residence is not None and backend.meets(requirement):
                    backend.residence.missed()

    def failure(self, requirement: Requirement) -> RequestError | None:
        """Why what could serve a requirement cannot be loaded; None where that is not so."""
        backends = [one for one in self.backends if one.meets(requirement) and not one.draining]
        if any(one.up or not one.absent or one.loadable for one in backends):
            return None
        return _load_failure(backends)

    def delay(self, requirement: Requirement) -> float:
        """Seconds until a model that could serve it is loaded, estimated; 0 where none must be."""
        waits = [
            one.residence.ready_in or 0.0
            for one in self.backends
            if one.residence is not None and (one.absent or one.leaving) and one.meets(requirement)
        ]
        return min(waits, default=0.0) if waits and not self._takes_now(requirement) else 0.0

    def _takes_now(self, requirement: Requirement) -> bool:
        return any(one.up and not one.leaving and one.meets(requirement) for one in self.backends)

    def loads(self, requirement: Requirement) -> bool:
        """Whether one that is loaded on demand could serve it."""
        return any(one.absent and one.owned and one.meets(requirement) for one in self.backends)

    def name_of(self, model_key: str) -> str | None:
        """The name of the model with this key; None: it is not known."""
        return next((one.model for one in self.of(model_key) if model_key and one.model), None)

    def wanted_again(self, model: dict[str, Any]) -> RequestError | None:
        """Have the model of a fingerprint loaded, which is not there now.

        Returns:
            What to wait for; None where no model that can be loaded is known by its name.

        Raises:
            RequestError: it cannot be loaded.
        """
        for backend in self._serving():
            if (
                backend.residence is not None
                and backend.absent
                and backend.model == model.get("name")
            ):
                if (failure := backend.load_failure) is not None:
                    raise failure
                backend.residence.want()
                return UpstreamUnavailable(f"its model is loaded first: {backend.reason}")
        return None

    def can_serve(self, requirement: Requirement) -> bool:
        """Whether one that is up could serve it, now or when a slot is free."""
        return placement.can_serve(self.backends, requirement)

    def may_recover(self, requirement: Requirement) -> bool:
        """Whether one that was up could serve it when it is back."""
        return placement.may_recover(self.backends, requirement)

    def why(self, requirement: Requirement) -> str:
        """Why a requirement has no slot now, for a person."""
        return placement.explain(self.backends, self._within_reach(requirement))

    def outage(self, requirement: Requirement) -> float:
        """Seconds for which no upstream that could serve it has been up; 0 while one is.

        A model that has left for good is missed from when that was first asked.
        """
        now = trio.current_time()
        reach = self._within_reach(requirement)
        backends = [one for one in self.backends if not one.draining and one.meets(reach)]
        if not backends:
            return now - self._missing.setdefault(reach.model, now)
        self._missing.pop(reach.model, None)
        if any(one.up or one.absent for one in backends):
            return 0.0  # what cannot be loaded is refused by `failure`
        return now - max(one.down_since for one in backends)

    def _within_reach(self, requirement: Requirement) -> Requirement:
        return placement.within_reach(self.backends, requirement, trio.current_time())


def _presence(backends: Sequence[Backend]) -> dict[str, Any]:
    """Of a model that is loaded on demand: where it is on its way."""
    for one in backends:
        if one.residence is not None:
            return {"presence": str(one.residence.presence)}
    return {}


def _load_failure(backends: Sequence[Backend]) -> RequestError | None:
    return next((one.load_failure for one in backends if one.load_failure is not None), None)


def _is_known(backend: Backend) -> bool:
    """Whether all is known that distinguishes its model from others; it may be nothing."""
    if COMPLETIONS not in backend.roles:  # it is not asked for tokens
        return backend.table.known
    identity = backend.identity
    return bool(identity.hash) or identity.signature is not None
