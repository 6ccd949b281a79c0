"""What `llcuda top` shows, read from a status report: what is missing or malformed is left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from llcuda_net.util.terminal import one_line

#: What a slot may be doing, in the order in which bars show it.
SLOT_STATES = ("busy", "releasing", "foreign", "free")
#: Slots of one upstream that are shown one by one.
_MOST_SLOTS = 4096


@dataclass(frozen=True, slots=True)
class UpstreamView:
    """One upstream; `cells` has the state of each slot."""

    name: str
    state: str
    reason: str
    model: str
    cells: tuple[str, ...]
    speed: float | None
    failures: int | None
    failovers: int | None
    restarts: int | None
    context: int | None


@dataclass(frozen=True, slots=True)
class ModelView:
    """A model, and where it is served.

    Attributes:
        presence: of one that is loaded on demand; else empty.
        why: it is not loaded, or leaves.
        ready_in: seconds until it is loaded.
        memory: bytes that it needs, of machine and GPUs; None: not known.
    """

    name: str
    free: int | None
    slots: int | None
    context: int | None
    upstreams: tuple[str, ...]
    default: bool
    presence: str = ""
    why: str = ""
    ready_in: float | None = None
    memory: int | None = None
    waiting: int | None = None


@dataclass(frozen=True, slots=True)
class UserView:
    """What one user has under way."""

    name: str
    running: int
    queued: int
    served: float | None
    weight: float | None


@dataclass(frozen=True, slots=True)
class WaitingView:
    """A request that waits."""

    user: str
    model: str
    priority: str
    position: int | None
    waited: float | None
    wait: float | None
    reason: str


@dataclass(frozen=True, slots=True)
class MemberView:
    """A server of the cluster.

    Attributes:
        lease: seconds until its lease is over.
        here: whether it is the one that reports.
    """

    name: str
    number: int | None
    address: str
    lease: float | None
    here: bool


@dataclass(frozen=True, slots=True)
class View:
    """A report, its figures checked.

    Attributes:
        requests, store, analysis, model_memory: figures by their names in SPEC.md.
        speed: tokens per second of all upstreams.
        standing: of the server in its cluster; empty where there is none.
        members: the servers of the cluster.
    """

    version: str = ""
    uptime: float | None = None
    draining: bool = False
    connections: int | None = None
    streams: int | None = None
    tokens: int | None = None
    speed: float | None = None
    requests: dict[str, int] = field(default_factory=dict)
    upstreams: tuple[UpstreamView, ...] = ()
    models: tuple[ModelView, ...] = ()
    users: tuple[UserView, ...] = ()
    queue: tuple[WaitingView, ...] = ()
    level: str = ""
    store: dict[str, int] = field(default_factory=dict)
    analysis: dict[str, int] = field(default_factory=dict)
    model_memory: dict[str, int] = field(default_factory=dict)
    standing: str = ""
    members: tuple[MemberView, ...] = ()


def read(report: Any) -> View:
    """The report of a server of any version."""
    root = _map(report)
    server = _map(root.get("server"))
    requests = _counts(root.get("requests"))
    store = _map(root.get("store"))
    cluster = _map(root.get("cluster"))
    found = [_map(one) for one in _list(root.get("upstreams"))]
    # A server that does not report busy slots has one upstream, which runs all that runs.
    alone = requests.get("running", 0) if len(found) == 1 else 0
    return View(
        version=_text(server, "version"),
        uptime=_number(server, "uptime"),
        draining=server.get("draining") is True,
        connections=_count(root, "connections"),
        streams=_count(root, "streams"),
        tokens=_count(root, "tokens"),
        speed=_number(root, "tokens_per_second"),
        requests=requests,
        upstreams=tuple(_upstream(one, alone) for one in found),
        models=tuple(_model(_map(one)) for one in _list(root.get("models"))),
        users=tuple(_user(_map(one)) for one in _list(root.get("users"))),
        queue=tuple(_waiting(_map(one)) for one in _list(root.get("queue"))),
        level=_text(store, "level"),
        store=_counts(store),
        analysis=_counts(root.get("analysis")),
        model_memory=_counts(root.get("model_memory")),
        standing=_text(cluster, "standing"),
        members=tuple(
            _member(_map(one), _count(cluster, "number")) for one in _list(cluster.get("members"))
        ),
    )


def _member(of: Mapping[str, Any], here: int | None) -> MemberView:
    number = _count(of, "number")
    return MemberView(
        name=_text(of, "name"),
        number=number,
        address=_text(of, "address"),
        lease=_number(of, "lease"),
        here=number is not None and number == here,
    )


def _upstream(of: Mapping[str, Any], alone: int) -> UpstreamView:
    state = _text(of, "state")
    if not state and "ready" in of:
        state = "up" if of["ready"] is True else "down"
    return UpstreamView(
        name=_text(of, "name") or _text(of, "url"),
        state=state,
        reason=_text(of, "reason"),
        model=_text(of, "model"),
        cells=_cells(of, alone),
        speed=_number(of, "tokens_per_second"),
        failures=_count(of, "failures"),
        failovers=_count(of, "failovers"),
        restarts=_count(of, "restarts"),
        context=_count(of, "context"),
    )


def _cells(of: Mapping[str, Any], alone: int) -> tuple[str, ...]:
    detail = [_text(_map(one), "state") for one in _list(of.get("slots_detail"))]
    if detail:
        return tuple(one if one in SLOT_STATES else "busy" for one in detail[:_MOST_SLOTS])
    left = min(_count(of, "slots") or 0, _MOST_SLOTS)
    cells: list[str] = []
    for state in SLOT_STATES[:-1]:
        count = _count(of, state)
        if count is None:
            count = alone if state == "busy" else 0
        cells += [state] * min(count, left - len(cells))
    return tuple(cells + ["free"] * (left - len(cells)))


def _model(of: Mapping[str, Any]) -> ModelView:
    names = (one_line(one) for one in _list(of.get("upstreams")) if isinstance(one, str))
    memory = _count(of, "memory")
    return ModelView(
        name=_text(of, "name"),
        free=_count(of, "free"),
        slots=_count(of, "slots"),
        context=_count(of, "context"),
        upstreams=tuple(names),
        default=of.get("default") is True,
        presence=(presence := _text(of, "presence")),
        why=_why(of) if presence and presence != "loaded" else "",
        ready_in=_number(of, "ready_in"),
        memory=None if memory is None else memory + (_count(of, "gpu_memory") or 0),
        waiting=_count(of, "waiting"),
    )


def _why(of: Mapping[str, Any]) -> str:
    """Why a model is not loaded; that nobody has asked for it goes without saying."""
    reason = _text(of, "error") or _text(of, "reason")
    return "" if reason == "not loaded" else reason


def _user(of: Mapping[str, Any]) -> UserView:
    return UserView(
        name=_text(of, "name"),
        running=_count(of, "running") or 0,
        queued=_count(of, "queued") or 0,
        served=_number(of, "served"),
        weight=_number(of, "weight"),
    )


def _waiting(of: Mapping[str, Any]) -> WaitingView:
    return WaitingView(
        user=_text(of, "user"),
        model=_text(of, "model"),
        priority=_text(of, "priority"),
        position=_count(of, "position"),
        waited=_number(of, "waited"),
        wait=_number(of, "wait"),
        reason=_text(of, "reason"),
    )


def _map(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(of: Mapping[str, Any], key: str) -> str:
    value = of.get(key)
    return one_line(value) if isinstance(value, str) else ""


def _number(of: Mapping[str, Any], key: str) -> float | None:
    value = of.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if 0 <= value < 1e18 else None  # written so that NaN is refused


def _count(of: Mapping[str, Any], key: str) -> int | None:
    value = _number(of, key)
    return None if value is None else int(value)


def _counts(value: Any) -> dict[str, int]:
    of = _map(value)
    return {key: found for key in of if (found := _count(of, key)) is not None}
