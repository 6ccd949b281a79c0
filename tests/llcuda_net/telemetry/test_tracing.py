"""Traces of generations: spans, attributes, what is never in them, and the end of a server."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence

import pytest
import structlog
import trio
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from llcuda_net.errors import ConfigError, UpstreamError
from llcuda_net.generation.generation import Generation
from llcuda_net.generation.state import Outcome, State, Times
from llcuda_net.telemetry import tracing
from llcuda_net.telemetry.spans import Splice, phases, splices
from llcuda_net.telemetry.tracing import Tracing, open_tracing
from llcuda_protocol import Done, Error, Generate
from tests.support.server.memory_server import CREDIT, FakeUpstream, ask, paused, ready, serving
from tests.support.upstream.backends import FakeBackend, FakePool

SECRET = "a very private matter"


def test_a_failover_tells_no_time_of_a_restart() -> None:
    generation = Generation(None, None, {}, 1.0, times=Times(0.0))
    restart = 1_764_000_000_000  # milliseconds since 1970
    generation.splices = [(3, 0), (5, restart << 11 | 7), (9, restart << 11 | 7)]
    assert splices(generation) == [Splice(restart * 1_000_000, 5)]


class Traced:
    """What a tracing has sent."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.name_of: Callable[[str], str] = lambda url: url
        self.tracing = Tracing(self.exporter, "1.2.3", lambda url: self.name_of(url))

    def spans(self) -> dict[str, ReadableSpan]:
        """By name; the root as "root"."""
        assert self.tracing._provider.force_flush()
        return {
            span.name if span.parent else "root": span
            for span in self.exporter.get_finished_spans()
        }


@pytest.fixture
def traced() -> Traced:
    return Traced()


def seconds(span: ReadableSpan, since: ReadableSpan) -> tuple[float, float]:
    """When it began and ended, after another began."""
    assert span.start_time is not None
    assert span.end_time is not None
    assert since.start_time is not None
    return (span.start_time - since.start_time) / 1e9, (span.end_time - since.start_time) / 1e9


async def test_a_generation_is_a_trace(traced: Traced, autojump_clock: trio.abc.Clock) -> None:
    upstream = paused()
    async with serving(upstream) as (server, listener):
        server.standing.pool = FakePool([FakeBackend("gpu-a")])
        traced.name_of = server.standing.name_of
        server.watch.add(traced.tracing)
        peer = await ready(listener)
        messages = [{"role": "user", "content": SECRET}]
        params = {"n_predict": 3, "temperature": 0.5, "seed": 7, "stop": [SECRET]}
        began = time.time()
        await peer.send(Generate(1, messages=messages, params=params, key=SECRET, credit=CREDIT))
        for wait in (2.0, 0.25, 0.75):
            await trio.sleep(wait)
            upstream.release()
        _, done = await peer.until(Done)
        found = traced.spans()
    root = found.pop("root")
    assert root.name == "chat fake"
    assert root.kind is SpanKind.SERVER
    assert root.start_time is not None
    # By a clock that jumps it took 3 s; the wall is asked at the end.
    assert root.start_time / 1e9 == pytest.approx(began - 3, abs=60)
    assert root.context is not None
    for span in found.values():
        assert span.context is not None
        assert span.context.trace_id == root.context.trace_id
    assert set(found) == {
        *("queue", "template", "connect", "first_token", "prompt", "generation", "persist")
    }
    assert seconds(found["first_token"], root) == pytest.approx((0, 2), abs=1e-6)
    assert seconds(found["prompt"], root) == pytest.approx((1.9985, 2), abs=1e-6)
    assert seconds(found["generation"], root) == pytest.approx((2, 3), abs=1e-6)
    assert seconds(root, root) == pytest.approx((0, 3), abs=1e-6)
    within = {span.context.span_id: name for name, span in found.items() if span.context}
    within[root.context.span_id] = "root"
    parents = {name: within[span.parent.span_id] for name, span in found.items() if span.parent}
    assert parents.pop("prompt") == "first_token"
    assert set(parents.values()) == {"root"}
    assert root.status.status_code is StatusCode.UNSET
    assert dict(root.attributes or {}) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "llama.cpp",
        "gen_ai.request.model": "fake",
        "gen_ai.response.model": "fake",
        "gen_ai.response.id": done.id,
        "gen_ai.response.finish_reasons": ("length",),
        "gen_ai.response.time_to_first_chunk": 2.0,
        "gen_ai.request.max_tokens": 3,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.seed": 7,
        "gen_ai.usage.input_tokens": 7,
        "gen_ai.usage.output_tokens": 3,
        "gen_ai.usage.cache_read.input_tokens": 0,
        "llcuda.state": "done",
        "llcuda.level": "memory",
        "llcuda.from_store": False,
        "llcuda.pieces": 3,
        "llcuda.upstream": "gpu-a",
    }
    assert root.resource.attributes["service.name"] == "llcuda-server"
    assert root.resource.attributes["service.version"] == "1.2.3"


async def test_nothing_that_a_client_wrote_is_in_a_trace(
    traced: Traced, autojump_clock: trio.abc.Clock
) -> None:
    upstream = FakeUpstream()
    upstream.failure = UpstreamError(f"it did not like {SECRET!r}")
    upstream.fail_after = 1
    async with serving(upstream) as (server, listener):
        server.watch.add(traced.tracing)
        peer = await ready(listener)
        grammar = f'root ::= "{SECRET}"'
        await peer.send(ask(SECRET, key=SECRET, params={"stop": [SECRET], "grammar": grammar}))
        await peer.until(Error)
        found = traced.spans()
    assert found
    for span in found.values():
        for word in SECRET.split()[1:]:
            assert word not in span.to_json()
    assert found["root"].status.status_code is StatusCode.ERROR
    assert found["root"].status.description == "upstream_error"
    assert (found["root"].attributes or {})["error.type"] == "upstream_error"


async def test_what_was_continued_says_where(
    traced: Traced, autojump_clock: trio.abc.Clock
) -> None:
    generation = Generation("p", None, {}, 60.0, owner="ann")
    generation.pieces = ["a", "b"]
    before = time.time()
    generation.splice()
    after = time.time()
    generation.state = State.DONE
    traced.tracing.ended(generation)
    root = traced.spans()["root"]
    (event,) = root.events
    assert event.name == "llcuda.splice"
    assert dict(event.attributes or {}) == {"llcuda.position": 2}
    assert before - 1e-3 <= event.timestamp / 1e9 <= after
    assert (root.attributes or {})["llcuda.user"] == "ann"
    assert "llcuda.upstream" not in (root.attributes or {})


async def test_an_answer_from_the_store_has_no_phases(
    traced: Traced, autojump_clock: trio.abc.Clock
) -> None:
    generation = Generation("p", None, {}, 60.0)
    generation.conclude(Outcome("stop", None, "fake", {"completion_tokens": 2}, {"total": 9.0}))
    generation.times.over = generation.times.stored = trio.current_time()
    generation.state = State.DONE
    traced.tracing.ended(generation)
    assert set(found := traced.spans()) == {"root"}
    assert (found["root"].attributes or {})["llcuda.from_store"] is True


def test_phases_that_make_no_sense_are_left_out() -> None:
    times = Times(0.0, dispatched=5.0, sent=6.0, first_token=2.0, last_token=9.0)
    assert [tuple(phase) for phase in phases(times, 100.0)] == [
        ("queue", 0.0, 5.0, ""),
        ("connect", 5.0, 6.0, ""),
        ("generation", 2.0, 9.0, ""),
    ]
    # The upstream's account of the prompt is longer than we waited.
    times = Times(0.0, dispatched=1.0, sent=1.0, first_token=2.0)
    assert ("prompt", 1.0, 2.0, "first_token") in list(phases(times, 9000.0))
    assert not list(phases(Times(0.0), 0.0))


async def test_the_standard_variables_count(
    autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "ours")
    named = Traced()
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    silent = Traced()
    for one in (named, silent):
        one.tracing.ended(Generation("p", None, {}, 60.0))
    assert named.spans()["root"].resource.attributes["service.name"] == "ours"
    assert not silent.spans()


# -- the collector ------------------------------------------------------------------------------


class Stuck(SpanExporter):
    """A collector that takes its time."""

    def __init__(self) -> None:
        self.free = threading.Event()
        self.taken = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.free.wait(300)
        self.taken += len(spans)
        return SpanExportResult.SUCCESS


async def test_the_end_waits_for_a_collector_and_no_longer(
    autojump_clock: trio.abc.Clock,
) -> None:
    stuck = Stuck()
    slow = Tracing(stuck, "1")
    slow.ended(Generation("p", None, {}, 60.0))
    started = trio.current_time()
    await slow.aclose()
    assert trio.current_time() - started == pytest.approx(tracing.FLUSH)
    stuck.free.set()


async def test_the_end_sends_what_is_left() -> None:
    last = Traced()
    last.tracing.ended(Generation("p", None, {}, 60.0))
    await last.tracing.aclose()
    assert [span.name for span in last.exporter.get_finished_spans()] == ["text_completion"]


async def test_a_collector_that_is_stuck_holds_nothing_up(
    autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracing, "_QUEUE", 600)
    stuck = Stuck()
    slow = Tracing(stuck, "1")
    for _ in range(2000):  # more than may wait: the oldest are lost
        slow.ended(Generation("p", None, {}, 60.0))
    stuck.free.set()
    await trio.to_thread.run_sync(slow._provider.shutdown)
    assert 600 <= stuck.taken < 2000


def test_what_the_library_says_is_logged_once_in_a_while() -> None:
    handler = tracing._Rarely()
    with structlog.testing.capture_logs() as logged:
        for created in (1000.0, 1059.0, 1060.0, 1061.0):
            record = logging.makeLogRecord(
                {"msg": "at %g", "args": (created,), "created": created, "levelno": 40}
            )
            handler.handle(record)
    assert [line["reason"] for line in logged] == ["at 1000", "at 1060"]


@pytest.mark.parametrize(
    ("endpoint", "expected"),
    [
        ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
        ("https://box/otlp/", "https://box/otlp/v1/traces"),
        ("http://box/v1/traces", "http://box/v1/traces"),
    ],
)
def test_endpoints(endpoint: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def exporter(url: str) -> InMemorySpanExporter:
        asked.append(url)
        return InMemorySpanExporter()

    monkeypatch.setattr(tracing, "OTLPSpanExporter", exporter)
    open_tracing(endpoint, "1")(str)._provider.shutdown()
    assert asked == [expected]


@pytest.mark.parametrize(
    "endpoint", ["127.0.0.1:4318", "", "grpc://a:4317", "http://", "http://a:b", "http://a/?x=1"]
)
def test_what_is_no_endpoint(endpoint: str) -> None:
    with pytest.raises(ConfigError, match="must be the URL of a collector"):
        open_tracing(endpoint, "1")


def test_without_the_extra_the_command_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['opentelemetry'] = None\n"
        "from llcuda_net.cli.server import main\n"
        "sys.exit(main(['--otlp-endpoint', 'http://127.0.0.1:1', '--port', '0']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "pip install 'llcuda-net[otel]'" in done.stderr
