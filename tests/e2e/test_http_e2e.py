"""HTTP and our own protocol on one port of a real server, plain and with TLS."""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from llcuda_net import sync
from llcuda_net.server.sockets import raise_descriptor_limit
from tests.support.processes import PATIENCE, RunningServer, running_server
from tools.overhead.processes import synthetic_upstream

GET = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"


def request(
    port: int, method: str, path: str, body: bytes | None = None, **headers: str
) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    with contextlib.closing(connection):
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, named)
        answer = connection.getresponse()
        return answer.status, answer.read()


def answer_of(sock: socket.socket) -> bytes:
    """The head of an answer, and what came with it."""
    read = b""
    while b"\r\n\r\n" not in read:
        data = sock.recv(65_536)
        if not data:
            return read
        read += data
    return read


@pytest.fixture(scope="module")
def upstream() -> Iterator[str]:
    with synthetic_upstream() as found:
        yield "http://{}:{}".format(*found.address)


def test_one_port_for_both_and_a_drain(upstream: str) -> None:
    with running_server("--upstream", upstream) as server:
        port = server.port
        assert request(port, "GET", "/healthz") == (200, b'{"status": "alive"}\n')
        assert request(port, "GET", "/readyz")[0] == 200
        assert b"llcuda_http_requests_total" in request(port, "GET", "/metrics")[1]
        assert request(port, "GET", "/v1/models")[0] == 200
        assert request(port, "GET", "/nothing")[0] == 404
        assert request(port, "GET", "/v1/models", Host="evil.example")[0] == 403
        assert request(port, "GET", "/v1/models", Origin="https://evil.example")[0] == 403
        assert request(port, "GET", "/v1/models", X_Forwarded_For="10.0.0.1")[0] == 403
        assert request(port, "GET", "/healthz", Host="evil.example")[0] == 200
        with sync.connect(server.address) as client:
            assert client.status()["http"]["requests"] == 0
        with socket.create_connection(("127.0.0.1", port), PATIENCE) as sock:
            sock.sendall(GET)
            assert answer_of(sock).startswith(b"HTTP/1.1 200 OK\r\n")
            assert server.stop(signal.SIGTERM) == 0
            assert sock.recv(100) == b""


def test_without_http_the_port_says_so(upstream: str) -> None:
    with running_server("--upstream", upstream, "--no-http") as server:
        status, body = request(server.port, "GET", "/healthz")
        assert status == 400
        assert b"--no-http" in body
        with sync.connect(server.address) as client:
            client.status()


def test_tokens_and_tls(upstream: str, tmp_path: Path) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("localhost", "127.0.0.1")
    key, chain, tokens = tmp_path / "key.pem", tmp_path / "chain.pem", tmp_path / "tokens"
    issued.private_key_pem.write_to_path(str(key))
    for blob in issued.cert_chain_pems:
        blob.write_to_path(str(chain), append=True)
    tokens.write_text("token-of-ann-12345 name=ann\ntoken-of-ops-12345 name=ops role=admin\n")
    for path in (key, tokens):
        path.chmod(0o600)
    context = ssl.create_default_context()
    authority.configure_trust(context)
    with running_server(
        *("--upstream", upstream, "--auth-token-file", str(tokens)),
        *("--tls-cert", str(chain), "--tls-key", str(key)),
    ) as server:
        connection = http.client.HTTPSConnection(
            "localhost", server.port, timeout=PATIENCE, context=context
        )
        with contextlib.closing(connection):

            def ask(path: str, token: str | None, body: bytes | None = None) -> tuple[int, bytes]:
                headers = {} if token is None else {"Authorization": f"Bearer token-of-{token}"}
                connection.request("GET" if body is None else "POST", path, body, headers)
                answer = connection.getresponse()
                return answer.status, answer.read()

            assert ask("/v1/models", None)[0] == 401
            assert ask("/v1/models", "nobody")[0] == 401
            assert ask("/healthz", None)[0] == 200
            assert ask("/v1/models", "ann-12345")[0] == 200
            assert ask("/metrics", "ann-12345")[0] == 403
            assert ask("/metrics", "ops-12345")[0] == 200
            body = json.dumps(
                {
                    "model": "any",
                    "messages": [{"role": "user", "content": "hello"}],
                    "max_tokens": 3,
                }
            ).encode()
            status, answered = ask("/v1/chat/completions", "ann-12345", body)
            assert status == 200, answered
            assert json.loads(answered)["choices"]


def hold_idle(server: RunningServer, count: int, stack: contextlib.ExitStack) -> socket.socket:
    """So many connections that have asked once, and say nothing more; every tenth not even that.

    Returns the oldest that has asked.
    """
    oldest = None
    for number in range(count):
        sock = socket.create_connection(("127.0.0.1", server.port), PATIENCE)
        stack.enter_context(sock)
        if number % 10:
            sock.sendall(GET)
            assert answer_of(sock).startswith(b"HTTP/1.1 200 OK\r\n")
            oldest = oldest or sock
    assert oldest is not None
    return oldest


@pytest.mark.parametrize("count", [300, pytest.param(10_000, marks=pytest.mark.slow)])
def test_idle_connections_stop_nobody(count: int, upstream: str) -> None:
    raise_descriptor_limit()
    with (
        running_server("--upstream", upstream, "--max-connections", "64") as server,
        contextlib.ExitStack() as stack,
    ):
        oldest = hold_idle(server, count, stack)
        assert request(server.port, "GET", "/v1/models")[0] == 200
        with sync.connect(server.address) as client:
            assert client.status()["http"]["idle"] < 64
        assert oldest.recv(100) == b""
