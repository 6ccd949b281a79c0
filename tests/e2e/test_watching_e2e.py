"""Traces of a real server, taken by a collector on loopback; `llcuda top` of a real server."""

from __future__ import annotations

import contextlib
import http.server
import json
import threading
from collections.abc import Iterator

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from llcuda_net.util.version import package_version
from llcuda_protocol import Done
from tests.support.processes import RunningServer, run, running_server
from tests.support.raw_client import ask, connected


class Collector(http.server.ThreadingHTTPServer):
    """Takes whatever is posted."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Taking)
        self.taken: list[tuple[str, str | None, bytes]] = []

    def spans(self) -> list[Span]:
        """All that came."""
        out: list[Span] = []
        for _, _, body in self.taken:
            request = ExportTraceServiceRequest.FromString(body)
            for resource in request.resource_spans:
                out += [span for scope in resource.scope_spans for span in scope.spans]
        return out


class _Taking(http.server.BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.taken.append((self.path, self.headers.get("x-key"), body))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        """Not into the tests' output."""


@contextlib.contextmanager
def collecting() -> Iterator[tuple[Collector, str]]:
    with Collector() as collector:
        thread = threading.Thread(target=collector.serve_forever)
        thread.start()
        try:
            yield collector, f"http://127.0.0.1:{collector.server_port}"
        finally:
            collector.shutdown()
            thread.join()


def test_a_collector_gets_the_traces_at_the_latest_when_the_server_stops() -> None:
    with collecting() as (collector, url):
        headers = {"OTEL_EXPORTER_OTLP_HEADERS": "x-key=sesame"}
        with running_server("--otlp-endpoint", url, **headers) as server:
            with connected(server.port) as client:
                client.send(ask("Once upon a time", n_predict=5))
                _, done = client.until(Done)
            assert server.stop() == 0
            assert "traces_lost" not in server.log()
        assert {taken[:2] for taken in collector.taken} == {("/v1/traces", "sesame")}
        assert not any(b"upon a time" in body for _, _, body in collector.taken)
        (root,) = (span for span in collector.spans() if not span.parent_span_id)
        assert root.name == "text_completion demo"
        found = {one.key: one.value for one in root.attributes}
        assert found["gen_ai.response.id"].string_value == done.id
        assert found["gen_ai.usage.output_tokens"].int_value == done.usage["completion_tokens"]
        inner = {span.name for span in collector.spans() if span.trace_id == root.trace_id}
        assert {"queue", "first_token", "generation", "persist"} <= inner


def test_without_a_collector_the_server_serves_and_stops() -> None:
    # Where nobody listens: each try is refused at once.
    with running_server("--otlp-endpoint", "http://127.0.0.1:9") as server:
        with connected(server.port) as client:
            client.send(ask("Once upon a time", n_predict=2))
            client.until(Done)
        assert server.stop() == 0


def test_top_of_a_real_server(demo_server: RunningServer) -> None:
    shown = run("main", "top", demo_server.address)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert f"llcuda-server {package_version()}  {demo_server.address}" in shown.stdout
    assert "demo" in shown.stdout
    assert "0/4" in shown.stdout
    told = run("main", "top", "--server", demo_server.address, "--json")
    assert json.loads(told.stdout)["upstreams"][0]["model"] == "demo"
