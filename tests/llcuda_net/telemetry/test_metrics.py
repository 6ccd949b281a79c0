"""Metrics of the pool's members, of users and of the queue: which series, and what names them."""

from __future__ import annotations

import trio

from llcuda_net.errors import RequestError, request_error
from llcuda_net.generation.generation import Generation
from llcuda_net.generation.state import State
from llcuda_net.telemetry.metrics import MAX_LABEL, MAX_USERS
from llcuda_net.telemetry.observers import (
    MAX_NAMES,
    UNKNOWN,
    BatchCounts,
    Names,
    Observer,
    Watches,
)
from llcuda_net.util.terminal import one_line
from llcuda_protocol import Done
from tests.llcuda_net.server.http.test_monitor import monitored, of, requests, samples
from tests.support.cli.fake_terminal import EVIL, is_obeyed
from tests.support.server.memory_server import FakeUpstream, ask, ready
from tests.support.upstream.backends import (
    At,
    FakeBackend,
    FakeLoad,
    FakePool,
    FakeSlotRequest,
    FakeTicket,
    Urgency,
)


def generation(owner: str = "", tokens: int = 0, upstream: str = "fake://") -> Generation:
    """One that has ended, as a watch sees it."""
    made = Generation("p", None, {}, 60.0, owner=owner, upstream=upstream, model={"name": "fake"})
    made._predicted = tokens
    made.state = State.DONE
    return made


async def test_what_each_member_does(autojump_clock: trio.abc.Clock) -> None:
    backends = [
        FakeBackend("a", slots_here=8, busy=5, foreign=2, releasing=1, model="big"),
        FakeBackend(
            "b", state="down", slots_here=0, restarts=3, failures=4, failovers=2, roles={"x"}
        ),
    ]
    async with monitored(FakeUpstream()) as (monitor, server, _):
        server.standing.pool = FakePool(backends)
        found = await samples(monitor)
        expected = {
            "up": (1, 0),
            "slots": (8, 0),
            "busy": (5, 0),
            "foreign": (2, 0),
            "releasing": (1, 0),
            "restarts_total": (0, 3),
            "failures_total": (0, 4),
            "failovers_total": (0, 2),
        }
        for name, values in expected.items():
            for upstream, value in zip("ab", values, strict=True):
                assert of(found, f"llcuda_upstream_{name}", upstream=upstream) == value, name
        for upstream, state in (("a", "up"), ("b", "down")):
            for one in ("up", "down", "probing", "draining"):
                told = of(found, "llcuda_upstream_state", upstream=upstream, state=one)
                assert told == (one == state)
        labels = {"upstream": "a", "model": "big", "roles": "completions,embeddings"}
        assert of(found, "llcuda_upstream_info", **labels) == 1


async def test_two_of_one_name_are_one_series(autojump_clock: trio.abc.Clock) -> None:
    async with monitored(FakeUpstream()) as (monitor, server, _):
        server.standing.pool = FakePool([FakeBackend("a", slots_here=n) for n in (1, 2)])
        answer = await monitor.respond("/metrics", "")
        assert answer is not None
        assert answer.body.count(b"llcuda_upstream_slots{") == 1


async def test_a_member_that_has_gone_keeps_its_name(autojump_clock: trio.abc.Clock) -> None:
    async with monitored(FakeUpstream()) as (monitor, server, listener):
        peer = await ready(listener)
        await peer.send(ask("one"))
        await peer.until(Done)
        server.standing.pool = FakePool([FakeBackend("b", At("http://b"))])
        monitor.metrics.ended(generation())
        found = await samples(monitor)
        assert requests(found, "done", upstream="a", model="fake") == 2
        assert of(found, "llcuda_upstream_up", upstream="a") is None


def test_names_follow_addresses_and_are_bounded() -> None:
    names = Names()
    backend = FakeBackend("engine", At("http://127.0.0.1:1"))
    assert names.of("http://127.0.0.1:1", [backend]) == "engine"
    backend.upstream = At("http://127.0.0.1:2")  # started again
    assert names.of("http://127.0.0.1:2", [backend]) == "engine"
    assert names.of("http://127.0.0.1:1", [backend]) == "engine"
    assert names.of("http://elsewhere", [backend]) == UNKNOWN
    for number in range(MAX_NAMES):
        names.of("", [FakeBackend(str(number), At(f"http://{number}"))])
    assert len(names._names) == MAX_NAMES
    assert names.of("http://127.0.0.1:1", []) == UNKNOWN
    assert names.of(f"http://{MAX_NAMES - 1}", []) == str(MAX_NAMES - 1)


async def test_users_are_named_only_where_the_operator_says_so(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with monitored(FakeUpstream()) as (monitor, server, _):
        monitor.metrics.ended(generation("eve", tokens=5))
        server.standing.users = lambda: [FakeLoad("ann", running=2, queued=3)]
        for accept in ("", "application/openmetrics-text"):
            answer = await monitor.respond("/metrics", accept)
            assert answer is not None
            assert not [word for word in (b"eve", b"ann", b"llcuda_user") if word in answer.body]
            assert b'llcuda_completion_tokens_total{model="fake",upstream="a"} 5.0' in answer.body


async def test_a_label_commands_no_terminal_and_has_a_bound(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with monitored(FakeUpstream(), users=True) as (monitor, server, _):
        evil = f'a"b\\c\nd{EVIL}'
        backend = FakeBackend(evil, model=f"m{evil}")
        server.standing.pool = FakePool(
            [backend, FakeBackend("b", At("http://b"), model="x" * 1000)]
        )
        made = generation(f"u{evil}", tokens=1)
        made.model = {"name": f"m{evil}"}
        monitor.metrics.ended(made)
        for accept in ("", "application/openmetrics-text"):
            answer = await monitor.respond("/metrics", accept)
            assert answer is not None
            assert not any(map(is_obeyed, answer.body.decode()))
        found = await samples(monitor)
        clean = one_line(evil)
        assert of(found, "llcuda_upstream_up", upstream=clean) == 1
        labels = {"upstream": clean, "model": f"m{clean}"}
        assert of(found, "llcuda_completion_tokens_total", **labels) == 1
        assert of(found, "llcuda_user_tokens_total", user=f"u{clean}") == 1
        roles = "completions,embeddings"
        long = "x" * MAX_LABEL
        assert of(found, "llcuda_upstream_info", upstream="b", model=long, roles=roles) == 1


async def test_users(autojump_clock: trio.abc.Clock) -> None:
    async with monitored(FakeUpstream(), users=True) as (monitor, server, _):
        monitor.metrics.ended(generation("eve", tokens=5))
        monitor.metrics.ended(generation("eve", tokens=2))
        server.standing.users = lambda: [FakeLoad("ann", running=2, queued=3)]
        found = await samples(monitor)
        assert of(found, "llcuda_user_tokens_total", user="eve") == 7
        assert of(found, "llcuda_user_running", user="ann") == 2
        assert of(found, "llcuda_user_queued", user="ann") == 3
        assert of(found, "llcuda_user_queued", user="eve") == 0  # there, though idle
        server.standing.users = tuple
        assert of(await samples(monitor), "llcuda_user_queued", user="ann") == 0


async def test_users_are_bounded(autojump_clock: trio.abc.Clock) -> None:
    async with monitored(FakeUpstream(), users=True) as (monitor, server, _):
        for number in range(MAX_USERS + 5):
            monitor.metrics.ended(generation(f"user {number}", tokens=1))
        server.standing.users = lambda: [FakeLoad("a", queued=1), FakeLoad("b", queued=2)]
        found = await samples(monitor)
        tokens = {
            key: value for key, value in found.items() if key[0] == "llcuda_user_tokens_total"
        }
        assert len(tokens) == MAX_USERS + 1
        assert of(found, "llcuda_user_tokens_total", user="other") == 5
        assert of(found, "llcuda_user_queued", user="other") == 3


async def test_the_queue_by_priority(autojump_clock: trio.abc.Clock) -> None:
    async with monitored(FakeUpstream()) as (monitor, server, _):
        waiting = [FakeTicket(FakeSlotRequest(p)) for p in (Urgency.LOW, Urgency.HIGH, Urgency.LOW)]
        server.standing.waiting = lambda: waiting
        found = await samples(monitor)
        for priority, count in (("high", 1), ("normal", 0), ("low", 2)):
            assert of(found, "llcuda_queue_waiting", priority=priority) == count


async def test_one_watch_that_fails_does_not_keep_the_others_from_being_told() -> None:
    told: list[object] = []

    class Bad(Observer):
        def refused(self, error: RequestError) -> None:
            raise ZeroDivisionError

    class Good(Observer):
        def refused(self, error: RequestError) -> None:
            told.append(error)

        def answered(self, kind: str, error: RequestError | None) -> None:
            told.append(kind)

        def ended(self, generation: Generation) -> None:
            told.append(generation)

    watches = Watches()
    for watch in (Bad(), Good(), Good()):
        watches.add(watch)
    error, ended = request_error("c", "m"), generation()
    watches.refused(error)
    watches.answered("embed", None)
    watches.ended(ended)
    assert told == [error, error, "embed", "embed", ended, ended]


async def test_batches(autojump_clock: trio.abc.Clock) -> None:
    async with monitored(FakeUpstream()) as (monitor, server, _):
        assert of(await samples(monitor), "llcuda_batches", state="in_progress") == 0
        server.standing.batches = lambda: BatchCounts(
            {"in_progress": 2}, {"failed": 1}, {"completed": 7}, 3, 9
        )
        found = await samples(monitor)
        for state, count in (("in_progress", 2), ("validating", 0), ("cancelling", 0)):
            assert of(found, "llcuda_batches", state=state) == count
        for state, count in (("failed", 1), ("completed", 0), ("expired", 0)):
            assert of(found, "llcuda_batches_ended_total", state=state) == count
        for outcome, count in (("completed", 7), ("failed", 0)):
            assert of(found, "llcuda_batch_lines_total", outcome=outcome) == count
        assert of(found, "llcuda_batch_lines_asked") == 3
        assert of(found, "llcuda_batch_lines_left") == 9


async def test_what_takes_memory(autojump_clock: trio.abc.Clock) -> None:
    async with monitored(FakeUpstream(), memory_limit=256 << 20) as (monitor, server, _):
        server.memory.unsent.waiting = 1000
        found = await samples(monitor)
        assert of(found, "llcuda_memory_bytes", kind="unsent") == 1000
        assert of(found, "llcuda_memory_limit_bytes", kind="resident") == 256 << 20
        assert of(found, "llcuda_memory_limit_bytes", kind="running") == 64 << 20
        assert of(found, "llcuda_memory_refused_total") == 0


class FakeCluster:
    """A server among three, that has taken over from one."""

    is_member = True
    trouble: str | None = None
    members = (1, 2, 3)
    taken_over = (1, 40)


async def test_how_a_server_stands_in_its_cluster(autojump_clock: trio.abc.Clock) -> None:
    async with monitored(FakeUpstream()) as (monitor, server, _):
        assert not any(name.startswith("llcuda_cluster") for name, *_ in await samples(monitor))
        server.standing.cluster = cluster = FakeCluster()
        found = await samples(monitor)
        assert of(found, "llcuda_cluster_member") == of(found, "llcuda_ready") == 1
        assert of(found, "llcuda_cluster_members") == 3
        assert of(found, "llcuda_cluster_takeovers_total") == 1
        assert of(found, "llcuda_cluster_adopted_total") == 40
        cluster.is_member = False
        found = await samples(monitor)
        assert of(found, "llcuda_cluster_member") == of(found, "llcuda_ready") == 0
        answer = await monitor.respond("/readyz", "")
        assert answer is not None
        assert b'lost its lease in the cluster"' in answer.body
        cluster.trouble = "the database x does not answer"
        answer = await monitor.respond("/readyz", "")
        assert answer is not None
        assert b'lost its lease in the cluster: the database x does not answer"' in answer.body
