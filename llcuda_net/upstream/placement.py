"""Which backend and slot a request gets: pure functions of the backends as they stand.

Work is balanced by the share of free slots, weighted. A conversation stays on the slot that holds
its prefix while that upstream has not much more to do than its share: consistent hashing with
bounded loads (V. Mirrokni, M. Thorup, M. Zadimoghaddam, SODA 2018) bounds it the same way.

Nothing here changes a slot or does I/O: the pool takes the `Assignment` and makes the lease.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from llcuda_net.upstream.backend import Backend
from llcuda_net.upstream.interface import Requirement
from llcuda_net.upstream.residence import NOT_LOADED
from llcuda_net.upstream.slots.table import Slot

#: How much more than its share of the work an upstream may have and still keep its conversations.
SLACK = 1.25
#: Blocks that a slot must hold of a prompt before that counts.
_LEAST_BLOCKS = 1


class Assignment(NamedTuple):
    """A free slot for a request.

    Attributes:
        backend: whose slot it is.
        slot: which.
        blocks: how many blocks of the prompt it is expected to hold already.
    """

    backend: Backend
    slot: Slot
    blocks: int

    @property
    def freedom(self) -> float:
        """The weighted share of the backend's slots that are free."""
        return self.backend.spec.weight * self.backend.free / len(self.backend.table)


def assign(
    backends: Sequence[Backend], requirement: Requirement, long_prompts: int
) -> Assignment | None:
    """The best free slot for a requirement; None if there is none now.

    Args:
        long_prompts: how many long prompts one backend may read at once.
    """
    candidates = [
        Assignment(backend, *found)
        for backend in backends
        if backend.up
        and not backend.resting
        and not backend.leaving
        and backend.meets(requirement)
        and not (requirement.long and sum(one.reading for one in backend.leases) >= long_prompts)
        and (found := backend.best(requirement)) is not None
    ]
    if not candidates:
        return None
    if len(candidates) == 1:
        return candidates[0]
    return _with_prefix(candidates) or max(candidates, key=lambda one: one.freedom)


def _with_prefix(candidates: Sequence[Assignment]) -> Assignment | None:
    """The slot that holds most of the prompt, unless its backend has more than its share to do."""
    best = max(candidates, key=lambda one: (one.blocks, one.freedom))
    backend = best.backend
    if best.blocks < _LEAST_BLOCKS or not backend.hit_rate.trusted():
        return None
    weight = sum(one.backend.spec.weight * len(one.backend.table) for one in candidates)
    busy = sum(one.backend.busy for one in candidates)
    share = backend.spec.weight * len(backend.table) / weight
    return best if backend.busy + 1 <= math.ceil(SLACK * (busy + 1) * share) else None


def within_reach(backends: Sequence[Backend], requirement: Requirement, now: float) -> Requirement:
    """A requirement without what cannot be met: those to avoid, abilities that no upstream has.

    Args:
        now: on trio's clock.
    """
    wait = now < requirement.until and may_recover(backends, requirement)
    if wait or can_serve(backends, requirement):
        return requirement
    found = replace(requirement, avoid=frozenset())
    if found.abilities and not can_serve(backends, found) and not may_recover(backends, found):
        return replace(found, abilities=frozenset())
    return found


def can_serve(backends: Sequence[Backend], requirement: Requirement) -> bool:
    """Whether one that is up could serve it, now or when a slot is free."""
    return any(backend.up and backend.meets(requirement) for backend in backends)


def may_recover(backends: Sequence[Backend], requirement: Requirement) -> bool:
    """Whether one that was up could serve it when it is back, or one that is loaded for it."""
    return any(
        (backend.loadable or (backend.watched and backend.was_up and not backend.draining))
        and backend.meets(requirement)
        for backend in backends
    )


def explain(backends: Sequence[Backend], requirement: Requirement) -> str:
    """Why a requirement has no slot now, for a person."""
    able = [one for one in backends if not one.draining and one.meets(requirement)]
    up = [one for one in able if one.up]
    if not up:
        if loading := next((one for one in able if one.absent), None):
            reason = loading.reason
            return (f"model {loading.model} is {reason}" if reason == NOT_LOADED else reason)[:256]
        if not able:
            return "no upstream has its model"
        if any(one.answers and not one.owned for one in able):
            return "other servers of the cluster ask its upstreams"
        reasons = "; ".join(f"{one.name}: {one.reason or 'not asked yet'}" for one in able)
        return f"no upstream answers ({reasons})"[:256]
    leaving = [one for one in up if one.leaving]
    if len(leaving) == len(up):
        return leaving[0].reason[:256]
    awake = [one for one in up if not one.resting and not one.leaving]
    if not awake:
        # Without the seconds that are left: each new reason is sent to those who wait.
        return f"{', '.join(one.name for one in up)}: no more for now"[:256]
    if requirement.long and any(one.free for one in awake):
        return "another long prompt is being read"
    slots = sum(len(one.table) for one in awake)
    return f"all {slots} slots are in use" if slots != 1 else "the only slot is in use"
