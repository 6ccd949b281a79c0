"""What GET /v1/status gives; the report of our own protocol's SPEC.md, and more."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from llcuda_net.server.http.openapi.answers import Count
from llcuda_net.server.http.openapi.operations import Operation, query
from llcuda_net.server.http.status.routes import PARAMETERS

_Figure = Annotated[float, Meta(ge=0)]


class StatusSample(msgspec.Struct):
    """One second: tokens that upstreams made, and requests and slots at its end."""

    at: _Figure
    tokens_per_second: _Figure
    running: Count
    queued: Count
    busy: Count
    slots: Count
    first_token: _Figure | None


class StatusHistory(msgspec.Struct):
    """The last two minutes, the oldest sample first."""

    seconds: float
    samples: list[StatusSample]


class PhaseSums(msgspec.Struct):
    """Where the time of requests went that are over, in milliseconds by phase."""

    requests: Count
    ms: dict[str, _Figure]


class StatusPhases(msgspec.Struct):
    """Since the start, and in the last two minutes."""

    all: PhaseSums
    recent: PhaseSums


class StatusFailover(msgspec.Struct):
    """An upstream failed at a generation, which went on."""

    at: _Figure
    generation: str
    user: str
    position: Count
    reason: str


class StatusChange(msgspec.Struct):
    """Something that changed at an upstream."""

    at: _Figure
    upstream: str
    text: str
    bad: bool


class ServerFacts(msgspec.Struct):
    """The process."""

    version: str
    pid: int
    uptime: _Figure
    draining: bool


class StatusDocument(msgspec.Struct):
    """How the server stands, as its user may see it; keys that SPEC.md has are as there."""

    object: Literal["status"]
    at: _Figure
    admin: bool
    server: ServerFacts
    user: str
    connections: Count
    http: dict[str, Count]
    streams: Count
    requests: dict[str, Count]
    tokens: Count
    tokens_per_second: float
    upstreams: list[dict[str, Any]]
    models: list[dict[str, Any]]
    users: list[dict[str, Any]]
    queue: list[dict[str, Any]]
    memory: dict[str, int]
    sample: StatusSample | None
    phases: StatusPhases
    failovers: list[StatusFailover]
    changes: list[StatusChange]
    model_memory: dict[str, int | None] | msgspec.UnsetType = msgspec.UNSET
    store: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET
    analysis: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET
    cluster: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET
    cut: dict[str, Count] | msgspec.UnsetType = msgspec.UNSET
    history: StatusHistory | msgspec.UnsetType = msgspec.UNSET


#: By method and pattern.
OPERATIONS: dict[tuple[str, str], Operation] = {
    ("GET", "/v1/status"): Operation(
        "operation",
        StatusDocument,
        parameters=(query("history", PARAMETERS["history"], {"enum": ["false", "true"]}),),
    ),
}
