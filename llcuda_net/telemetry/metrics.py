"""What a server counts, in the form that Prometheus reads.

What happens is counted when a request is over; how things stand is read when metrics are scraped.
Nothing is done per token. Labels hold what the operator chose (upstreams, their models) or closed
lists (states, error codes), never what a client sent. Whoever reaches the port reads all of it, so
users are named only where the operator says so. A model's name is its upstream's: it is cut, and
made harmless for terminals.
"""

from __future__ import annotations

from collections import Counter as Counts
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from weakref import WeakKeyDictionary

import prometheus_client
import trio
from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector

from llcuda_net.config.users import PRIORITIES
from llcuda_net.errors import RequestError, StorageError
from llcuda_net.generation.generation import Generation
from llcuda_net.storage.objects import batches
from llcuda_net.storage.storage import Storage
from llcuda_net.telemetry.model_metrics import of_models
from llcuda_net.telemetry.observers import (
    STATES,
    UNKNOWN,
    Backend,
    BatchCounts,
    ClusterState,
    Observer,
    ServerState,
)
from llcuda_net.telemetry.readiness import Readiness
from llcuda_net.util.terminal import one_line
from llcuda_protocol import ErrorCode

#: Upper bounds in seconds: of phases, from a template to a long answer; of the mean gap between
#: tokens; of an fdatasync.
PHASE_BUCKETS = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0),
)
GAP_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0)
SYNC_BUCKETS = (
    0.0001,
    0.00025,
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.5,
    1.0,
    5.0,
)
#: Pairs of upstream and model that have series of their own; all others are counted as "other".
MAX_PAIRS = 64
#: Users that have series of their own; what others do is counted as of the user "other".
MAX_USERS = 64
#: Characters of a label's value; longer ones are cut.
MAX_LABEL = 128
_OTHER = (UNKNOWN, UNKNOWN)
_PLAIN_TEXT = "text/plain; version=0.0.4; charset=utf-8"
_WHO = ("upstream", "model")
_NAMED = ("upstream",)
#: Of each backend of the pool, by the end of the metric's name.
_GAUGES: tuple[tuple[str, str, Callable[[Backend], float]], ...] = (
    ("up", "Whether it answers, and takes work.", lambda backend: backend.state == "up"),
    ("slots", "Requests at once, from this server.", lambda backend: backend.slots_here),
    ("busy", "Slots that our requests hold.", lambda backend: backend.busy),
    ("foreign", "Slots that somebody else uses.", lambda backend: backend.foreign),
    ("releasing", "Slots not yet seen to be free again.", lambda backend: backend.releasing),
)
_COUNTERS: tuple[tuple[str, str, Callable[[Backend], float]], ...] = (
    ("restarts", "Starts after the first, of the engine.", lambda backend: backend.restarts),
    ("failures", "What failed on it.", lambda backend: backend.failures),
    ("failovers", "Requests that left it for another.", lambda backend: backend.failovers),
)
#: What takes memory: the process, and parts of it.
_MEMORY = ("resident", "running", "finished", "unsent", "incoming")
#: Codes with which a store refuses new work.
_REFUSALS = (StorageError.FAILED, StorageError.FULL, StorageError.BUSY, StorageError.DAMAGED)
_CODES = frozenset(str(code) for code in ErrorCode)


class Metrics(Observer):
    """All metrics of one server, in a registry of their own.

    Args:
        version: of this software.
        readiness: has the server's state.
        users: whether there are series of each user, with their name.

    Attributes:
        sync_seconds: of the journal, which observes it.
    """

    def __init__(self, version: str, readiness: Readiness, *, users: bool = False) -> None:
        # The time at which each series was made would double their number.
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
        self._version = version
        self._readiness = readiness
        self._pairs: set[tuple[str, str]] = set()
        self._users: dict[str, None] = {}  # in the order in which they came
        self._counted: WeakKeyDictionary[Generation, int] = WeakKeyDictionary()
        self._gauges: list[tuple[str, str, Callable[[], float | None]]] = []
        self._registry = CollectorRegistry(auto_describe=False)
        counter = partial(Counter, registry=self._registry)
        self._requests = counter(
            "llcuda_requests",
            "Requests that are over, by how they ended; state refused: before they were accepted.",
            ("kind", "state", "code", *_WHO),
        )
        self._http = counter(
            "llcuda_http_requests",
            "Requests over HTTP by path and class of their status; gone: the client left first.",
            ("route", "status"),
        )
        self._from_store = counter(
            "llcuda_requests_from_store",
            "Requests answered with what was kept: by the answer cache, or for the same key.",
        )
        self._prompt_tokens = counter(
            "llcuda_prompt_tokens", "Tokens of the prompts that upstreams were given.", _WHO
        )
        self._cached_tokens = counter(
            "llcuda_prompt_cached_tokens",
            "Tokens of prompts that upstreams had in their cache.",
            _WHO,
        )
        self._completion_tokens = counter(
            "llcuda_completion_tokens", "Tokens that upstreams have made.", _WHO
        )
        self._user_tokens = (
            counter(
                "llcuda_user_tokens",
                "Tokens that upstreams have made, by whose request.",
                ("user",),
            )
            if users
            else None
        )
        histogram = partial(Histogram, registry=self._registry)
        self._phases = histogram(
            "llcuda_phase_seconds",
            "Time of a generation by phase; phases as in SPEC.md.",
            ("phase", *_WHO),
            buckets=PHASE_BUCKETS,
        )
        self._first_token = histogram(
            "llcuda_time_to_first_token_seconds",
            "From the request to its first token, the queue included.",
            _WHO,
            buckets=PHASE_BUCKETS,
        )
        self._gap = histogram(
            "llcuda_token_interval_seconds",
            "Mean time between the tokens of a generation, one observation per generation.",
            _WHO,
            buckets=GAP_BUCKETS,
        )
        self.sync_seconds = histogram(
            "llcuda_journal_sync_seconds",
            "Time of the journal's fdatasync.",
            buckets=SYNC_BUCKETS,
        )
        self._registry.register(_Now(self._now))
        ProcessCollector(registry=self._registry)  # Linux; elsewhere it gives nothing

    def __repr__(self) -> str:
        series = f"{len(self._pairs)} pairs of upstream and model, {len(self._users)} users"
        return f"<Metrics: {series}, {self._readiness!r}>"

    def add_gauge(self, name: str, help_: str, value: Callable[[], float | None]) -> None:
        """Add a gauge of another part of the server, read when scraped; None: not known."""
        self._gauges.append((name, help_, value))

    def text(self, accept: str = "") -> tuple[str, bytes]:
        """The content type, and all metrics as they stand now.

        Args:
            accept: the Accept header; OpenMetrics if it names that.
        """
        server = self._readiness.server
        if server is not None:
            for generation in server.generations:
                self._count_tokens(generation, self._pair(generation))
        if "application/openmetrics-text" in accept:
            return openmetrics.CONTENT_TYPE_LATEST, _openmetrics(self._registry)
        return _PLAIN_TEXT, prometheus_client.generate_latest(self._registry)

    def http_answered(self, route: str, status: int) -> None:
        """See Observer."""
        self._http.labels(route, f"{status // 100}xx" if status else "gone").inc()

    # -- what has ended -----------------------------------------------------------------------

    def ended(self, generation: Generation) -> None:
        """See Observer."""
        pair = self._pair(generation)
        error = generation.error
        code = "" if error is None else _code(error)
        self._requests.labels("generate", str(generation.state), code, *pair).inc()
        self._count_tokens(generation, pair)
        if generation.final is not None:
            usage = generation.outcome.usage
            self._prompt_tokens.labels(*pair).inc(usage.get("prompt_tokens", 0))
            self._cached_tokens.labels(*pair).inc(usage.get("cached_tokens", 0))
        if generation.from_store:
            self._from_store.inc()
            return  # its times are those of its first answer
        times, final = generation.times, generation.final
        timings = None if final is None else final.timings
        now = trio.current_time()
        for phase, ms in times.phases(now, 0.0 if timings is None else timings.prompt_ms).items():
            self._phases.labels(phase, *pair).observe(ms / 1e3)
        if times.first_token is not None and times.last_token is not None:
            self._first_token.labels(*pair).observe(times.first_token - times.received)
            if generation.made > 1:
                mean = (times.last_token - times.first_token) / (generation.made - 1)
                self._gap.labels(*pair).observe(mean)

    def refused(self, error: RequestError) -> None:
        """See Observer."""
        self._requests.labels("generate", "refused", _code(error), "", "").inc()

    def answered(self, kind: str, error: RequestError | None) -> None:
        """See Observer."""
        state, code = ("done", "") if error is None else ("failed", _code(error))
        self._requests.labels(kind, state, code, "", "").inc()

    def _count_tokens(self, generation: Generation, pair: tuple[str, str]) -> None:
        """Count what it has made since the last time; so the counter moves while it runs."""
        made = generation.made
        more = made - self._counted.get(generation, 0)
        if more > 0:
            self._completion_tokens.labels(*pair).inc(more)
            if self._user_tokens is not None:
                self._user_tokens.labels(self._user(generation.owner)).inc(more)
            self._counted[generation] = made

    def _pair(self, generation: Generation) -> tuple[str, str]:
        """The labels upstream and model; empty for what was never given to an upstream."""
        if not generation.upstream:
            return "", ""
        server = self._readiness.server
        upstream = UNKNOWN if server is None else server.name_of(generation.upstream)
        pair = _label(upstream), _label(str(generation.model.get("name") or ""))
        if pair not in self._pairs:
            if len(self._pairs) >= MAX_PAIRS:
                return _OTHER
            self._pairs.add(pair)
        return pair

    def _user(self, name: str) -> str:
        name = _label(name)
        if name not in self._users:
            if len(self._users) >= MAX_USERS:
                return UNKNOWN
            self._users[name] = None
        return name

    # -- how it stands ------------------------------------------------------------------------

    def _now(self) -> Iterator[Metric]:
        info = {"version": self._version}
        yield InfoMetricFamily("llcuda_build", "The software.", value=info)
        server = self._readiness.server
        if server is None:
            yield _gauge("llcuda_ready", "Whether a request would be served.", 0)
            return
        yield from self._server(server)
        yield from _memory(server.memory())
        yield from _upstreams(server)
        if server.models is not None:
            yield from of_models(server.models, MAX_LABEL)
        yield from self._waiting(server)
        yield from _batches(server.batches())
        if server.storage is not None:
            yield from _storage(server.storage)
        if server.cluster is not None:
            yield from _cluster(server.cluster)
        for name, help_, read in self._gauges:
            value = read()
            if value is not None:
                yield _gauge(name, help_, value)

    def _server(self, now: ServerState) -> Iterator[Metric]:
        settings = now.settings
        ready = self._readiness.reason() is None
        yield _gauge("llcuda_ready", "Whether a request would be served.", ready)
        yield _gauge("llcuda_draining", "Whether the server is about to stop.", now.draining)
        yield _gauge("llcuda_requests_running", "Requests that hold a slot.", now.running)
        yield _gauge("llcuda_requests_queued", "Requests that wait for a slot.", now.queued)
        yield _gauge("llcuda_queue_limit", "Requests that may wait.", settings.max_queue)
        generations = len(now.generations)
        yield _gauge("llcuda_generations", "Generations that have not ended.", generations)
        yield _gauge("llcuda_streams", "Requests open on connections.", now.streams)
        yield _gauge("llcuda_connections", "Clients connected.", len(now.connections.sessions))
        http = GaugeMetricFamily(
            "llcuda_http_connections", "HTTP connections, by what they do.", labels=("state",)
        )
        http.add_metric(("request",), len(now.connections.requests))
        http.add_metric(("idle",), now.connections.resting)
        yield http
        yield _gauge("llcuda_connections_limit", "Clients at once.", settings.max_connections)
        opened = now.connections.opened
        yield _counter("llcuda_connections_opened", "Connections since the start.", opened)

    def _waiting(self, now: ServerState) -> Iterator[Metric]:
        waiting = Counts(ticket.slot_request.priority.name.lower() for ticket in now.waiting())
        queue = GaugeMetricFamily(
            "llcuda_queue_waiting", "Requests that wait, by their priority.", labels=("priority",)
        )
        for priority in PRIORITIES:
            queue.add_metric((priority,), waiting[priority])
        yield queue
        if self._user_tokens is None:
            return
        running, queued = Counts[str](), Counts[str]()
        for load in now.users():
            name = self._user(load.name)
            running[name] += load.running
            queued[name] += load.queued
        for kind, help_, found in (
            ("running", "Requests that hold a slot, by user.", running),
            ("queued", "Requests that wait, by user.", queued),
        ):
            family = GaugeMetricFamily(f"llcuda_user_{kind}", help_, labels=("user",))
            # Also for those who have nothing under way now: a series that vanishes says nothing.
            for user in dict.fromkeys([*self._users, *found]):
                family.add_metric((user,), found[user])
            yield family


class _Now(Collector):
    def __init__(self, collect: Callable[[], Iterator[Metric]]) -> None:
        self._collect = collect

    def collect(self) -> Iterator[Metric]:
        return self._collect()


def _upstreams(now: ServerState) -> Iterator[Metric]:
    """One series per backend, whatever its model is: llcuda_upstream_info has the model."""
    backends = {_label(one.name): one for one in now.pool.backends}  # no name twice
    info = InfoMetricFamily("llcuda_upstream", "Of what model it is, and for what.", labels=_NAMED)
    state = GaugeMetricFamily(
        "llcuda_upstream_state", "1 at the state that it is in.", labels=("upstream", "state")
    )
    for name, backend in backends.items():
        roles = ",".join(sorted(backend.roles))
        info.add_metric((name,), {"model": _label(backend.model), "roles": roles})
        for one in STATES:
            state.add_metric((name, one), backend.state == one)
    yield from (info, state)
    for key, help_, read in _GAUGES:
        family = GaugeMetricFamily(f"llcuda_upstream_{key}", help_, labels=_NAMED)
        for name, backend in backends.items():
            family.add_metric((name,), read(backend))
        yield family
    for key, help_, read in _COUNTERS:
        counted = CounterMetricFamily(f"llcuda_upstream_{key}", help_, labels=_NAMED)
        for name, backend in backends.items():
            counted.add_metric((name,), read(backend))
        yield counted


def _cluster(cluster: ClusterState) -> Iterator[Metric]:
    member, members = cluster.is_member, len(cluster.members)
    yield _gauge("llcuda_cluster_member", "Whether this server holds its lease.", member)
    yield _gauge("llcuda_cluster_members", "Servers that are not fenced, as seen here.", members)
    servers, generations = cluster.taken_over
    yield _counter("llcuda_cluster_takeovers", "Servers that this one took over from.", servers)
    yield _counter(
        "llcuda_cluster_adopted", "Generations that this server got from others.", generations
    )


def _batches(found: BatchCounts) -> Iterator[Metric]:
    open_ = GaugeMetricFamily(
        "llcuda_batches", "Batches that are not over, by their state.", labels=("state",)
    )
    for state in batches.OPEN:
        open_.add_metric((state,), found.states.get(state, 0))
    ended = CounterMetricFamily(
        "llcuda_batches_ended", "Batches that are over, by their state.", labels=("state",)
    )
    for state in (batches.COMPLETED, batches.FAILED, batches.EXPIRED, batches.CANCELLED):
        ended.add_metric((state,), found.ended.get(state, 0))
    lines = CounterMetricFamily(
        "llcuda_batch_lines", "Lines of batches that are over, by outcome.", labels=("outcome",)
    )
    for outcome in ("completed", "failed"):
        lines.add_metric((outcome,), found.lines.get(outcome, 0))
    yield from (open_, ended, lines)
    yield _gauge("llcuda_batch_lines_asked", "Lines of batches that are asked now.", found.asked)
    yield _gauge("llcuda_batch_lines_left", "Lines of batches that are not over.", found.left)


def _memory(found: Mapping[str, int]) -> Iterator[Metric]:
    used = GaugeMetricFamily("llcuda_memory_bytes", "Memory in use, by what for.", labels=("kind",))
    most = GaugeMetricFamily("llcuda_memory_limit_bytes", "The same at most.", labels=("kind",))
    for kind in _MEMORY:
        used.add_metric((kind,), found[kind])
        most.add_metric((kind,), found["limit" if kind == "resident" else f"{kind}_limit"])
    yield from (used, most)
    name = "llcuda_memory"
    yield _counter(f"{name}_refused", "Requests refused for lack of memory.", found["refused"])
    yield _counter(f"{name}_ended", "Generations ended for lack of memory.", found["ended"])
    yield _counter(f"{name}_dropped", "Logs of what is over, dropped.", found["dropped"])
    yield _counter(f"{name}_read_again", "Of these, read again.", found["read_again"])


def _storage(storage: Storage) -> Iterator[Metric]:
    journal = storage.journal.stats
    name = "llcuda_journal"
    yield _counter(f"{name}_records", "Records appended.", journal.records)
    yield _counter(f"{name}_written_bytes", "Bytes written.", journal.bytes)
    yield _counter(f"{name}_writes", "System calls that wrote.", journal.writes)
    yield _gauge(f"{name}_segments", "Files.", journal.segments)
    yield _gauge(f"{name}_live_bytes", "Bytes of open generations.", journal.live_bytes)
    yield _counter("llcuda_store_results", "Results committed.", storage.committed)
    yield _gauge("llcuda_store_backlog", "Results that wait to be committed.", storage.backlog)
    unstored = len(storage.unstored)
    yield _gauge("llcuda_store_unstored", "Results that the store did not take yet.", unstored)
    refusing = GaugeMetricFamily(
        "llcuda_store_refusing", "Whether new work is refused, by the reason.", labels=("code",)
    )
    refusal = storage.refusal
    for code in _REFUSALS:
        refusing.add_metric((code,), refusal is not None and refusal.code == code)
    yield refusing


def _openmetrics(registry: CollectorRegistry) -> bytes:
    text: bytes = openmetrics.generate_latest(registry)  # type: ignore[no-untyped-call]
    return text


def _label(text: str) -> str:
    """A label's value: prometheus_client escapes quotes and such, not what a terminal obeys."""
    return one_line(text[:MAX_LABEL])


def _gauge(name: str, help_: str, value: float) -> Metric:
    return GaugeMetricFamily(name, help_, value=value)


def _counter(name: str, help_: str, value: float) -> Metric:
    return CounterMetricFamily(name, help_, value=value)


def _code(error: RequestError) -> str:
    """The error's code, of the closed list; a stored result may have another one."""
    code = str(error.code)
    return code if code in _CODES else "other"
