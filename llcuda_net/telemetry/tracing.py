"""`--otlp-endpoint`: a trace of each generation, for an OpenTelemetry collector.

Spans are made when a generation has ended, and sent from a thread of the SDK: a collector that is
slow, or not there, holds nothing up; what it does not take in time is lost. The SDK's own variables
(OTEL_EXPORTER_OTLP_HEADERS, OTEL_TRACES_SAMPLER, OTEL_SERVICE_NAME and others) apply.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from functools import partial
from urllib.parse import urlsplit

import structlog
import trio

from llcuda_net.errors import ConfigError
from llcuda_net.generation.generation import Generation
from llcuda_net.generation.state import State
from llcuda_net.telemetry import spans
from llcuda_net.telemetry.observers import Observer

try:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
    from opentelemetry.trace import Span, SpanKind, Status, StatusCode, set_span_in_context
except ModuleNotFoundError as error:
    raise ConfigError(
        f"--otlp-endpoint needs the package {error.name}: pip install 'llcuda-net[otel]'"
    ) from None

log = structlog.get_logger(__name__)

#: Seconds for what is left to be sent when the server stops.
FLUSH = 3.0
#: Spans that may wait to be sent: those of a thousand generations.
_QUEUE = 8192
_PATH = "/v1/traces"
#: Seconds between two log lines about a collector that does not take what it is sent.
_QUIET = 60.0


class Tracing(Observer):
    """Makes a trace of each generation that ends.

    Args:
        exporter: where spans go.
        version: of this software.
        name_of: returns the name of an upstream, given its URL.
    """

    def __init__(
        self,
        exporter: SpanExporter,
        version: str,
        name_of: Callable[[str], str] = lambda url: url,
    ) -> None:
        self._name_of = name_of
        self._version = version
        ours = Resource({"service.name": "llcuda-server", "service.version": version})
        self._provider = TracerProvider(
            resource=ours.merge(OTELResourceDetector().detect()),
            shutdown_on_exit=False,  # it would wait for a collector that does not answer
        )
        self._provider.add_span_processor(BatchSpanProcessor(exporter, max_queue_size=_QUEUE))
        self._tracer = self._provider.get_tracer("llcuda_net", version)

    def __repr__(self) -> str:
        return f"<Tracing: of version {self._version}>"

    def ended(self, generation: Generation) -> None:
        """See Observer."""
        now = trio.current_time()
        # The wall clock less the monotonic clock.
        since_1970 = time.time_ns() - round(now * 1e9)

        def wall(moment: float) -> int:
            return since_1970 + round(moment * 1e9)

        upstream = self._name_of(generation.upstream) if generation.upstream else ""
        name = f"{spans.operation(generation)} {spans.model(generation)}".rstrip()
        root = self._tracer.start_span(
            name,
            kind=SpanKind.SERVER,
            start_time=wall(generation.times.received),
            attributes=spans.attributes(generation, upstream),
        )
        if root.is_recording():
            self._phases(root, generation, wall)
            for at, position in spans.splices(generation):
                root.add_event("llcuda.splice", {"llcuda.position": position}, timestamp=at)
            for one in generation.failovers:
                position_of = {"llcuda.position": one.position}
                root.add_event("llcuda.failover", position_of, timestamp=wall(one.at))
            if generation.state in (State.FAILED, State.INTERRUPTED):
                # The code alone: a message may quote what the client sent.
                code = None if generation.error is None else str(generation.error.code)
                root.set_status(Status(StatusCode.ERROR, code))
        root.end(wall(now))

    def _phases(self, root: Span, generation: Generation, wall: Callable[[float], int]) -> None:
        if generation.from_store:
            return  # no upstream was asked
        final = generation.final
        timings = None if final is None else final.timings
        prompt_ms = 0.0 if timings is None else timings.prompt_ms
        parents = {"": root}
        for phase in spans.phases(generation.times, prompt_ms):
            span = parents[phase.name] = self._tracer.start_span(
                phase.name,
                context=set_span_in_context(parents[phase.within]),
                start_time=wall(phase.start),
            )
            span.end(wall(phase.end))

    async def aclose(self) -> None:
        """Send what is left, within FLUSH seconds; what is not sent by then is lost."""
        with trio.move_on_after(FLUSH) as scope:
            await trio.to_thread.run_sync(self._provider.shutdown, abandon_on_cancel=True)
        if scope.cancelled_caught:
            log.warning("traces_lost", reason=f"the collector took nothing for {FLUSH:g} s")


class _Rarely(logging.Handler):
    """Logs one line of the SDK's once in a while: it repeats the same for every try."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._said = -math.inf

    def emit(self, record: logging.LogRecord) -> None:
        """Log it, unless something was logged just now."""
        if record.created >= self._said + _QUIET:
            self._said = record.created
            log.warning("traces_not_sent", reason=record.getMessage())


def open_tracing(endpoint: str, version: str) -> Callable[[Callable[[str], str]], Tracing]:
    """What makes the traces for the collector at a URL, given `name_of` (see Tracing).

    Raises:
        ConfigError: traces cannot be sent to that URL.
    """
    try:
        parts = urlsplit(endpoint)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or parts.query or parts.fragment:
        raise ConfigError(
            f"--otlp-endpoint must be the URL of a collector, as http://127.0.0.1:4318, "
            f"not {endpoint!r}"
        )
    library = logging.getLogger("opentelemetry")
    library.handlers, library.propagate = [_Rarely()], False
    url = endpoint.rstrip("/")
    exporter = OTLPSpanExporter(url if url.endswith(_PATH) else url + _PATH)
    return partial(Tracing, exporter, version)
