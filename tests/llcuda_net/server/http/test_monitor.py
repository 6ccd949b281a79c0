"""Metrics, /healthz and /readyz of a server in memory: what moves when, and what is told."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families
from trio.testing import wait_all_tasks_blocked

from llcuda_net.errors import StorageError, UpstreamUnavailable, request_error
from llcuda_net.server.gateway import Gateway
from llcuda_net.server.http.monitor import MAX_SCRAPES, Monitor
from llcuda_net.telemetry.metrics import MAX_PAIRS
from llcuda_protocol import Cancel, Done, Embed, Error, Search, Tokens
from tests.support.server.durable_server import keeping
from tests.support.server.memory_server import (
    FakeUpstream,
    MemoryListener,
    ask,
    paused,
    ready,
    serving,
)
from tests.support.upstream.backends import FakeBackend, FakePool

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]
WHO = {"upstream": "a", "model": "fake"}


@contextlib.asynccontextmanager
async def monitored(
    upstream: FakeUpstream, *, users: bool = False, **settings: Any
) -> AsyncIterator[tuple[Monitor, Gateway, MemoryListener]]:
    monitor = Monitor(users=users)
    async with serving(upstream, **settings) as (server, listener):
        server.standing.pool = FakePool([FakeBackend()])
        monitor.watch(server)
        yield monitor, server, listener


async def samples(monitor: Monitor) -> Samples:
    answer = await monitor.respond("/metrics", "")
    assert answer is not None
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.body.decode())
        for sample in family.samples
    }


def of(found: Samples, name: str, /, **labels: str) -> float | None:
    return found.get((name, frozenset(labels.items())))


def requests(found: Samples, state: str, code: str = "", **labels: str) -> float | None:
    labels = {"kind": "generate", "upstream": "", "model": "", **labels}
    return of(found, "llcuda_requests_total", state=state, code=code, **labels)


async def readiness(monitor: Monitor) -> tuple[int, dict[str, str]]:
    answer = await monitor.respond("/readyz", "")
    assert answer is not None
    assert answer.body.count(b"\n") == 1
    return answer.status, json.loads(answer.body)


# -- metrics ------------------------------------------------------------------------------------


async def test_a_request_moves_its_counters(autojump_clock: trio.abc.Clock) -> None:
    async with monitored(FakeUpstream()) as (monitor, _, listener):
        before = await samples(monitor)
        assert requests(before, "done", **WHO) is None
        peer = await ready(listener)
        await peer.send(ask("one two three"))
        await peer.until(Done)
        found = await samples(monitor)
        assert requests(found, "done", **WHO) == 1
        assert of(found, "llcuda_completion_tokens_total", **WHO) == 3
        assert of(found, "llcuda_prompt_tokens_total", **WHO) == 7
        for phase in ("queue", "connect", "first_token", "generation", "total", "prompt"):
            assert of(found, "llcuda_phase_seconds_count", phase=phase, **WHO) == 1, phase
        prompt = of(found, "llcuda_phase_seconds_sum", phase="prompt", **WHO)
        assert prompt == pytest.approx(0.0015)
        assert of(found, "llcuda_time_to_first_token_seconds_count", **WHO) == 1
        assert of(found, "llcuda_token_interval_seconds_count", **WHO) == 1
        assert of(found, "llcuda_connections") == 1
        assert of(found, "llcuda_connections_opened_total") == 1


async def test_times_are_seconds(autojump_clock: trio.abc.Clock) -> None:
    upstream = paused()
    async with monitored(upstream) as (monitor, _, listener):
        peer = await ready(listener)
        await peer.send(ask("one two three"))
        for wait in (2.0, 0.25, 0.75):
            await trio.sleep(wait)
            upstream.release()
        await peer.until(Done)
        found = await samples(monitor)
        assert of(found, "llcuda_time_to_first_token_seconds_sum", **WHO) == pytest.approx(2.0)
        assert of(found, "llcuda_token_interval_seconds_sum", **WHO) == pytest.approx(0.5)
        total = of(found, "llcuda_phase_seconds_sum", phase="total", **WHO)
        assert total == pytest.approx(3.0)


async def test_tokens_count_while_they_come_and_each_once(autojump_clock: trio.abc.Clock) -> None:
    upstream = paused()
    async with monitored(upstream) as (monitor, _, listener):
        peer = await ready(listener)
        await peer.send(ask("one two three four"))
        for expected in (1, 2):
            upstream.release()
            await peer.until(Tokens)
            for _ in range(2):  # asking twice counts nothing twice
                found = await samples(monitor)
                assert of(found, "llcuda_completion_tokens_total", **WHO) == expected
        upstream.release(2)
        await peer.until(Done)
        assert of(await samples(monitor), "llcuda_completion_tokens_total", **WHO) == 4


async def test_the_queue_and_the_slots(autojump_clock: trio.abc.Clock) -> None:
    upstream = paused(slots=1)
    async with monitored(upstream, max_queue=2) as (monitor, _, listener):
        peer = await ready(listener)
        await peer.send(*(ask(stream=2 * n + 1) for n in range(4)))
        await wait_all_tasks_blocked()
        found = await samples(monitor)
        assert of(found, "llcuda_requests_running") == 1
        assert of(found, "llcuda_requests_queued") == 2
        assert of(found, "llcuda_queue_limit") == 2
        assert of(found, "llcuda_generations") == 3
        assert of(found, "llcuda_streams") == 3
        assert requests(found, "refused", "overloaded") == 1
        await peer.send(*(Cancel(2 * n + 1) for n in range(3)))
        await wait_all_tasks_blocked()
        found = await samples(monitor)
        assert of(found, "llcuda_requests_running") == 0
        assert of(found, "llcuda_requests_queued") == 0
        assert requests(found, "cancelled", **WHO) == 1
        assert requests(found, "cancelled") == 2  # they were never given to an upstream


async def test_failures_count_by_their_code(autojump_clock: trio.abc.Clock) -> None:
    upstream = FakeUpstream()
    upstream.failure = UpstreamUnavailable("gone")
    async with monitored(upstream) as (monitor, _, listener):
        peer = await ready(listener)
        await peer.send(ask("one"), ask("one", stream=3, params={"no_such": 1}))
        await wait_all_tasks_blocked()
        found = await samples(monitor)
        assert requests(found, "failed", "upstream_unavailable", **WHO) == 1
        assert requests(found, "refused", "unknown_parameter") == 1
        upstream.failure = request_error("a code of my own", "no")
        await peer.send(ask("one", stream=5))
        await peer.until(Error, stream=5)
        assert requests(await samples(monitor), "failed", "other", **WHO) == 1


async def test_other_kinds_count_apart(autojump_clock: trio.abc.Clock) -> None:
    async with monitored(FakeUpstream()) as (monitor, server, listener):
        peer = await ready(listener)
        await peer.send(Embed(1, ["a text"]))
        await peer.until(Done)
        found = await samples(monitor)
        assert requests(found, "done", kind="embed") == 1
        assert requests(found, "done", **WHO) is None
        server.standing.draining = True
        await peer.send(Embed(3, ["a text"]))
        await peer.until(Error, stream=3)
        await peer.send(Search(5, "a text", 1))
        await peer.until(Error, stream=5)
        found = await samples(monitor)
        for kind in ("embed", "search"):
            assert requests(found, "failed", "shutting_down", kind=kind) == 1


async def test_labels_are_bounded(autojump_clock: trio.abc.Clock) -> None:
    upstream = FakeUpstream()
    assert upstream.properties is not None
    async with monitored(upstream) as (monitor, server, listener):
        for n in range(MAX_PAIRS + 5):
            server.pool.backends[0].fingerprint = lambda n=n: {"name": f"model {n}"}  # type: ignore
            peer = await ready(listener)
            await peer.send(ask("one"))
            await peer.until(Done)
            await peer.stream.aclose()
        text = (await samples(monitor)).items()
        done = {key: value for key, value in text if key[0] == "llcuda_requests_total"}
        assert len(done) <= MAX_PAIRS + 1
        assert sum(done.values()) == MAX_PAIRS + 5
        assert (requests(await samples(monitor), "done", upstream="other", model="other") or 0) >= 5


async def test_no_label_holds_what_a_client_sent(autojump_clock: trio.abc.Clock) -> None:
    async with monitored(FakeUpstream()) as (monitor, _, listener):
        peer = await ready(listener)
        await peer.send(ask("sesame street", key="sesame", params={"sesame": 1}))
        await peer.until(Error)
        await peer.send(ask("sesame street", stream=3, key="sesame"))
        await peer.until(Done, stream=3)
        answer = await monitor.respond("/metrics", "")
        assert answer is not None
        assert b"sesame" not in answer.body


async def test_what_is_kept(tmp_path: Path) -> None:
    monitor = Monitor()
    on_sync = monitor.metrics.sync_seconds.observe
    monitor.metrics.add_gauge("llcuda_other_backlog", "Of another part.", lambda: 42)
    async with keeping(tmp_path, FakeUpstream(), on_sync=on_sync, analysis=True) as (
        storage,
        listener,
    ):
        listener.server.standing.pool = FakePool([FakeBackend()])
        monitor.watch(listener.server)
        for _ in range(2):
            peer = await ready(listener)
            await peer.send(ask("one two", key="k"))
            await peer.until(Done)
        found = await samples(monitor)
        assert requests(found, "done", **WHO) == 1
        assert requests(found, "done") == 1
        assert of(found, "llcuda_requests_from_store_total") == 1
        assert of(found, "llcuda_completion_tokens_total", **WHO) == 2
        assert of(found, "llcuda_phase_seconds_count", phase="total", **WHO) == 1
        assert of(found, "llcuda_store_results_total") == 1
        assert of(found, "llcuda_store_backlog") == 0
        assert of(found, "llcuda_store_refusing", code="storage_full") == 0
        written = of(found, "llcuda_journal_written_bytes_total")
        assert written == storage.journal.stats.bytes > 0
        syncs = of(found, "llcuda_journal_sync_seconds_count")
        assert syncs
        assert of(found, "llcuda_other_backlog") == 42
        assert of(found, "llcuda_analysis_backlog") is not None

        storage._outcomes.refusal = StorageError("no room", StorageError.FULL)
        found = await samples(monitor)
        assert of(found, "llcuda_store_refusing", code="storage_full") == 1
        assert of(found, "llcuda_ready") == 0
        status, answer = await readiness(monitor)
        assert (status, answer["reason"]) == (503, "the store takes nothing: no room")


async def test_openmetrics_for_whoever_asks(autojump_clock: trio.abc.Clock) -> None:
    async with monitored(FakeUpstream()) as (monitor, _, _listener):
        for accept in ("application/openmetrics-text; version=nonsense", "a/b, */*", "\0"):
            answer = await monitor.respond("/metrics", accept)
            assert answer is not None
            text = answer.body.decode()
            assert ("openmetrics" in answer.content_type) == ("openmetrics" in accept)
            parse = parse_openmetrics if "openmetrics" in accept else text_string_to_metric_families
            names = {family.name for family in parse(text)}
            assert {"llcuda_ready", "llcuda_requests", "process_open_fds"} <= names


# -- health -------------------------------------------------------------------------------------


async def test_before_a_server_and_after_it(autojump_clock: trio.abc.Clock) -> None:
    monitor = Monitor()
    answer = await monitor.respond("/healthz", "")
    assert answer is not None
    assert answer.status == 200
    status, told = await readiness(monitor)
    assert (status, told["reason"]) == (503, "the server is starting, or has stopped")
    assert of(await samples(monitor), "llcuda_ready") == 0
    async with serving(FakeUpstream()) as (server, _):
        server.standing.pool = FakePool([FakeBackend()])
        monitor.watch(server)
        assert await readiness(monitor) == (200, {"status": "ready"})
        assert of(await samples(monitor), "llcuda_ready") == 1
    monitor.forget()
    assert (await readiness(monitor))[0] == 503
    assert await monitor.respond("/elsewhere", "") is None


async def test_readiness_follows_the_members(autojump_clock: trio.abc.Clock) -> None:
    first = FakeBackend("a", state="down", reason="connection refused")
    second = FakeBackend("b", state="draining")
    embedder = FakeBackend("c", roles=("embeddings",))
    async with monitored(FakeUpstream()) as (monitor, server, _listener):
        pool = server.standing.pool = FakePool([first, second, embedder])
        status, told = await readiness(monitor)
        assert status == 503
        assert told["reason"] == "no upstream answers: a: connection refused; b: draining"
        assert of(await samples(monitor), "llcuda_ready") == 0
        second.state = "up"
        assert await readiness(monitor) == (200, {"status": "ready"})
        assert of(await samples(monitor), "llcuda_ready") == 1
        pool.backends = [embedder]
        reason = (await readiness(monitor))[1]["reason"]
        assert reason == "there is no upstream for completions"


async def test_a_drain_is_told(autojump_clock: trio.abc.Clock) -> None:
    upstream = paused()
    async with monitored(upstream) as (monitor, server, listener):
        peer = await ready(listener)
        await peer.send(ask("one two three"))
        await wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.drain, 30.0)
            await wait_all_tasks_blocked()
            status, told = await readiness(monitor)
            assert (status, told["reason"]) == (503, "the server is draining")
            assert of(await samples(monitor), "llcuda_draining") == 1
            await peer.stream.aclose()
            upstream.release(3)


async def test_scrapes_are_bounded_and_health_is_not(autojump_clock: trio.abc.Clock) -> None:
    async with monitored(FakeUpstream()) as (monitor, _, _):
        analyst = SlowAnalyst()
        monitor._analyst = analyst  # type: ignore[assignment]  # of which only `report` is used
        async with trio.open_nursery() as nursery:
            for _ in range(MAX_SCRAPES):
                nursery.start_soon(monitor.respond, "/metrics", "")
            await wait_all_tasks_blocked()
            refused = await monitor.respond("/metrics", "")
            assert refused is not None
            assert refused.status == 503
            for path in ("/healthz", "/readyz"):
                answer = await monitor.respond(path, "")
                assert answer is not None
                assert answer.status == 200
            analyst.go.set()
        scraped = await monitor.respond("/metrics", "")
        assert scraped is not None
        assert scraped.status == 200


class SlowAnalyst:
    """Its report takes until it may go."""

    def __init__(self) -> None:
        self.go = trio.Event()

    async def report(self) -> dict[str, float]:
        await self.go.wait()
        return {}
