"""What is remembered of a local model between two looks, and what is said of it."""

from __future__ import annotations

import math
from typing import Any

from llcuda_net.models.serving.instance import Instance
from llcuda_net.models.serving.policy import count_use
from llcuda_net.models.serving.state import ModelState

#: Seconds that a first load is expected to take: so many bytes a second are read from the disk.
_LEAST_LOAD, _BYTES_PER_SECOND = 0.5, 500e6


class Record:
    """What the manager remembers of a model.

    Attributes:
        instance: the model.
        key: its name among all that have a process: that of the model, or, of one that is no more
            served and leaves, one that no model has.
        need: memory that it needs, estimated or measured.
        since: when its presence began.
        wanted: as in ModelState.
        load_seconds: how long a load takes, estimated.
        failures: loads that failed in a row; of these, for lack of memory: `memory_failures`.
        killed: whether the process of a load since the last good one was killed.
        failed_until: it is not loaded before.
        load_time: seconds of all loads since the start.
        failed_loads: loads that failed since the start.
        swaps: how often it was unloaded for another model.
    """

    def __init__(self, instance: Instance, now: float) -> None:
        self.instance = instance
        self.key = instance.name
        self.need = instance.need
        self.since = now
        self.wanted: bool | None = True if instance.described.spec.preload else None
        self.uses = 0.0
        self.counted = 0
        self.used_at = -math.inf
        size = max(self.need.host, self.need.gpu)
        self.load_seconds = max(_LEAST_LOAD, size / _BYTES_PER_SECOND)
        self.failures = 0
        self.memory_failures = 0
        self.killed = False
        self.failed_until = -math.inf
        #: Since the start: seconds of all loads, loads that failed, and unloads for another model.
        self.load_time = 0.0
        self.failed_loads = self.swaps = 0

    def count(self, now: float) -> None:
        """Count the requests that it has served since this was last asked."""
        residence = self.instance.residence
        for _ in range(residence.uses - self.counted):
            self.uses = count_use(self.uses, self.used_at, now)
            self.used_at = now
        self.counted = residence.uses

    def report(self, state: ModelState, now: float) -> dict[str, Any]:
        """It, for people and programs; never where its files are.

        Args:
            state: as it stands now.
        """
        instance = self.instance
        residence, spec = instance.residence, instance.described.spec
        used, failure = residence.last_used, residence.error
        return {
            "name": instance.name,
            "aliases": list(spec.aliases),
            "presence": str(residence.presence),
            "reason": residence.reason,
            "ready_in": None if residence.ready_in is None else round(residence.ready_in, 3),
            "context": spec.ctx,
            "pinned": spec.pinned,
            "wanted": bool(self.wanted),
            "memory": self.need.host,
            "gpu_memory": self.need.gpu,
            "running": state.running,
            "waiting": state.waiting,
            "idle": None if math.isinf(used) else round(max(0.0, now - used), 3),
            "loads": instance.loads,
            "failed_loads": self.failed_loads,
            "swaps": self.swaps,
            "load_seconds": round(self.load_time, 3),
            "error": None if failure is None else failure.message,
            "engine": instance.public_facts(),
        }
