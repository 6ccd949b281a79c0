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
from llcuda_net.errors import RequestError
from llcuda_net.upstream.backend import Member
from llcuda_net.upstream.lease import Lease, Need
from llcuda_net.upstream.model.fingerprint import same_model
from llcuda_net.upstream.slots import Slot
from llcuda_protocol import ErrorCode

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

    def __init__(self, members: Sequence[Member] = (), *, long_prompts: int = 1) -> None:
        self.members: list[Member] = []
        self.on_change: Callable[[], None] = lambda: None
        self._long_prompts = long_prompts
        self._groups = 0
        self._missing: dict[str, float] = {}
        self.watched = False
        self.may_grow = False
        self._nursery: trio.Nursery | None = None
        self._scopes: dict[Member, trio.CancelScope] = {}
        for member in members:
            self.add(member)

    # -- who is in it -------------------------------------------------------------------------

    def add(self, member: Member) -> None:
        """Take one in."""
        self.members.append(member)
        member.on_change = self.changed
        member.wants_signature = self._must_tell_apart
        self._group()
        if self._nursery is not None:
            self._nursery.start_soon(self._watch, member)

    def drain(self, member: Member) -> None:
        """Give it no more work; it leaves when what runs on it has ended."""
        member.draining = True
        log.info("upstream_draining", upstream=member.name, running=len(member.leases))
        self.changed()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Watch all of them until cancelled."""
        self.watched = True
        async with trio.open_nursery() as self._nursery:
            for member in self.members:
                member.watched = True
                self._nursery.start_soon(self._watch, member)
            task_status.started()
            await trio.sleep_forever()

    async def _watch(self, member: Member) -> None:
        if member not in self.members:  # it was taken out before this task began
            return
        with trio.CancelScope() as scope:
            self._scopes[member] = scope
            await member.watch()
        del self._scopes[member]

    def changed(self) -> None:
        """There may be room for work, or a model is known."""
        for member in [m for m in self.members if m.draining and not m.leases]:
            self.members.remove(member)
            log.info("upstream_removed", upstream=member.name)
            if member in self._scopes:
                self._scopes[member].cancel()
        self._group()
        self.on_change()

    # -- which model --------------------------------------------------------------------------

    def _must_tell_apart(self) -> bool:
        others = [m for m in self.members if not m.draining and m.spec.model is None]
        return len(others) > 1 or (self.may_grow and bool(others))

    def _group(self) -> None:
        """Put those together that serve one model. Groups keep their keys: requests have them."""
        known: list[Member] = []
        for member in sorted(self.members, key=lambda m: not m.group):
            if member.spec.model is None and len(self.members) > 1 and not _told(member):
                if not member.was_up:
                    member.group = ""  # it had one as long as it was alone
                continue  # nothing can be said of it yet
            same = next((m for m in known if m.identity.same(member.identity)), None)
            if same is not None:
                member.group = same.group
            elif not member.group or any(m.group == member.group for m in known):
                self._groups += 1
                member.group = f"model-{self._groups}"
            known.append(member)

    def key_of(self, name: str | None, role: str = COMPLETIONS) -> str:
        """The key of the model that a request names; of the default one where it names none.

        Raises:
            RequestError: no upstream has it.
        """
        serving = list(self._serving(role))
        if name is None and serving:
            return next((m.group for m in serving if m.group), "")
        if name is None:
            raise RequestError(ErrorCode.UNSUPPORTED, f"no upstream is used for {role}")
        for member in serving:
            if name == member.model and member.group:
                return member.group
        names = ", ".join(sorted({m.model for m in serving if m.model}))
        raise RequestError(
            ErrorCode.UNKNOWN_MODEL,
            f"no upstream has the model {name[:100]!r}; there are: {names or 'none yet'}",
        )

    def key_of_fingerprint(self, model: dict[str, Any]) -> str | None:
        """The key of a model by its fingerprint; None if no upstream has it now."""
        for member in self._serving():
            if member.up and member.group and same_model(model, member.fingerprint()):
                return member.group
        return None

    def check(self, group: str) -> None:
        """Refuse what would wait for an upstream that nobody has seen yet.

        Raises:
            RequestError: none that serves the model is up, or was.
        """
        members = self.of(group)
        if not any(m.up or m.was_up for m in members):
            reasons = "; ".join(f"{m.name}: {m.reason}" for m in members)
            raise RequestError(
                ErrorCode.UPSTREAM_UNAVAILABLE,
                f"no upstream answers ({reasons})"[:500],
                retry=True,
                retry_after=1.0,
            )

    async def fingerprints(self, group: str) -> list[tuple[dict[str, Any], str]]:
        """What is known of a model, from each upstream that serves it, with the upstream's URL.

        Raises:
            RequestError: none of them can be asked.
        """
        found: dict[str, tuple[dict[str, Any], str]] = {}
        refusal: RequestError | None = None
        for member in [m for m in self.of(group) if m.up]:
            if not member.watched:
                member.upstream.forget()  # it may have been started again with another model
            try:
                await member.properties()
            except RequestError as error:
                refusal = error
                continue
            await member.fingerprint.settled()
            model = member.fingerprint()
            found.setdefault(str(sorted(model.items())), (model, member.upstream.base_url))
        if not found and refusal is not None:
            raise refusal
        return list(found.values())

    def context(self, group: str) -> int | None:
        """Tokens of context that each upstream of a model has at least; None: not known."""
        known = [m.upstream.properties for m in self.of(group)]
        return min((one.context for one in known if one is not None), default=None)

    def outage(self, need: Need) -> float:
        """Seconds for which no upstream that could meet a need has been up; 0 while one is.

        A model that has left for good is missed from when that was first asked.
        """
        now = trio.current_time()
        need = self._within_reach(need)
        members = [m for m in self.members if not m.draining and m.may(need)]
        if not members:
            return now - self._missing.setdefault(need.model, now)
        self._missing.pop(need.model, None)
        if any(m.up for m in members):
            return 0.0
        return now - max(m.down_since for m in members)

    async def prepare(self) -> None:
        """Ask all upstreams what they are, so that the first request need not wait."""

        async def ask(member: Member) -> None:
            try:
                await member.properties()
            except RequestError as error:
                reasons[member] = error.message
                return
            del reasons[member]

        reasons = dict.fromkeys(self.members, f"no answer within {PREPARE:g} s")
        with trio.move_on_after(PREPARE):
            async with trio.open_nursery() as nursery:
                for member in self.members:
                    nursery.start_soon(ask, member)
        for member, reason in reasons.items():
            log.warning("upstream_not_ready", upstream=member.name, reason=reason)
        self.changed()

    def _serving(self, role: str = COMPLETIONS) -> Iterator[Member]:
        return (m for m in self.members if role in m.roles and not m.draining)

    def of(self, model: str, role: str = COMPLETIONS) -> list[Member]:
        """Those that serve a model."""
        return [m for m in self._serving(role) if m.group == model or not model]

    # -- where to -----------------------------------------------------------------------------

    def place(self, need: Need, holder: str = "") -> Lease | None:
        """A free slot that meets a need; None if there is none now."""
        need = self._within_reach(need)
        candidates: list[tuple[Member, Slot, int]] = []
        for member in self.members:
            if not member.up or not member.may(need):
                continue
            if need.long and sum(lease.reading for lease in member.leases) >= self._long_prompts:
                continue
            found = member.table.best(need.chain)
            if found is not None:
                candidates.append((member, *found))
        if not candidates:
            return None
        member, slot, blocks = self._holder_of(candidates) or max(candidates, key=_freedom)
        return member.lease(need, slot, blocks, holder)

    def _holder_of(
        self, candidates: list[tuple[Member, Slot, int]]
    ) -> tuple[Member, Slot, int] | None:
        """The one that holds most of the prompt, unless it has more than its share to do."""
        member, slot, blocks = max(candidates, key=lambda one: (one[2], _freedom(one)))
        if blocks < _LEAST_BLOCKS or not member.trust.believed():
            return None
        weight = sum(m.spec.weight * len(m.table) for m, _, _ in candidates)
        busy = sum(m.busy for m, _, _ in candidates)
        share = member.spec.weight * len(member.table) / weight
        most = math.ceil(SLACK * (busy + 1) * share)
        return (member, slot, blocks) if member.busy + 1 <= most else None

    def _within_reach(self, need: Need) -> Need:
        """A need without those to avoid, where they are all there is by now."""
        wait = trio.current_time() < need.until and self.hope(need)
        return need if wait or self.elsewhere(need) else replace(need, avoid=frozenset())

    def elsewhere(self, need: Need) -> bool:
        """Whether one that is up could meet a need, now or later."""
        return any(m.up and m.may(need) for m in self.members)

    def hope(self, need: Need) -> bool:
        """Whether one that is down now could meet it when it is back."""
        return any(m.watched and m.was_up and not m.draining and m.may(need) for m in self.members)

    def why(self, need: Need) -> str:
        """Why a need has no place now, for a person."""
        need = self._within_reach(need)
        able = [m for m in self.members if not m.draining and m.may(need)]
        up = [m for m in able if m.up]
        if not up:
            reasons = "; ".join(f"{m.name}: {m.reason or 'not asked yet'}" for m in able)
            return f"no upstream answers ({reasons})"[:256]
        if need.long and any(m.free for m in up):
            return "another long prompt is being read"
        slots = sum(len(m.table) for m in up)
        return f"all {slots} slots are in use" if slots != 1 else "the only slot is in use"

    # -- for reports --------------------------------------------------------------------------

    def models(self) -> list[dict[str, Any]]:
        """Each model with those that serve it, the default one first."""
        default = next((m.group for m in self._serving() if m.group), "")
        groups: dict[str, list[Member]] = {}
        for member in self.members:
            if member.group and member.model and not member.draining:
                groups.setdefault(member.group, []).append(member)
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
            for key, found in groups.items()
        ]


def _told(member: Member) -> bool:
    """Whether all is known by which its model can be told from others; it may be nothing."""
    if COMPLETIONS not in member.roles:  # it is not asked for tokens
        return member.table.known
    identity = member.identity
    return bool(identity.hash) or identity.signature is not None


def _freedom(one: tuple[Member, Slot, int]) -> float:
    """How much of an upstream is free."""
    member = one[0]
    return member.spec.weight * member.free / len(member.table)
