"""A local model as it stands, and what is to be done with all of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from llcuda_net.models.need import Need
from llcuda_net.upstream.residence import Presence


@dataclass(frozen=True, slots=True)
class ModelState:
    """One local model as it stands. Times are those of one clock, in seconds.

    Attributes:
        name: of the model.
        presence: what its process does.
        since: when that began; of one that is unloaded, when it was, or when its load failed.
        need: memory, estimated or measured.
        pinned: it is loaded always, and never leaves.
        wanted: True where it was asked to be loaded, False where it was asked to leave; a request
            for it overrules the latter once it is unloaded.
        running: requests that it generates now.
        waiting: requests in the queue for it.
        waits_since: when the oldest of those was submitted.
        rank: the place of the first of those in the order of the fair queue; lower is earlier.
        last_used: when it last began or ended a request.
        uses: requests that it has served, each counted less the longer ago; see `count_use`.
        load_seconds: how long a load takes, estimated.
        idle_seconds: after so long without a request it is unloaded; None: never.
        failed_until: it is not loaded before this time, because the last load failed.
        finishes_in: seconds until what it runs is over, estimated; None: not known.
    """

    name: str
    presence: Presence = Presence.UNLOADED
    since: float = 0.0
    need: Need = field(default_factory=Need)
    pinned: bool = False
    wanted: bool | None = None
    running: int = 0
    waiting: int = 0
    waits_since: float | None = None
    rank: float = math.inf
    last_used: float = -math.inf
    uses: float = 0.0
    load_seconds: float = 1.0
    idle_seconds: float | None = None
    failed_until: float = -math.inf
    finishes_in: float | None = None

    @property
    def claims(self) -> bool:
        """Whether it ought to be loaded, and is not."""
        return self.presence is Presence.UNLOADED and bool(
            self.waiting or (self.pinned and self.wanted is not False) or self.wanted
        )

    @property
    def claims_since(self) -> float:
        """When its claim began: what left or failed has no older one."""
        return self.since if self.waits_since is None else max(self.since, self.waits_since)

    @property
    def in_use(self) -> bool:
        """Whether it has anything to do."""
        return bool(self.running or self.waiting)


@dataclass(frozen=True, slots=True)
class Wait:
    """Why a model is not loaded yet, for a person, and the seconds that it may take, if known.

    The reason changes only when something has happened, not with the time.
    """

    reason: str
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done now. No model is named twice among load, leave, stay and unload.

    Attributes:
        load: unloaded models whose processes are to be started.
        leave: loaded ones, in use, that get no new work from now on.
        stay: leaving ones that may get work again.
        unload: loaded or leaving ones, idle, whose processes are to be ended.
        again_at: when time alone may change the answer.
        waits: of each model that somebody waits for and that is not loaded.
    """

    load: tuple[str, ...] = ()
    leave: tuple[str, ...] = ()
    stay: tuple[str, ...] = ()
    unload: tuple[str, ...] = ()
    again_at: float | None = None
    waits: Mapping[str, Wait] = field(default_factory=dict)
