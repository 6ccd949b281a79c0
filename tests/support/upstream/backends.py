"""Backends of a pool as observers see them: with just what a test gives them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

from llcuda_net.telemetry.observers import Located


@dataclass
class At:
    """An upstream of which nothing is known but where it is."""

    base_url: str


@dataclass
class FakeBackend:
    name: str = "a"
    upstream: Located = field(default_factory=lambda: At("fake://"))
    roles: Collection[str] = ("completions", "embeddings")
    state: str = "up"
    reason: str = ""
    model: str = "fake"
    slots_here: int = 4
    busy: int = 0
    foreign: int = 0
    releasing: int = 0
    restarts: int = 0
    failures: int = 0
    failovers: int = 0


@dataclass
class FakePool:
    backends: Sequence[FakeBackend]


@dataclass
class FakeLoad:
    name: str
    running: int = 0
    queued: int = 0


class Urgency(IntEnum):
    HIGH = 0
    NORMAL = 1
    LOW = 2


@dataclass
class FakeSlotRequest:
    priority: Urgency


@dataclass
class FakeTicket:
    slot_request: FakeSlotRequest
