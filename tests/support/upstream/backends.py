"""Members of a pool as those who watch see them: only what a test says of them."""

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
class FakeMember:
    name: str = "a"
    upstream: Located = field(default_factory=lambda: At("fake://"))
    roles: Collection[str] = ("completions", "embeddings")
    state: str = "up"
    reason: str = ""
    model: str = "fake"
    slots: int = 4
    busy: int = 0
    foreign: int = 0
    releasing: int = 0
    restarts: int = 0
    failures: int = 0
    failovers: int = 0


@dataclass
class FakePool:
    backends: Sequence[FakeMember]


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
class FakeClaim:
    priority: Urgency


@dataclass
class FakeTicket:
    slot_request: FakeClaim
