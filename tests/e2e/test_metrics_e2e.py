"""`--metrics-port` of a real server, asked as curl would, and `deploy/` held to what it answers."""

from __future__ import annotations

import configparser
import contextlib
import http.client
import json
import os
import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from llcuda_protocol import Done, Error, Tokens
from tests.support.processes import PATIENCE, RunningServer, run, running_server, wait_until
from tests.support.raw_client import ask, connected
from tests.support.steady import ENDLESS
from tools.overhead.processes import synthetic_upstream

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
#: Labels that Prometheus itself gives, and `up`, which it makes.
OWN_LABELS = {"job", "instance", "le"}


def metrics_port(server: RunningServer) -> int:
    """From the log, where it stands before the server says that it listens."""
    lines = [json.loads(line) for line in server.log().splitlines()]
    (address,) = (one["address"] for one in lines if one["event"] == "metrics_listening")
    return int(address.rpartition(":")[2])


def get(port: int, path: str, method: str = "GET") -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def samples(port: int) -> dict[str, dict[frozenset[tuple[str, str]], float]]:
    """By name, then by labels."""
    status, text = get(port, "/metrics")
    assert status == 200
    out: dict[str, dict[frozenset[tuple[str, str]], float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            out.setdefault(sample.name, {})[frozenset(sample.labels.items())] = sample.value
    return out


def total(port: int, name: str) -> float:
    return sum(samples(port).get(name, {}).values())


@pytest.fixture(scope="module")
def used() -> Iterator[tuple[RunningServer, int]]:
    """A server with the built-in engine that has answered and refused a request."""
    # With a bound for models, of which there is a metric then.
    options = ("--metrics-port", "0", "--metrics-users", "--analysis", "--memory", "64G")
    with running_server(*options) as server:
        port = metrics_port(server)
        with connected(server.port) as client:
            client.send(ask("Once upon a time", n_predict=8))
            client.until(Done)
            client.send(ask("Once", stream=3, n_predict=-7))
            client.until(Error)
        assert get(server.port, "/healthz")[0] == 200  # over HTTP, too
        wait_until(lambda: total(port, "llcuda_connections") == 0, "the client's end is seen")
        yield server, port


# -- a real server ------------------------------------------------------------------------------


def test_counters_move_as_requests_run(used: tuple[RunningServer, int]) -> None:
    server, port = used
    tokens = total(port, "llcuda_completion_tokens_total")
    done = total(port, "llcuda_requests_total")
    stored = total(port, "llcuda_store_results_total")
    with connected(server.port) as client:
        assert total(port, "llcuda_connections") == 1
        client.send(ask("Once upon a time", n_predict=5))
        _, ending = client.until(Done)
    assert total(port, "llcuda_requests_total") == done + 1
    made = ending.usage["completion_tokens"]
    assert total(port, "llcuda_completion_tokens_total") == tokens + made
    assert total(port, "llcuda_store_results_total") == stored + 1
    assert total(port, "llcuda_journal_sync_seconds_count") > 0
    engine = frozenset({"upstream": "demo"}.items())
    assert samples(port)["llcuda_upstream_up"] == {engine: 1}
    assert total(port, "process_resident_memory_bytes") > 1 << 20
    wait_until(lambda: total(port, "llcuda_connections") == 0, "the client's end is seen")


def test_health_and_what_is_not_there(used: tuple[RunningServer, int]) -> None:
    _, port = used
    assert get(port, "/healthz") == (200, '{"status": "alive"}\n')
    assert get(port, "/readyz") == (200, '{"status": "ready"}\n')
    assert get(port, "/readyz", "HEAD") == (200, "")
    assert get(port, "/")[0] == 404
    assert get(port, "/metrics", "DELETE")[0] == 405


def test_a_crowd_of_idle_connections_keeps_no_probe_out(used: tuple[RunningServer, int]) -> None:
    """A health check that fails restarts the server."""
    _, port = used
    with contextlib.ExitStack() as stack:
        for number in range(200):
            idle = stack.enter_context(socket.create_connection(("127.0.0.1", port), PATIENCE))
            idle.sendall((b"", b"GET /metrics HTT", b"GET /metrics HTTP/1.1\r\n")[number % 3])
        for path in ("/healthz", "/readyz", "/metrics") * 3:
            assert get(port, path)[0] == 200


def test_an_upstream_that_dies_and_a_drain_are_told() -> None:
    with synthetic_upstream("--rate", "50", "--ctx", str(2 * ENDLESS)) as upstream:
        host, port = upstream.address
        url = f"http://{host}:{port}"
        drain = ("--drain-seconds", str(PATIENCE))
        with running_server("--upstream", url, "--metrics-port", "0", *drain) as server:
            web = metrics_port(server)
            with connected(server.port) as client:
                client.send(ask("hello", n_predict=ENDLESS))
                client.until(Tokens)
                assert get(web, "/readyz")[0] == 200
                # While it runs.
                assert total(web, "llcuda_completion_tokens_total") >= 1
                assert total(web, "llcuda_requests_running") == 1
                server.process.send_signal(signal.SIGTERM)
                wait_until(lambda: get(web, "/readyz")[0] == 503, "the drain is told")
                assert "draining" in json.loads(get(web, "/readyz")[1])["reason"]
                assert get(web, "/healthz")[0] == 200
            assert server.stop(signal.SIGTERM) == 128 + signal.SIGTERM
        with running_server("--upstream", url, "--metrics-port", "0") as server:
            web = metrics_port(server)
            assert get(web, "/readyz")[0] == 200
            os.kill(upstream.pid, signal.SIGKILL)
            wait_until(lambda: get(web, "/readyz")[0] == 503, "the death is told")
            reason = json.loads(get(web, "/readyz")[1])["reason"]
            assert url in reason
            assert reason.startswith("no upstream answers: ")
            assert samples(web)["llcuda_upstream_up"].popitem()[1] == 0
            assert total(web, "llcuda_ready") == 0
            assert get(web, "/healthz")[0] == 200
            assert server.stop() == 0


def test_without_the_setting_there_is_nothing(demo_server: RunningServer) -> None:
    assert "metrics_listening" not in demo_server.log()


def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ended = run(
            "server", "--port", "0", "--upstream", "http://127.0.0.1:9", "--metrics-port", port
        )
    assert ended.returncode == 1
    assert "choose another --metrics-port or --metrics-host" in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_beyond_loopback_it_warns() -> None:
    options = ("--upstream", "http://127.0.0.1:9", "--metrics-port", "0")
    with running_server(*options, "--metrics-host", "0.0.0.0") as server:
        port = metrics_port(server)
        assert get(port, "/healthz")[0] == 200
        assert server.stop() == 0
        assert server.process.stdout is not None
        line = server.process.stdout.readline().strip()
        assert line == f"metrics on http://0.0.0.0:{port}/metrics"
        assert server.process.stdout.read() == ""
        assert f'"url": "http://{server.address}/", "event": "page"' in server.log()
        assert "metrics_without_token" in server.log()


# -- deploy/ ------------------------------------------------------------------------------------


_WORDS = re.compile(r"[a-zA-Z_:][\w:]*")
_FUNCTIONS = {"rate", "increase", "sum", "max", "min", "histogram_quantile", "label_values"}
_KEYWORDS = {"by", "on", "unless", "and", "or"}


def _used(expression: str) -> tuple[set[str], set[tuple[str, str]], set[str]]:
    """Of a PromQL expression: its metrics, its matchers (metric, label), its grouping labels."""
    model_keys = {
        label.strip()
        for found in re.findall(r"\b(?:by|on)\s*\(([^)]*)\)", expression)
        for label in found.split(",")
    }
    rest = re.sub(r"\b(?:by|on)\s*\([^)]*\)", " ", expression)
    matchers = set()
    for metric, inside in re.findall(r"([a-zA-Z_:][\w:]*)\{([^}]*)\}", rest):
        for matcher in re.findall(r'(\w+)\s*(?:=~|!~|!=|=)\s*"[^"]*"', inside):
            matchers.add((metric, matcher))
        assert not re.sub(r'(\w+)\s*(?:=~|!~|!=|=)\s*"[^"]*"\s*,?\s*', "", inside), inside
    rest = re.sub(r"\{[^}]*\}", " ", rest)
    rest = re.sub(r"\[[^]]*\]", " ", rest)
    rest = re.sub(r"label_values\((.*),\s*\w+\)", r"\1", rest)
    names = set(_WORDS.findall(rest)) - _FUNCTIONS - _KEYWORDS
    return names, matchers, model_keys


def _alerts() -> list[dict[str, Any]]:
    found = yaml.safe_load((DEPLOY / "alerts.yml").read_text())
    return [rule for model_key in found["groups"] for rule in model_key["rules"]]


def _panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((DEPLOY / "grafana-dashboard.json").read_text())[
        "panels"
    ]
    return found


def _expressions() -> list[tuple[str, str]]:
    """Where it stands, and what it is."""
    out = [(f"alert {rule['alert']}", rule["expr"]) for rule in _alerts()]
    out += [(f"panel {p['title']}", t["expr"]) for p in _panels() for t in p["targets"]]
    variables = json.loads((DEPLOY / "grafana-dashboard.json").read_text())["templating"]["list"]
    out += [
        (f"variable {v['name']}", v["query"]["query"]) for v in variables if v["type"] == "query"
    ]
    return out


def test_deploy_uses_only_metrics_and_labels_that_there_are(
    used: tuple[RunningServer, int],
) -> None:
    labels: dict[str, set[str]] = {"up": set()}
    for name, found in samples(used[1]).items():
        labels[name] = {label for of in found for label, _ in of}
    wrong = []
    for where, expression in _expressions():
        names, matchers, model_keys = _used(expression)
        assert names, f"{where}: {expression}"
        wrong += [f"{where}: no metric {name}" for name in names if name not in labels]
        wrong += [
            f"{where}: {name} has no label {label}"
            for name, label in matchers
            if label not in labels.get(name, set()) | OWN_LABELS
        ]
        has = set.union(OWN_LABELS, *(labels.get(name, set()) for name in names))
        wrong += [f"{where}: no label {label}" for label in model_keys if label not in has]
    assert not wrong


def test_what_the_deploy_test_would_find() -> None:
    """The reading of expressions itself, on ones that are wrong."""
    names, matchers, model_keys = _used('sum by (le, foo) (rate(bar_total{baz=~"x|y"}[5m])) > 0.5')
    assert (names, matchers, model_keys) == ({"bar_total"}, {("bar_total", "baz")}, {"le", "foo"})
    assert _used("a / (b > 0) unless on (instance) c == 1")[0] == {"a", "b", "c"}


def test_every_metric_of_ours_is_on_the_dashboard(used: tuple[RunningServer, int]) -> None:
    shown = set().union(*(_used(expression)[0] for _, expression in _expressions()))
    shown = {re.sub(r"_(bucket|sum|count)$", "", name) for name in shown}
    ours = {re.sub(r"_(bucket|sum|count)$", "", n) for n in samples(used[1]) if "llcuda" in n}
    assert ours - shown == {
        "llcuda_build_info",
        "llcuda_analysis_indexed",
        "llcuda_journal_segments",
        "llcuda_upstream_info",
    }


def test_labels_in_words_are_known(used: tuple[RunningServer, int]) -> None:
    labels = {label for f in samples(used[1]).values() for of in f for label, _ in of} | OWN_LABELS
    for rule in _alerts():
        assert set(rule["annotations"]) == {"summary", "action"}
        for text in rule["annotations"].values():
            assert set(re.findall(r"\$labels\.(\w+)", text)) <= labels
    for panel in _panels():
        for target in panel["targets"]:
            assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= labels


def test_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in _panels():
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells = {(at["x"] + i, at["y"] + j) for i in range(at["w"]) for j in range(at["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in _panels()}) == len(_panels())


def test_the_scrape_and_the_unit() -> None:
    scrape = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())
    assert scrape["rule_files"] == ["alerts.yml"]
    (job,) = scrape["scrape_configs"]
    assert job["job_name"] == "llcuda"
    unit = configparser.ConfigParser(interpolation=None, delimiters=("=",), strict=False)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(DEPLOY / "llcuda-server.service")
    command = unit["Service"]["ExecStart"].split()
    assert Path(command[0]).name == "llcuda-server"
    known = run("server", "--help-all").stdout
    assert all(word in known for word in command if word.startswith("--"))
